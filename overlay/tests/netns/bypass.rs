//! The conntrack bypass: what is not tracked any more, and that all that needs NAT still works.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use weft_netlink::Netns;
use weft_overlay::ConntrackBypass;

use crate::{
    REPAIR,
    cluster::{Cluster, NETWORK, Node, shell, until},
    exchange::{exchange, exchange_through},
    packet_rules::{managed_by, pod_addresses},
    vtep, vtep_v6,
};

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

/// Somebody who judges forwarded packets by conntrack's state, by iptables and by nft.
const JUDGES: [&str; 2] = [
    "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "nft -f - <<'EOF'\ntable inet fw { chain f { type filter hook forward priority 0; ct state established accept; }; }\nEOF",
];

#[test]
fn the_bypass_gives_way_to_those_who_judge_by_conntracks_state() {
    let cluster = Cluster::new();
    for (number, rule) in [1, 2].into_iter().zip(JUDGES) {
        let mut node = cluster.machine(number);
        assert_eq!(shell(&node.netns, rule), "");
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

#[test]
fn the_bypass_gives_way_also_to_those_who_come_later() {
    // The usual order: pods of policy engines need a network to start.
    let cluster = Cluster::new();
    for (number, rule) in [1, 2].into_iter().zip(JUDGES) {
        let node = cluster.node(number, NETWORK);
        assert!(node.status().conntrack_bypass);
        assert_eq!(shell(&node.netns, rule), "");
        until(REPAIR, || match node.run("nft list ruleset") {
            rules if rules.contains("notrack") => Err(rules),
            _ if node.status().conntrack_bypass => Err("the status does not say so".into()),
            _ => Ok(()),
        });
    }
}
