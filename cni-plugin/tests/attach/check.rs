//! CHECK notices every way an attachment can differ from what ADD made, and nothing else.

use std::{fs, process::Command};

use serde_json::{Value, json};
use weft_netlink::{RouteFilter, sysctl};

use crate::kit::{Node, Outcome, Pod};

/// Runs `ip` or the like in a pod or on the node.
fn tool(netns: &weft_netlink::Netns, words: &str) {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = netns.run(|| command.args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn assert_differs(outcome: &Outcome, what: &str) {
    let (code, message) = outcome.error();
    assert!(code == 104 && message.contains(what), "expected {what:?}: {message}");
}

/// What an attachment looks like from outside; CHECK must not change it. Link-local addresses and carriers come by
/// themselves a moment after ADD.
fn snapshot(node: &Node, pod: &Pod) -> String {
    let of = |netlink: weft_netlink::Netlink| {
        let links =
            netlink.links().unwrap().into_iter().map(|link| (link.name, link.mac, link.mtu, link.up, link.alias));
        let addresses = netlink.addresses(None).unwrap().into_iter().map(|address| address.address.to_string());
        let routes = netlink.routes(&RouteFilter::default()).unwrap().into_iter().map(|route| route.to_string());
        let lasting = |text: &String| !text.starts_with("fe80");
        format!("{:?} {:?}", links.collect::<Vec<_>>(), addresses.chain(routes).filter(lasting).collect::<Vec<_>>())
    };
    format!("{} {} {:?}", of(node.netlink()), of(pod.netlink()), node.store_files())
}

#[test]
fn c4_right_after_add_all_is_well_and_nothing_changes() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let result = node.run("ADD", &pod, &node.config(version), &[]).result();
        let before = snapshot(&node, &pod);
        for _ in 0..2 {
            let outcome = node.check(&pod, &result);
            assert!(outcome.success && outcome.stdout.is_empty(), "{version}: {outcome:?}");
        }
        assert_eq!(snapshot(&node, &pod), before);
    }
}

#[test]
fn c1_prev_result_is_required_and_must_be_readable() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let result = node.add(&pod).result();
    let run = |config: &Value| node.run("CHECK", &pod, config, &[]).error();
    assert_eq!(run(&node.config("1.0.0")), (7, "required prevResult missing".into()));
    assert_eq!(run(&node.config_with("1.0.0", json!({"prevResult": {"ips": 7}}))).0, 6);
    let without = |key: &str| {
        let mut result = result.clone();
        result[key] = json!([]);
        run(&node.config_with("1.0.0", json!({"prevResult": result})))
    };
    assert_eq!(without("interfaces").0, 104);
    assert_eq!(without("ips").0, 7);
}

/// One thing at a time is broken, in the pod or on the node, and must be named.
#[test]
fn c1_c3_every_difference_is_noticed() {
    let pod_cases = [
        ("ip link set eth0 down", "eth0 is down"),
        ("ip link set eth0 address 02:00:00:00:00:99", "eth0 has MAC 02:00:00:00:00:99"),
        ("ip link set eth0 mtu 1300", "eth0 has MTU 1300 instead of 1430"),
        ("ip link delete eth0", "eth0 is gone"),
        ("ip link set eth0 name other", "eth0 is gone"),
        ("ip address delete 10.244.1.2/32 dev eth0", "10.244.1.2 is not on interface eth0"),
        ("ip -6 address delete fd44:0:0:1::2/128 dev eth0", "fd44:0:0:1::2 is not on interface eth0"),
        // The reference plugins miss this one.
        ("ip route delete default", "no route to 0.0.0.0/0 via 10.244.1.1"),
        ("ip route replace default dev eth0", "no route to 0.0.0.0/0 via 10.244.1.1"),
        ("ip -6 route delete default", "no route to ::/0 via fd44:0:0:1::1"),
    ];
    for (command, what) in pod_cases {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let result = node.run("ADD", &pod, &node.config("1.1.0"), &[]).result();
        tool(&pod.netns, command);
        assert_differs(&node.check(&pod, &result), what);
    }
    let node_cases = [
        ("ip link set VETH down", "is down"),
        ("ip link set VETH mtu 1300", "has MTU 1300"),
        ("ip link set VETH address 02:00:00:00:00:99", "has MAC 02:00:00:00:00:99"),
        ("ip address delete 10.244.1.1/32 dev VETH", "gateway 10.244.1.1 is not on"),
        ("ip route delete 10.244.1.2/32", "no route to 10.244.1.2/32 by"),
        ("ip -6 route delete fd44:0:0:1::2/128", "no route to fd44:0:0:1::2/128 by"),
        ("ip -6 address delete fd44:0:0:1::1/128 dev VETH", "gateway fd44:0:0:1::1 is not on"),
    ];
    for (command, what) in node_cases {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let result = node.run("ADD", &pod, &node.config("1.1.0"), &[]).result();
        tool(&node.netns, &command.replace("VETH", &node.veths()[0]));
        assert_differs(&node.check(&pod, &result), what);
    }
}

#[test]
fn c1_forwarding_must_be_on() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let result = node.add(&pod).result();
    node.netns.run(|| sysctl::set("net/ipv4/ip_forward", "0").unwrap()).unwrap();
    assert_differs(&node.check(&pod, &result), "net.ipv4.ip_forward is 0");
}

#[test]
fn c1_the_sandbox_and_the_interface_must_be_those_of_the_result() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let result = node.run("ADD", &pod, &node.config("1.1.0"), &[]).result();
    let other = Pod::new("p");
    assert_differs(&node.check(&other, &result), "not in /proc/");
    let config = node.config_with("1.1.0", json!({"prevResult": result}));
    let (code, _) = node.run("CHECK", &pod, &config, &[("CNI_NETNS", "/nonexistent")]).error();
    assert_eq!(code, 101);
    assert_eq!(node.run("CHECK", &pod, &config, &[("CNI_NETNS", "/proc/self/ns/net")]).error().0, 8);
    // Something else of that name, and a veth to somewhere else.
    tool(&pod.netns, "ip link delete eth0");
    tool(&pod.netns, "ip link add eth0 type bridge");
    assert_differs(&node.check(&pod, &result), "eth0 is no veth");
    tool(&pod.netns, "ip link delete eth0");
    tool(&pod.netns, "ip link add eth0 type veth peer name elsewhere");
    tool(&pod.netns, "ip link set eth0 up");
    let mut result = result;
    result["interfaces"][1].as_object_mut().unwrap().retain(|key, _| key != "mac" && key != "mtu");
    assert_differs(&node.check(&pod, &result), "the other end of eth0");
}

#[test]
fn c1_the_reservation_is_looked_at() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let result = node.add(&pod).result();
    let file = node.store().join("10.244.1.2");
    fs::write(&file, "someone\r\neth0").unwrap();
    assert!(node.check(&pod, &result).error().1.contains("has no address reserved"));
    fs::write(node.store().join("10.244.1.9"), "p\r\neth0").unwrap();
    assert_differs(&node.check(&pod, &result), "10.244.1.2 is reserved for another container");
    fs::write(&file, "p\r\neth0").unwrap();
    assert_differs(&node.check(&pod, &result), "10.244.1.9 is reserved for the container, which has it not");
    fs::remove_dir_all(node.store()).unwrap();
    assert!(node.check(&pod, &result).error().1.contains("has no address reserved"));
    assert!(!node.store().exists());
}

#[test]
fn c2_what_later_plugins_added_is_no_error() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut result = node.add(&pod).result();
    for command in [
        "ip address add 192.0.2.9/32 dev eth0",
        "ip route add 192.0.2.0/24 via 10.244.1.1",
        "ip route add default via 10.244.1.1 metric 50",
        // Allowed as long as the result does not state it: tuning does that.
        "ip link set eth0 mtu 1300",
    ] {
        tool(&pod.netns, command);
    }
    result["interfaces"].as_array_mut().unwrap().push(json!({"name": "bwp0", "mac": "02:00:00:00:00:05"}));
    result["ips"].as_array_mut().unwrap().push(json!({"address": "192.0.2.9/32", "interface": 1}));
    let outcome = node.check(&pod, &result);
    assert!(outcome.success, "{outcome:?}");
}

#[test]
fn c1_mtu_is_compared_where_results_do_not_have_it() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let result = node.add(&pod).result();
    tool(&pod.netns, "ip link set eth0 mtu 1500");
    assert_differs(&node.check(&pod, &result), "more than the 1450");
    tool(&node.netns, &format!("ip link set {} mtu 1500", node.veths()[0]));
    assert_differs(&node.check(&pod, &result), "has MTU 1500 instead of 1450");
}
