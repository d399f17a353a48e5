//! Coming and going.

use std::fs;

use crate::kit::{Node, Pod, addresses};

fn assert_nothing_left(node: &Node, pod: &Pod) {
    assert!(node.reserved().is_empty(), "{:?}", node.reserved());
    assert!(node.veths().is_empty(), "{:?}", node.veths());
    assert!(pod.netlink().link_by_name("eth0").unwrap().is_none());
    let routes = node.netlink().routes(&weft_netlink::RouteFilter::default()).unwrap();
    assert!(routes.is_empty(), "{routes:?}");
}

#[test]
fn d1_del_removes_everything_and_can_be_repeated() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    node.add(&pod).result();
    for _ in 0..3 {
        let outcome = node.del(&pod);
        assert!(outcome.success && outcome.stdout.is_empty(), "{outcome:?}");
        assert_nothing_left(&node, &pod);
    }
}

#[test]
fn d1_del_of_what_never_was() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    assert!(node.del(&pod).success);
    assert!(!node.store().exists());
}

#[test]
fn d2_without_a_namespace_the_address_is_released() {
    for gone in ["", "/run/netns/weft-test-no-such", "/etc/hostname"] {
        let (node, pod) = (Node::v4(), Pod::new("p"));
        node.add(&pod).result();
        let outcome = node.run("DEL", &pod, &node.config("1.0.0"), &[("CNI_NETNS", gone)]);
        assert!(outcome.success, "{gone}: {outcome:?}");
        assert!(node.reserved().is_empty());
    }
}

/// The node's part of the network may be gone, and the runtime may send no prevResult.
#[test]
fn d1_del_needs_no_subnet_file() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    node.add(&pod).result();
    let mut config = node.config("1.0.0");
    config["subnetFile"] = "/nonexistent/subnet.env".into();
    assert!(node.run("DEL", &pod, &config, &[]).success);
    assert_nothing_left(&node, &pod);
}

#[test]
fn d4_a_late_del_spares_the_successor() {
    let node = Node::v4();
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    let mut config = node.config("1.0.0");
    config["runtimeConfig"] = serde_json::json!({"ips": ["10.244.1.9"]});
    node.run("ADD", &first, &config, &[]).result();
    assert!(node.del(&first).success);
    node.run("ADD", &second, &config, &[]).result();
    assert!(node.del(&first).success);
    assert!(node.run("DEL", &first, &config, &[("CNI_NETNS", "")]).success);
    assert_eq!(node.reserved(), ["10.244.1.9"]);
    assert!(second.netlink().link_by_name("eth0").unwrap().is_some());
}

#[test]
fn d4_an_interface_that_is_no_veth_is_not_ours() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let outcome = node.run("DEL", &pod, &node.config("1.0.0"), &[("CNI_IFNAME", "lo")]);
    assert!(outcome.success, "{outcome:?}");
    assert!(pod.netlink().link_by_name("lo").unwrap().unwrap().up);
}

#[test]
fn section_7_an_existing_directory_is_taken_over() {
    let node = Node::v4();
    fs::create_dir_all(node.store()).unwrap();
    fs::write(node.store().join("10.244.1.2"), "old\r\neth0").unwrap();
    fs::write(node.store().join("10.244.1.3"), "older-without-ifname").unwrap();
    fs::write(node.store().join("last_reserved_ip.0"), "10.244.1.2").unwrap();
    let pod = Pod::new("p");
    assert_eq!(addresses(&node.add(&pod).result()), ["10.244.1.4"]);
    for id in ["old", "older-without-ifname"] {
        assert!(node.run("DEL", &pod, &node.config("1.0.0"), &[("CNI_CONTAINERID", id), ("CNI_NETNS", "")]).success);
    }
    assert_eq!(node.reserved(), ["10.244.1.4"]);
}

/// The namespace lives on somewhere, but not where the runtime says: the address goes, so the interface must.
#[test]
fn d2_without_a_namespace_the_interface_goes_too() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let other = Pod::new("other");
    node.add(&pod).result();
    node.add(&other).result();
    assert!(node.run("DEL", &pod, &node.config("1.0.0"), &[("CNI_NETNS", "")]).success);
    assert!(pod.netlink().link_by_name("eth0").unwrap().is_none());
    assert_eq!((node.reserved(), node.veths().len()), (vec!["10.244.1.3".to_owned()], 1));
}

/// A DEL that comes late, or for another network, finds an interface of that name that says whose it is.
#[test]
fn d4_an_interface_of_another_attachment_is_spared() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    node.add(&pod).result();
    let other_network = node.config_with("1.0.0", serde_json::json!({"name": "other"}));
    assert!(node.run("DEL", &pod, &other_network, &[]).success);
    assert!(node.run("DEL", &pod, &node.config("1.0.0"), &[("CNI_CONTAINERID", "q")]).success);
    assert!(pod.netlink().link_by_name("eth0").unwrap().is_some());
    assert_eq!(node.reserved(), ["10.244.1.2"]);
}

/// Pods that flannel's plugins connected are removed by us after the change.
#[test]
fn d4_an_interface_that_says_nothing_is_removed() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let spec = weft_netlink::VethSpec {
        name: "veth12345678",
        peer_name: "eth0",
        peer_netns: Some(std::os::fd::AsFd::as_fd(&pod.netns)),
        mtu: None,
        mac: None,
        peer_mac: None,
    };
    node.netlink().create_veth(&spec).unwrap();
    assert!(node.del(&pod).success);
    assert_nothing_left(&node, &pod);
}
