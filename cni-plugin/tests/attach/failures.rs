//! ADD that fails leaves everything as it was.

use serde_json::json;
use weft_netlink::VethSpec;

use crate::kit::{Node, Pod, addresses};

#[test]
fn a2_a_failure_half_way_leaves_nothing() {
    let broken = [
        // After the pair was made: a gateway nobody has.
        json!({"ipam": {"type": "host-local", "routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]}}),
        // While it is made: an MTU no veth takes.
        json!({"mtu": 10}),
        // After one of two addresses was taken: the second set has none left.
        json!({"ipam": {"type": "host-local", "ranges":
            [[{"subnet": "10.5.0.0/24"}], [{"subnet": "10.6.0.0/24", "rangeStart": "10.6.0.1", "rangeEnd": "10.6.0.1"}]]}}),
    ];
    for change in broken {
        let (node, pod) = (Node::dual_stack(), Pod::new("p"));
        let mut config = node.config("1.0.0");
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let outcome = node.run("ADD", &pod, &config, &[]);
        assert!(!outcome.success, "{change}: {outcome:?}");
        assert!(node.reserved().is_empty(), "{change}: {:?}", node.reserved());
        assert!(node.veths().is_empty(), "{change}");
        assert!(pod.netlink().link_by_name("eth0").unwrap().is_none(), "{change}");
        // And the next attempt in the same sandbox works.
        node.add(&pod).result();
    }
}

/// What the kernel says alone, `Invalid argument`, helps nobody who reads the events of a pod.
#[test]
fn r4_1_what_was_asked_for_is_told_with_what_the_kernel_said() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let config = node.config_with("1.0.0", json!({"mtu": 10, "runtimeConfig": {"mac": "02:00:00:00:00:01"}}));
    let outcome = node.run("ADD", &pod, &config, &[]);
    assert_eq!(outcome.error().0, 101);
    assert_eq!(outcome.json()["details"], "asked for with MTU 10, MAC 02:00:00:00:00:01");
}

#[test]
fn a1_a_name_in_use_is_not_touched() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let netlink = pod.netlink();
    let spec = VethSpec { name: "eth0", peer_name: "other", peer_netns: None, mtu: None, mac: None, peer_mac: None };
    netlink.create_veth(&spec).unwrap();
    let before = netlink.link_by_name("eth0").unwrap();
    let (code, message) = node.add(&pod).error();
    assert!(code == 101 && message.contains("already exists"), "{message}");
    assert_eq!(netlink.link_by_name("eth0").unwrap(), before);
    assert!(node.reserved().is_empty() && node.veths().is_empty());
}

#[test]
fn a4_a_second_add_leaves_the_first_attachment_unharmed() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let first = node.add(&pod).result();
    let before = pod.netlink().link_by_name("eth0").unwrap();
    node.add(&pod).error();
    // With a new sandbox under the old name it is the address that gives it away.
    let (code, message) = node.add(&Pod::new("p")).error();
    assert!(code == 102 && message.contains("duplicate allocation is not allowed"), "{message}");
    assert_eq!(node.reserved(), addresses(&first));
    assert_eq!(pod.netlink().link_by_name("eth0").unwrap(), before);
    assert_eq!(node.veths().len(), 1);
}

#[test]
fn r4_1_without_a_subnet_file_the_runtime_is_told_to_try_again() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut config = node.config("1.0.0");
    config["subnetFile"] = "/nonexistent/subnet.env".into();
    let (code, message) = node.run("ADD", &pod, &config, &[]).error();
    assert!(code == 11 && message.contains("/nonexistent/subnet.env does not exist"), "{message}");
}

#[test]
fn section_7_a_full_range_says_so() {
    let node = Node::new("FLANNEL_SUBNET=10.244.1.1/30\n");
    node.add(&Pod::new("only")).result();
    let (code, message) = node.add(&Pod::new("late")).error();
    assert!(
        code == 102 && message.contains("no IP addresses available in range set: 10.244.1.1-10.244.1.2"),
        "{message}"
    );
}

/// Elsewhere that means an interface without an address; ours cannot do without.
#[test]
fn a5_an_empty_ipam_section_is_refused_with_advice() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut config = node.config("1.0.0");
    config["ipam"] = json!({});
    let outcome = node.run("ADD", &pod, &config, &[]);
    assert_eq!(outcome.error(), (7, "ipam has no type".into()));
    assert!(outcome.stdout.contains("leave out"), "{outcome:?}");
    assert!(node.run("DEL", &pod, &config, &[]).success);
}
