//! Packet rules: masquerading by nftables and by iptables, forwarding, the conntrack bypass, and their repair.

use std::{fs, net::IpAddr, time::Duration};

use weft_overlay::{ConntrackBypass, ObjectKind};

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, Node, shell, until},
    exchange::exchange,
    vtep, vtep_v6, weft_cleanup,
};

/// Dual-stack with what masquerades.
pub(crate) fn managed_by(nftables: bool) -> String {
    format!(r#"{{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","EnableNFTables":{nftables}}}"#)
}

/// All rules of the node, of all programs.
fn rules(node: &Node) -> String {
    shell(&node.netns, "nft list ruleset; for p in iptables ip6tables; do $p-save; done | grep -v '^#'")
}

/// The first pod of nodes 1 and 2 in each family.
pub(crate) fn pod_addresses() -> [[IpAddr; 2]; 2] {
    [["10.244.1.5", "10.244.2.5"], ["fd44:0:0:1::5", "fd44:0:0:2::5"]].map(|pair| pair.map(|ip| ip.parse().unwrap()))
}

#[test]
fn defect_e1_both_managers_masquerade_what_must_be_and_only_that() {
    for nftables in [true, false] {
        let cluster = Cluster::new();
        let nodes = [1, 2].map(|number| cluster.node(number, &managed_by(nftables)));
        nodes.iter().for_each(|node| node.until_peers(1));
        let manager = if nftables { "nftables" } else { "iptables" };
        assert_eq!(nodes[0].status().packet_filter.as_deref(), Some(manager));
        let outside = cluster.machine(100);
        let nodes_addresses = [("172.30.0.100", "172.30.0.1"), ("fd99::100", "fd99::1")];
        for ([near_ip, far_ip], (outside_ip, node_ip)) in pod_addresses().into_iter().zip(nodes_addresses) {
            let [outside_ip, node_ip] = [outside_ip, node_ip].map(|ip| ip.parse::<IpAddr>().unwrap());
            let (near, far) = (nodes[0].pod(near_ip), nodes[1].pod(far_ip));
            until(REPAIR, || exchange(&near, &far, far_ip));
            assert_eq!(exchange(&near, &far, far_ip), Ok(near_ip), "{manager}: pod to pod keeps its address");
            assert_eq!(exchange(&near, &outside.netns, outside_ip), Ok(node_ip), "{manager}");
            // From outside to a local pod: the client's address is kept.
            outside.run(&format!("ip route replace {near_ip} via {node_ip}"));
            assert_eq!(exchange(&outside.netns, &near, near_ip), Ok(outside_ip), "{manager}");
            // To a pod of another node: masqueraded, or the answer would take another way.
            outside.run(&format!("ip route replace {far_ip} via {node_ip}"));
            let seen = exchange(&outside.netns, &far, far_ip).unwrap();
            assert!([vtep(1), vtep_v6(1)].contains(&seen), "{manager}: {seen}");
            // Others use the mark too: only kube-proxy's bit counts.
            nodes.iter().for_each(|node| _ = node.run("ip link delete pod5"));
        }
        let mark = if nftables { "meta mark & 0x00004000 == 0x00004000 return" } else { "--mark 0x4000/0x4000" };
        assert!(rules(&nodes[0]).contains(mark), "{}", rules(&nodes[0]));
    }
}

#[test]
fn iptables_chains_are_flannels_text() {
    let cluster = Cluster::new();
    let node = cluster.node(1, &managed_by(false));
    for (program, network, subnet, multicast) in [
        ("iptables", "10.244.0.0/16", "10.244.1.0/24", "224.0.0.0/4"),
        ("ip6tables", "fd44::/48", "fd44:0:0:1::/64", "ff00::/8"),
    ] {
        let masq = r#"-m comment --comment "flanneld masq""#;
        let forward = r#"-m comment --comment "flanneld forward""#;
        assert_eq!(
            node.run(&format!("{program} -t nat -S FLANNEL-POSTRTG")),
            format!(
                "-N FLANNEL-POSTRTG\n\
                 -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {subnet} -d {network} {masq} -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {network} -d {subnet} {masq} -j RETURN\n\
                 -A FLANNEL-POSTRTG ! -s {network} -d {subnet} {masq} -j RETURN\n\
                 -A FLANNEL-POSTRTG -s {network} ! -d {multicast} {masq} -j MASQUERADE --random-fully\n\
                 -A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} -j MASQUERADE --random-fully\n"
            )
        );
        assert_eq!(
            node.run(&format!("{program} -S FLANNEL-FWD")),
            format!(
                "-N FLANNEL-FWD\n-A FLANNEL-FWD -s {network} {forward} -j ACCEPT\n\
                 -A FLANNEL-FWD -d {network} {forward} -j ACCEPT\n"
            )
        );
        let jumps = node.run(&format!("{program} -t nat -S POSTROUTING"));
        assert!(jumps.contains(&format!("-A POSTROUTING {masq} -j FLANNEL-POSTRTG\n")), "{jumps}");
    }
}

#[test]
fn defect_e2_whoever_removes_rules_they_are_back_within_a_second() {
    let nft = (
        true,
        &[
            "nft flush ruleset",
            "nft delete table inet weft-overlay",
            "nft flush chain inet weft-overlay postrouting",
            "nft flush chain inet weft-overlay bypass",
        ][..],
    );
    let iptables = (
        false,
        &[
            "nft flush ruleset",
            "iptables -t nat -F",
            "ip6tables -t nat -F FLANNEL-POSTRTG",
            "iptables -t nat -D FLANNEL-POSTRTG 1",
            r#"iptables -t nat -D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG"#,
            r#"iptables -D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD"#,
            "iptables -F",
        ][..],
    );
    for (nftables, sabotages) in [nft, iptables] {
        let cluster = Cluster::new();
        let node = cluster.node(1, &managed_by(nftables));
        let before = rules(&node);
        for (repairs, sabotage) in (1..).zip(sabotages) {
            shell(&node.netns, sabotage);
            // Counted once it is seen to stay.
            until(REPAIR, || match node.status().repairs_by_kind.get(&ObjectKind::PacketFilter) {
                Some(counted) if *counted >= repairs => Ok(()),
                other => Err(format!("{sabotage}: {other:?}")),
            });
            assert_eq!(rules(&node), before, "{sabotage}");
        }
        // No rule, but the CNI plugin needs it as much.
        fs::remove_file(&node.subnet_file).unwrap();
        until(REPAIR, || node.subnet_file.exists().then_some(()).ok_or("no subnet.env".into()));
        node.run("sysctl -qw net.ipv4.ip_forward=0");
        until(REPAIR, || match node.run("cat /proc/sys/net/ipv4/ip_forward") {
            value if value == "1\n" => Ok(()),
            value => Err(value),
        });
        assert_eq!(node.status().sysctls["net/ipv4/ip_forward"], "1");
    }
}

#[test]
fn defect_e3_switching_managers_leaves_nothing_behind() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    // What a flannel in nft mode leaves, and a table of somebody else.
    node.run("nft add table ip flannel-ipv4");
    node.run("nft add table ip other");
    for nftables in [true, false, true] {
        let mut config = node.config(&managed_by(nftables));
        config.conntrack_bypass = ConntrackBypass::Off;
        node.try_start(config).unwrap();
        node.until_ready();
        let rules = rules(&node);
        assert_eq!(rules.contains("weft-overlay"), nftables, "{rules}");
        assert_eq!(rules.contains("FLANNEL-POSTRTG"), !nftables, "{rules}");
        assert_eq!(rules.contains("FLANNEL-FWD"), !nftables, "{rules}");
        assert!(!rules.contains("flannel-ipv4") && rules.contains("table ip other"), "{rules}");
        node.stop();
    }
    node.start(&managed_by(false));
    node.until_ready();
    node.stop();
    weft_cleanup(&node);
    let rules = rules(&node);
    assert!(!rules.contains("FLANNEL") && !rules.contains("weft"), "{rules}");
}

#[test]
fn defect_e4_a_forward_policy_of_drop_does_not_stop_pods() {
    // docker's policy; a firewall's last rule; the same through the kernel's old interface, which tells nobody.
    for (family, program, sabotage, soon) in [
        (0, "iptables", "-P FORWARD DROP", REPAIR),
        (1, "ip6tables", "-P FORWARD DROP", REPAIR),
        (0, "iptables", "-A FORWARD -j REJECT", REPAIR),
        (1, "ip6tables", "-A FORWARD -j REJECT", REPAIR),
        (0, "iptables-legacy", "-P FORWARD DROP", Duration::from_secs(7)),
        (1, "ip6tables-legacy", "-P FORWARD DROP", Duration::from_secs(7)),
    ] {
        let sabotage = format!("{program} {sabotage}");
        let cluster = Cluster::new();
        let nodes = [1, 2].map(|number| cluster.machine(number));
        // One node had it before the agent came, the other gets it later.
        nodes[1].run(&sabotage);
        let nodes = nodes.map(|mut node| {
            node.start(DUAL_STACK);
            node.until_ready();
            node
        });
        nodes.iter().for_each(|node| node.until_peers(1));
        let [near_ip, far_ip] = pod_addresses()[family];
        let (near, far) = (nodes[0].pod(near_ip), nodes[1].pod(far_ip));
        until(REPAIR * 2, || exchange(&near, &far, far_ip));
        nodes[0].run(&sabotage);
        until(soon, || exchange(&near, &far, far_ip).map_err(|error| format!("{sabotage}: {error}")));
        assert_eq!(exchange(&far, &near, near_ip), Ok(far_ip), "{sabotage}");
        let first = nodes[0].run(&format!("{program} -S FORWARD"));
        let first = first.lines().find(|line| line.starts_with("-A")).unwrap();
        assert_eq!(first, r#"-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD"#);
    }
}

#[test]
fn defect_e5_a_missing_rule_is_put_back_without_a_gap() {
    let cluster = Cluster::new();
    let node = cluster.node(1, &managed_by(false));
    let outside = cluster.machine(100);
    let pod = node.pod("10.244.1.5".parse().unwrap());
    let outside_ip: IpAddr = "172.30.0.100".parse().unwrap();
    for repairs in 1..=5 {
        node.run("iptables -t nat -D FLANNEL-POSTRTG 1");
        until(REPAIR, || {
            // Every single connection is masqueraded, while the chain is written anew.
            assert_eq!(exchange(&pod, &outside.netns, outside_ip), Ok("172.30.0.1".parse().unwrap()));
            match node.status().repairs {
                counted if counted >= repairs => Ok(()),
                counted => Err(format!("{counted} repairs")),
            }
        });
    }
}
