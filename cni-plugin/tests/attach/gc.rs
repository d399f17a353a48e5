//! GC removes what the runtime no longer knows, of its own network, and nothing else.

use std::fs;

use serde_json::json;
use weft_netlink::VethSpec;

use crate::kit::{Node, Pod};

#[test]
fn g1_without_a_list_nothing_is_touched() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    node.add(&pod).result();
    for config in [node.config("1.1.0"), node.config_with("1.1.0", json!({"cni.dev/valid-attachments": null}))] {
        let outcome = node.on_network("GC", &config);
        assert!(outcome.success && outcome.stdout.is_empty(), "{outcome:?}");
        assert_eq!((node.reserved().len(), node.veths().len()), (1, 1));
    }
}

#[test]
fn g1_an_unreadable_list_is_an_error_and_touches_nothing() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    node.add(&pod).result();
    for list in [json!("all"), json!([{"ifname": "eth0"}]), json!([7])] {
        let config = node.config_with("1.1.0", json!({"cni.dev/valid-attachments": list}));
        assert_eq!(node.on_network("GC", &config).error().0, 6);
        assert_eq!((node.reserved().len(), node.veths().len()), (1, 1));
    }
}

#[test]
fn g2_what_is_not_listed_goes_and_what_is_listed_stays() {
    let node = Node::dual_stack();
    let (stale, kept) = (Pod::new("stale"), Pod::new("kept"));
    node.add(&stale).result();
    node.add(&kept).result();
    node.run("ADD", &kept, &node.config("1.0.0"), &[("CNI_IFNAME", "net1")]).result();
    let outcome = node.gc(&[("kept", "eth0")]);
    assert!(outcome.success && outcome.stdout.is_empty(), "{outcome:?}");
    assert_eq!(node.reserved(), ["10.244.1.3", "fd44:0:0:1::3"]);
    assert_eq!(node.veths().len(), 1);
    let has = |pod: &Pod, name: &str| pod.netlink().link_by_name(name).unwrap().is_some();
    assert!(has(&kept, "eth0") && !has(&kept, "net1") && !has(&stale, "eth0"));
}

#[test]
fn g1_an_empty_list_means_that_everything_is_stale() {
    let node = Node::v4();
    let pods = [Pod::new("a"), Pod::new("b")];
    for pod in &pods {
        node.add(pod).result();
    }
    for _ in 0..2 {
        assert!(node.gc(&[]).success);
        assert!(node.reserved().is_empty() && node.veths().is_empty());
    }
}

/// Interfaces of other networks, of other programs, and of plugins that gave them no alias.
#[test]
fn g2_other_networks_and_other_interfaces_are_not_touched() {
    let node = Node::v4();
    let (ours, theirs) = (Pod::new("ours"), Pod::new("theirs"));
    node.add(&ours).result();
    let other = node.config_with("1.1.0", json!({"name": "other"}));
    node.run("ADD", &theirs, &other, &[]).result();
    let netlink = node.netlink();
    for (name, alias) in [("vethforeign", "weft-cni"), ("vethplain", ""), ("vethlike", "weft-cnix weft x eth0")] {
        let peer = format!("{name}p");
        let spec = VethSpec { name, peer_name: &peer, peer_netns: None, mtu: None, mac: None, peer_mac: None };
        netlink.create_veth(&spec).unwrap();
        netlink.set_alias(netlink.link_by_name(name).unwrap().unwrap().index, alias).unwrap();
    }
    assert!(node.gc(&[]).success);
    assert!(node.reserved().is_empty());
    assert!(theirs.netlink().link_by_name("eth0").unwrap().is_some());
    assert!(ours.netlink().link_by_name("eth0").unwrap().is_none());
    assert!(fs::exists(node.store().with_file_name("other").join("10.244.1.2")).unwrap());
    assert_eq!(node.veths().len(), 1 + 6);
}

#[test]
fn g2_it_goes_on_after_an_error_and_reports_it() {
    let node = Node::v4();
    let pod = Pod::new("p");
    node.add(&pod).result();
    // A directory cannot be read as a reservation is.
    fs::create_dir_all(node.store().join("10.244.1.77/x")).unwrap();
    let outcome = node.gc(&[]);
    assert_eq!(outcome.error().0, 5);
    assert!(node.veths().is_empty());
}

#[test]
fn g3_files_without_ifname_belong_to_any_attachment_of_the_container() {
    let node = Node::v4();
    fs::create_dir_all(node.store()).unwrap();
    for (address, text) in [("10.244.1.2", "kept"), ("10.244.1.3", "gone"), ("10.244.1.4", "kept\r\neth0")] {
        fs::write(node.store().join(address), text).unwrap();
    }
    assert!(node.gc(&[("kept", "eth0")]).success);
    assert_eq!(node.reserved(), ["10.244.1.2", "10.244.1.4"]);
}

#[test]
fn g2_without_a_directory_there_is_nothing_to_do() {
    let node = Node::v4();
    assert!(node.gc(&[]).success);
    assert!(!node.store().exists());
}
