//! `weft-cni` first, other plugins after it, driven as a runtime drives them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use weft_netlink::{Netns, sysctl};

use crate::{
    kit::{Node, Pod, addresses},
    runtime::Runtime,
};

fn runtime<'a>(node: &'a Node, version: &'static str, after: Value, runtime_config: Value) -> Runtime<'a> {
    let mut plugins = vec![node.config(version)];
    plugins.extend(after.as_array().unwrap().iter().cloned());
    Runtime { node, version, plugins, runtime_config }
}

fn assert_well(runtime: &Runtime<'_>, pod: &Pod, result: &Value) {
    for outcome in runtime.check(pod, result) {
        assert!(outcome.success, "{outcome:?}");
    }
}

fn assert_nothing_left(node: &Node) {
    assert!(node.reserved().is_empty() && node.veths().is_empty(), "{:?} {:?}", node.reserved(), node.veths());
}

/// Section 10: containerd without any other plugin.
#[test]
fn section_10_containerds_sequence() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let runtime = runtime(&node, version, json!([]), json!({}));
        let result = runtime.add(&pod).unwrap();
        if version != "0.3.1" {
            assert_well(&runtime, &pod, &result);
        }
        runtime.stop_and_remove(&pod, &result);
        assert_nothing_left(&node);
    }
}

/// A failed chain is taken down with a DEL that knows no result, and can be tried again in the same sandbox.
#[test]
fn section_10_a_chain_that_fails_is_deleted_without_a_result() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let broken = json!([{"type": "tuning", "sysctl": {"net.ipv4.no_such_thing": "1"}}]);
    runtime(&node, "1.0.0", broken, json!({})).add(&pod).unwrap_err();
    assert_nothing_left(&node);
    assert!(pod.netlink().link_by_name("eth0").unwrap().is_none());
    runtime(&node, "1.0.0", json!([]), json!({})).add(&pod).unwrap();
}

#[test]
fn r3_6_tuning_after_weft_cni() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let tuning = json!([{"type": "tuning", "mac": "02:00:00:00:00:42", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"},
        "dataDir": node.directory().join("tuning")}]);
    let runtime = runtime(&node, "1.0.0", tuning, json!({}));
    let result = runtime.add(&pod).unwrap();
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:42");
    let eth0 = pod.netlink().link_by_name("eth0").unwrap().unwrap();
    assert_eq!((eth0.mac.unwrap().to_string().as_str(), eth0.mtu), ("02:00:00:00:00:42", 1400));
    assert_eq!(pod.netns.run(|| sysctl::get("net/core/somaxconn").unwrap()).unwrap(), "500");
    assert_well(&runtime, &pod, &result);
    runtime.stop_and_remove(&pod, &result);
    assert_nothing_left(&node);
}

fn iptables_rules(netns: &Netns) -> String {
    let mut command = Command::new("iptables-save");
    String::from_utf8(netns.run(|| command.output().unwrap()).unwrap().stdout).unwrap()
}

/// Connects from the node to one of its own ports and reads what the pod says.
fn ask(node: &Node, to: SocketAddr) -> String {
    let mut stream = node.netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn r3_3_portmap_and_tuning_after_weft_cni() {
    let node = Node::v4();
    let netlink = node.netlink();
    netlink.set_up(netlink.link_by_name("lo").unwrap().unwrap().index).unwrap();
    let pods = [Pod::new("first"), Pod::new("second")];
    let after = json!([{"type": "tuning", "dataDir": node.directory().join("tuning")},
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]);
    let of_port = |port: u16| {
        let mapping = json!({"HostPort": port, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""});
        runtime(&node, "1.0.0", after.clone(), json!({"portmap": {"portMappings": [mapping]}}))
    };
    let runtimes = [of_port(8081), of_port(8082)];
    let results: Vec<_> = pods.iter().zip(&runtimes).map(|(pod, runtime)| runtime.add(pod).unwrap()).collect();
    for ((pod, result), runtime) in pods.iter().zip(&results).zip(&runtimes) {
        // Debian's portmap looks for its IPv4 rules among the IPv6 ones as well, so it fails for every pod.
        let outcomes = runtime.check(pod, result);
        assert!(outcomes[..2].iter().all(|outcome| outcome.success), "{outcomes:?}");
        let listening: SocketAddr = format!("{}:8080", addresses(result)[0]).parse().unwrap();
        let listener = pod.netns.run(|| TcpListener::bind(listening).unwrap()).unwrap();
        let name = pod.id.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                connection.unwrap().write_all(name.as_bytes()).unwrap();
            }
        });
    }
    assert_eq!(ask(&node, "10.244.1.1:8081".parse().unwrap()), "first");
    assert_eq!(ask(&node, "127.0.0.1:8082".parse().unwrap()), "second");
    runtimes[0].stop_and_remove(&pods[0], &results[0]);
    assert_eq!(node.reserved(), addresses(&results[1]));
    assert_eq!(ask(&node, "10.244.1.1:8082".parse().unwrap()), "second");
    runtimes[1].stop_and_remove(&pods[1], &results[1]);
    assert_nothing_left(&node);
    let rules = iptables_rules(&node.netns);
    assert!(!rules.contains("10.244.1."), "{rules}");
}
