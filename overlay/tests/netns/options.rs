//! Changed configurations reach what is there, and leave nothing of the old one (flannel-defects.md A.6).

use std::{fs, net::IpAddr, time::Duration};

use crate::{
    REPAIR,
    cluster::{Cluster, NETWORK, Node, shell, until},
    exchange::exchange,
    vtep, vtep_v6,
};

#[test]
fn defect_a6_changed_options_reach_the_device() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    let conf = |backend: &str| {
        format!(r#"{{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","Backend":{backend}}}"#)
    };
    for (backend, device, part, mtu) in [
        (r#"{"Type":"vxlan","MTU":1400}"#, "flannel.1", "mtu 1350", 1330),
        (r#"{"Type":"vxlan","MTU":1300}"#, "flannel.1", "mtu 1250", 1230),
        (r#"{"Type":"vxlan","Port":4789}"#, "flannel.1", "dstport 4789", 1430),
        (r#"{"Type":"vxlan","GBP":true}"#, "flannel.1", "gbp", 1430),
        (r#"{"Type":"vxlan"}"#, "flannel.1", "dstport 8472 nolearning", 1430),
        (r#"{"Type":"vxlan","VNI":42}"#, "flannel.42", "vxlan id 42", 1430),
        (r#"{"Type":"vxlan","VNI":42,"DirectRouting":true}"#, "flannel.42", "vxlan id 42", 1430),
        (r#"{"Type":"host-gw"}"#, "eth0", "mtu 1500", 1500),
        (r#"{"Type":"vxlan"}"#, "flannel.1", "vxlan id 1", 1430),
    ] {
        // An inner IPv6 packet needs 1280: a smaller MTU is refused.
        let conf = if mtu < 1280 { conf(backend).replace("true,\"IPv6", "false,\"IPv6") } else { conf(backend) };
        let mtu = if mtu < 1280 { 1250 } else { mtu };
        for node in &mut nodes {
            node.stop();
            // A flannel with Learning before us.
            shell(&node.netns, "ip link set flannel.1 type vxlan learning");
            node.start(&conf);
            node.until_ready();
        }
        let link = nodes[0].run(&format!("ip -details link show {device}"));
        assert!(link.contains(part), "{backend}: {link}");
        let all = nodes[0].run("ip -brief link show");
        let others: Vec<_> =
            all.lines().filter(|line| line.starts_with("flannel.") && !line.starts_with(device)).collect();
        assert!(others.is_empty(), "{backend}: {others:?}");
        let env = fs::read_to_string(&nodes[0].subnet_file).unwrap();
        assert!(env.contains(&format!("FLANNEL_MTU={mtu}\n")), "{backend}: {env}");
        let address: IpAddr = "10.244.2.5".parse().unwrap();
        let pod = nodes[1].pod(address);
        until(Duration::from_secs(3), || {
            exchange(&nodes[0].netns, &pod, address).map_err(|error| format!("{backend}: {error}"))
        });
        nodes[1].run("ip link delete pod5");
    }
}

/// A dual-stack configuration with some families switched off.
fn families(v4: bool, v6: bool, backend: &str) -> String {
    format!(
        r#"{{"EnableIPv4":{v4},"Network":"10.244.0.0/16","EnableIPv6":{v6},"IPv6Network":"fd44::/48","Backend":{backend}}}"#
    )
}

/// Everything of the pod networks that the kernel has.
fn objects(node: &Node) -> String {
    shell(
        &node.netns,
        "ip -brief link show type vxlan; for f in 4 6; do ip -$f route show table all type unicast; \
         ip -$f route show table all type unreachable; ip -$f neigh show nud permanent; done; nft list ruleset; \
         iptables-save; ip6tables-save",
    )
}

#[test]
fn defect_a6_a_family_that_is_switched_off_leaves_nothing() {
    const VXLAN: &str = r#"{"Type":"vxlan"}"#;
    const ANOTHER_VNI: &str = r#"{"Type":"vxlan","VNI":7}"#;
    const HOST_GW: &str = r#"{"Type":"host-gw"}"#;
    let traces = [["flannel.", "10.244."], ["flannel-v6.", "fd44:"]];
    for (before, after) in
        [(VXLAN, VXLAN), (VXLAN, ANOTHER_VNI), (VXLAN, HOST_GW), (HOST_GW, HOST_GW), (HOST_GW, VXLAN)]
    {
        let cluster = Cluster::new();
        let mut nodes = [1, 2].map(|number| cluster.node(number, &families(true, true, before)));
        for (v4, v6) in [(true, false), (true, true), (false, true), (true, true)] {
            for node in &mut nodes {
                node.stop();
                node.start(&families(v4, v6, if v4 && v6 { before } else { after }));
                node.until_ready();
            }
            let there = objects(&nodes[0]);
            for (on, traces) in [v4, v6].into_iter().zip(traces) {
                let left: Vec<&str> =
                    there.lines().filter(|line| traces.iter().any(|trace| line.contains(trace))).collect();
                assert_eq!(!left.is_empty(), on, "{before} to {after}, IPv4 {v4}, IPv6 {v6}: {left:#?}");
            }
        }
        let (first, second) = (&nodes[0], &nodes[1]);
        if before == VXLAN {
            until(REPAIR, || exchange(&first.netns, &second.netns, vtep(second.subnet())));
            until(REPAIR, || exchange(&first.netns, &second.netns, vtep_v6(second.subnet().into())));
        }
    }
}

#[test]
fn another_vxlan_device_is_not_taken_for_one_of_a_family_that_is_off() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    // Names of ours, but a bridge, or with addresses of somebody else.
    node.run("ip link add flannel-v6.1 type bridge");
    node.run("ip link add flannel-v6.9 type vxlan id 9 dstport 4790 dev eth0");
    node.run("ip address add fd66::/128 dev flannel-v6.9");
    node.start(NETWORK);
    node.until_ready();
    let links = node.run("ip -brief link show");
    assert!(links.contains("flannel-v6.1") && links.contains("flannel-v6.9"), "{links}");
}
