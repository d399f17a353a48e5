//! bandwidth (section 9): how fast bytes go through, and what `tc` sees.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weft_netlink::{Netns, TokenBucket};

use crate::kit::{Node, Pod, addresses};

/// 2 MB/s.
const RATE: u64 = 16_000_000;
const BYTES: usize = 600_000;

fn config(node: &Node, bandwidth: Value) -> Value {
    node.config_with("1.0.0", json!({"runtimeConfig": {"bandwidth": bandwidth}}))
}

/// What containerd makes of an annotation of Kubernetes.
fn annotated(ingress: u64, egress: u64) -> Value {
    let burst = |rate| if rate == 0 { 0 } else { 4_294_967_295_u64 };
    let (ingress_burst, egress_burst) = (burst(ingress), burst(egress));
    json!({"IngressRate": ingress, "IngressBurst": ingress_burst, "EgressRate": egress, "EgressBurst": egress_burst})
}

/// How long a number of bytes takes.
fn transfer(from: &Netns, to: &Netns, address: &str) -> Duration {
    let address = SocketAddr::new(address.parse().unwrap(), 0);
    let listener = to.run(|| TcpListener::bind(address).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        received.len()
    });
    let begin = Instant::now();
    let mut stream = from.run(|| TcpStream::connect(address).unwrap()).unwrap();
    stream.write_all(&vec![7; BYTES]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.join().unwrap(), BYTES);
    begin.elapsed()
}

#[test]
fn section_9_each_direction_is_limited_with_containerds_burst() {
    let node = Node::v4();
    // All but a burst of 64 KiB goes at the rate.
    let least = Duration::from_secs_f64((BYTES - 64 * 1024) as f64 / (RATE / 8) as f64 * 0.9);
    for (name, ingress, egress) in [("in", RATE, 0), ("out", 0, RATE)] {
        let pod = Pod::new(name);
        let result = node.run("ADD", &pod, &config(&node, annotated(ingress, egress)), &[]).result();
        let inward = transfer(&node.netns, &pod.netns, &addresses(&result)[0]);
        let outward = transfer(&pod.netns, &node.netns, "10.244.1.1");
        let (slow, fast) = if ingress > 0 { (inward, outward) } else { (outward, inward) };
        assert!(slow > least, "{name}: {slow:?}");
        assert!(fast < slow / 2, "{name}: {fast:?}, {slow:?}");
        assert!(node.del(&pod).success);
    }
    assert!(node.veths().is_empty());
}

#[test]
fn section_9_c3_check_looks_at_the_buckets() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut config = config(&node, annotated(RATE, RATE));
    let result = node.run("ADD", &pod, &config, &[]).result();
    config["prevResult"] = result.clone();
    let check = || node.run("CHECK", &pod, &config, &[]);
    assert!(check().success);
    for (netlink, name) in
        [(node.netlink(), result["interfaces"][0]["name"].as_str().unwrap()), (pod.netlink(), "eth0")]
    {
        let link = netlink.link_by_name(name).unwrap().unwrap().index;
        let other = TokenBucket { rate: 1_000_000_000, burst: 1_000_000, limit: 2_000_000 };
        netlink.replace_token_bucket(link, &other).unwrap();
        let (code, message) = check().error();
        assert!(code == 104 && message.contains(name), "{message}");
        let right = TokenBucket { rate: RATE / 8, burst: 65536, limit: 65536 + 50_000 };
        netlink.replace_token_bucket(link, &right).unwrap();
        assert!(check().success);
    }
}

#[test]
fn section_9_mistakes_are_refused_and_undone() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    for bandwidth in [json!({"ingressRate": 8000}), json!({"egressBurst": 8000}), json!(7)] {
        let config = config(&node, bandwidth);
        assert!(matches!(node.run("ADD", &pod, &config, &[]).error().0, 6 | 7));
        assert!(node.reserved().is_empty() && node.veths().is_empty());
        assert!(node.run("DEL", &pod, &config, &[]).success);
    }
    for bandwidth in [json!(null), json!({}), annotated(0, 0)] {
        node.run("ADD", &pod, &config(&node, bandwidth), &[]).result();
        assert!(node.del(&pod).success);
    }
}
