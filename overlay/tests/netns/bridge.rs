//! Pods of flannel's time, on its bridge, beside routed ones on the same node.

use std::{net::IpAddr, os::fd::AsFd};

use weft_netlink::{Netlink, Netns, VethSpec};

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, Node, run, until},
    exchange::exchange,
    until_shows, weft_cleanup,
};

/// What the CNI plugins `flannel` and `bridge` leave: the bridge, and a pod on it.
fn old_pod(node: &Node) -> Netns {
    let pod = Netns::create().unwrap();
    let spec = VethSpec {
        name: "old",
        peer_name: "eth0",
        peer_netns: Some(pod.as_fd()),
        mtu: Some(1430),
        mac: None,
        peer_mac: None,
    };
    node.netns.run(|| Netlink::open().unwrap().create_veth(&spec).unwrap()).unwrap();
    for command in [
        "ip link add cni0 type bridge",
        "ip link set old master cni0 up",
        "ip link set cni0 up",
        "ip address add 10.244.1.1/24 dev cni0",
        "ip address add fd44:0:0:1::1/64 dev cni0 nodad",
    ] {
        node.run(command);
    }
    for command in [
        "ip link set lo up",
        "ip link set eth0 up",
        "ip address add 10.244.1.2/24 dev eth0",
        "ip address add fd44:0:0:1::2/64 dev eth0 nodad",
        "ip route add default via 10.244.1.1",
        "ip route add default via fd44:0:0:1::1",
    ] {
        run(&pod, command);
    }
    pod
}

#[test]
fn pods_on_flannels_bridge_and_routed_ones_reach_each_other_in_both_families() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1, DUAL_STACK);
    let pods = |addresses: [&str; 2]| addresses.map(|address| address.parse::<IpAddr>().unwrap());
    // One pod before the bridge is there, and one after it.
    let before = pods(["10.244.1.5", "fd44:0:0:1::6"]).map(|address| (address, node.pod(address)));
    let old = old_pod(&node);
    let after = pods(["10.244.1.7", "fd44:0:0:1::8"]).map(|address| (address, node.pod(address)));
    for (address, pod) in before.iter().chain(&after) {
        let [old_v4, old_v6] = pods(["10.244.1.2", "fd44:0:0:1::2"]);
        let old_address = if address.is_ipv4() { old_v4 } else { old_v6 };
        assert_eq!(until(REPAIR, || exchange(&old, pod, *address)), old_address);
        assert_eq!(until(REPAIR, || exchange(pod, &old, old_address)), *address);
    }
    let answers = "ip -6 neighbour show proxy dev cni0";
    until_shows(&node, answers, "fd44:0:0:1::6");
    assert_eq!(node.status().error, None);

    // A pod that is gone is not answered for: another may be given its address.
    node.run("ip link delete pod6");
    until(REPAIR, || match node.run(answers) {
        shown if shown.contains("fd44:0:0:1::8") && !shown.contains("fd44:0:0:1::6") => Ok(()),
        shown => Err(shown),
    });
    node.stop();
    let removed = weft_cleanup(&node);
    assert!(removed.contains(&"IPv6 answers on flannel's bridge".to_owned()), "{removed:?}");
    assert_eq!(node.run(answers), "");
}
