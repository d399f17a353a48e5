//! Packet rules: masquerading by nftables and by iptables, forwarding, the conntrack bypass, and their repair.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use weft_netlink::Netns;
use weft_overlay::{ConntrackBypass, ObjectKind};

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, NETWORK, Node, exchange, exchange_through, shell, until},
    vtep, vtep_v6, weft_cleanup,
};

/// Dual-stack with what masquerades.
fn managed_by(nftables: bool) -> String {
    format!(r#"{{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","EnableNFTables":{nftables}}}"#)
}

/// All rules of the node, of all programs.
fn rules(node: &Node) -> String {
    shell(&node.netns, "nft list ruleset; for p in iptables ip6tables; do $p-save; done | grep -v '^#'")
}

/// The first pod of nodes 1 and 2 in each family.
fn pod_addresses() -> [[IpAddr; 2]; 2] {
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

/// Conntrack entries of connections between pods.
fn tracked(node: &Node) -> String {
    shell(&node.netns, "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
        .lines()
        .filter(|line| [".5 ", "::5 "].iter().any(|pod| line.matches(pod).count() >= 2))
        .collect()
}

/// What a Service proxy's packet path does: port 80 of `vip` and port 30080 of the node go to `server`; hairpin and NodePort
/// connections are masqueraded.
fn translate(node: &Node, vip: IpAddr, server: SocketAddr) {
    let ip = if vip.is_ipv4() { "ip" } else { "ip6" };
    let rules = format!(
        "add table {ip} proxy\n\
         add chain {ip} proxy pre {{ type nat hook prerouting priority -101; }}\n\
         add chain {ip} proxy post {{ type nat hook postrouting priority 99; }}\n\
         flush chain {ip} proxy pre\n\
         add rule {ip} proxy pre {ip} daddr {vip} tcp dport 80 dnat to {server}\n\
         add rule {ip} proxy pre tcp dport 30080 meta mark set 0x4000 dnat to {server}\n\
         flush chain {ip} proxy post\n\
         add rule {ip} proxy post ct status dnat meta mark 0x4000 masquerade\n\
         add rule {ip} proxy post ct status dnat {ip} saddr {0} {ip} daddr {0} masquerade\n",
        server.ip()
    );
    let said = shell(&node.netns, &format!("nft -f - <<'EOF'\n{rules}EOF"));
    assert_eq!(said, "");
}

#[test]
fn pods_are_not_tracked_and_all_that_needs_nat_still_works() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, &managed_by(true)));
    nodes.iter().for_each(|node| node.until_peers(1));
    assert!(nodes.iter().all(|node| node.status().conntrack_bypass));
    let outside = cluster.machine(100);
    for [near_ip, far_ip] in pod_addresses() {
        let (near, far) = (nodes[0].pod(near_ip), nodes[1].pod(far_ip));
        until(REPAIR, || exchange(&near, &far, far_ip));
        for _ in 0..20 {
            exchange(&near, &far, far_ip).unwrap();
            exchange(&far, &near, near_ip).unwrap();
        }
        assert_eq!(nodes.each_ref().map(tracked), [const { String::new() }; 2]);
        nodes.iter().for_each(|node| _ = node.run("ip link delete pod5"));
    }

    let outside_of_it = [
        ("10.244.1.6", "10.96.0.1", "172.30.0.1", "packet-clients4"),
        ("fd44:0:0:1::6", "fd96::1", "fd99::1", "packet-clients6"),
    ];
    for ([near_ip, far_ip], (local_ip, vip, node_ip, set)) in pod_addresses().into_iter().zip(outside_of_it) {
        let [local_ip, vip, node_ip] = [local_ip, vip, node_ip].map(|ip| ip.parse::<IpAddr>().unwrap());
        let (near, far, local) = (nodes[0].pod(near_ip), nodes[1].pod(far_ip), nodes[0].pod(local_ip));
        until(REPAIR * 2, || exchange(&near, &far, far_ip));
        let through = |client: &Netns, server: &Netns, server_ip: IpAddr, target: (IpAddr, u16)| {
            let listen = SocketAddr::new(server_ip, 8080);
            translate(&nodes[0], vip, listen);
            exchange_through(client, server, listen, Some(target.into()))
        };
        // NodePort through the VTEP's address, which lies inside the pod network.
        let own_vtep = if vip.is_ipv4() { vtep(1) } else { vtep_v6(1) };
        assert_eq!(through(&outside.netns, &far, far_ip, (node_ip, 30080)), Ok(own_vtep));
        // The second line: a pod's packets are translated here; to a pod elsewhere, to one here, to itself.
        assert_eq!(through(&near, &far, far_ip, (vip, 80)), Ok(near_ip));
        assert_eq!(through(&near, &local, local_ip, (vip, 80)), Ok(near_ip));
        assert!(through(&near, &near, near_ip, (vip, 80)).is_ok());
        assert!(nodes[0].run(&format!("nft list set inet weft-overlay {set}")).contains(&near_ip.to_string()));
        // And this very pod still reaches others directly.
        assert_eq!(exchange(&near, &far, far_ip), Ok(near_ip));
        assert_eq!(exchange(&far, &near, near_ip), Ok(far_ip));
        nodes.iter().for_each(|node| _ = node.run("ip link delete pod5"));
        nodes[0].run("ip link delete pod6");
    }
}

#[test]
fn connections_translated_before_the_bypass_came_survive_it() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    nodes[0].stop();
    nodes[0].run("nft delete table inet weft-overlay");
    let [near_ip, far_ip] = pod_addresses()[0];
    let (near, far) = (nodes[0].pod(near_ip), nodes[1].pod(far_ip));
    let listen = SocketAddr::new(far_ip, 8080);
    translate(&nodes[0], [10, 96, 0, 1].into(), listen);
    let listener = far.run(|| TcpListener::bind(listen)).unwrap().unwrap();
    let mut client = near.run(|| TcpStream::connect("10.96.0.1:80")).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();

    nodes[0].start(NETWORK);
    nodes[0].until_ready();
    assert!(nodes[0].run("nft list ruleset").contains("notrack"));
    // The server speaks first: its packet must find the entry made by a packet that was not seen.
    server.write_all(b"late").unwrap();
    let mut data = [0; 4];
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.read_exact(&mut data).unwrap();
    // A restart, and a change of the rules, keep the set.
    nodes[0].stop();
    nodes[0].start(r#"{"Network":"10.244.0.0/16","EnableNFTables":false}"#);
    nodes[0].until_ready();
    server.write_all(b"more").unwrap();
    client.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"more");
}

#[test]
fn the_bypass_gives_way_to_those_who_judge_by_conntracks_state() {
    let cluster = Cluster::new();
    for (number, rule) in [
        (1, "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        (
            2,
            "nft -f - <<'EOF'\ntable inet fw { chain f { type filter hook forward priority 0; ct state established accept; }; }\nEOF",
        ),
    ] {
        let mut node = cluster.machine(number);
        shell(&node.netns, rule);
        for (bypass, on) in [(ConntrackBypass::Auto, false), (ConntrackBypass::On, true), (ConntrackBypass::Off, false)]
        {
            let mut config = node.config(NETWORK);
            config.conntrack_bypass = bypass;
            node.try_start(config).unwrap();
            node.until_ready();
            assert_eq!(node.status().conntrack_bypass, on, "{rule} {bypass:?}");
            assert_eq!(node.run("nft list ruleset").contains("notrack"), on, "{rule} {bypass:?}");
            node.stop();
        }
    }
}
