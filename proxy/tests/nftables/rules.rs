//! Rules of kube-proxy.md that packets show, by number.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    EXTERNAL,
    node::{ALL, CLIENT, NODE_PORT, Node, ask, node_port, pick, pod, vip},
    node_with, plane,
    support::PATIENCE,
    web,
};
use weft_proxy::{
    model::{IpFamily, Protocol},
    nftables::{Nftables, PacketScope},
    plan::{Frontend, LocalTraffic, Outcome, PacketSettings},
};

/// With the client outside as local traffic, or the pods. (The pods share a namespace, so that one never sees the answer of
/// another that keeps its address.)
fn local(v4: &str, v6: &str) -> PacketSettings {
    let local_traffic = LocalTraffic::Cidrs { v4: Some(v4.parse().unwrap()), v6: Some(v6.parse().unwrap()) };
    PacketSettings { local_traffic, ..PacketSettings::default() }
}

#[test]
fn rules_8_1_to_8_4_masquerade_who_is_not_local_at_a_cluster_ip() {
    let none = PacketSettings::default();
    let of = |local_traffic| PacketSettings { local_traffic, ..none.clone() };
    let client_is_local = local("192.0.2.2/32", "2001:db8::2/128");
    let cases = [
        (none.clone(), true, "8.3"),
        (client_is_local.clone(), true, "8.1"),
        (of(LocalTraffic::Interface("client0".into())), true, "8.1"),
        (of(LocalTraffic::InterfacePrefix("cli".into())), true, "8.1"),
        (local("10.244.1.0/24", "fd44::/64"), false, "8.2"),
        (of(LocalTraffic::Interface("pods0".into())), false, "8.2"),
        (of(LocalTraffic::InterfacePrefix("pods".into())), false, "8.2"),
        (PacketSettings { masquerade_all: true, ..client_is_local }, false, "8.4"),
    ];
    for (settings, kept, rule) in cases {
        let mut node = Node::new(Nftables::new(PacketScope::All, settings.clone()));
        for family in [IpFamily::V4, IpFamily::V6] {
            let mut plan = web(Protocol::Udp, family, &[2]);
            plan.frontends = vec![Frontend::ClusterIp(vip(family))];
            node.put(&plan);
            let client = node.ask(Protocol::Udp, vip(family)).unwrap().source.to_string();
            assert_eq!(client == pick(family, CLIENT), kept, "{rule} {settings:?}");
            node.net
                .node
                .run(|| ask(Protocol::Udp, vip(family), PATIENCE))
                .unwrap()
                .unwrap_or_else(|error| panic!("the node itself: {error} {family} {settings:?}"));
        }
    }
}

#[test]
fn rules_3_4_to_3_6_and_8_6_policy_local_concerns_only_clients_outside() {
    let outside = local("10.244.1.0/24", "fd44::/64");
    let inside = local("192.0.2.2/32", "2001:db8::2/128");
    for (settings, client_pods) in [(outside, &[2][..]), (inside, &[3, 4])] {
        let mut node = Node::new(Nftables::new(EXTERNAL, settings));
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2]);
            plan.frontends.insert(0, Frontend::ExternalIp(vip(family)));
            plan.masquerade_external = false;
            plan.external_from_node = web(protocol, family, &[3, 4]).external;
            node.put(&plan);
            for to in [node_port(family), vip(family)] {
                for _ in 0..2 {
                    let answer = node.ask(protocol, to).unwrap();
                    assert!(client_pods.iter().any(|last| pod(family, *last) == answer.pod), "{protocol} {to}");
                    assert_eq!(answer.source.to_string(), pick(family, CLIENT), "{protocol}");
                }
                let mut pods =
                    [(); 2].map(|()| node.net.node.run(|| ask(protocol, to, PATIENCE)).unwrap().unwrap().pod);
                pods.sort_unstable();
                assert_eq!(pods, [pod(family, 3), pod(family, 4)], "the node itself {protocol} {to}");
            }
            // Endpoints elsewhere only: silence outside, the others as before.
            plan.external = Outcome::Drop;
            node.put(&plan);
            let short = Duration::from_millis(100);
            let patience = if client_pods == [3, 4] { PATIENCE } else { short };
            let answer = node.net.client.run(|| ask(protocol, node_port(family), patience)).unwrap();
            assert_eq!(answer.is_ok(), client_pods == [3, 4], "{protocol} {family}");
            node.net.node.run(|| ask(protocol, node_port(family), PATIENCE)).unwrap().unwrap();
        }
    }
}

#[test]
fn rules_9_6_to_9_8_source_ranges_are_for_everybody() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2]);
        plan.frontends.push(Frontend::LoadBalancer(vip(family)));
        let client = pick(family, ["192.0.2.2/32", "2001:db8::2/128"]);
        let others = pick(family, ["10.0.0.0/8", "fd00::/8"]);
        let wider = pick(family, ["192.0.2.0/24", "2001:db8::/64"]);
        let short = Duration::from_millis(100);
        for (ranges, allowed) in [(vec![others], false), (vec![client], true), (vec![others, wider, client], true)] {
            plan.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            plan.source_ranges.sort_unstable();
            node.put(&plan);
            let patience = |answers| if answers { PATIENCE } else { short };
            let asked = node.net.client.run(|| ask(protocol, vip(family), patience(allowed))).unwrap();
            assert_eq!(asked.is_ok(), allowed, "{protocol} {ranges:?} {asked:?}");
            node.ask(protocol, node_port(family)).expect("not at a NodePort");
            let node_is_in = ranges.contains(&wider);
            let host = node.net.node.run(|| ask(protocol, vip(family), patience(node_is_in))).unwrap();
            assert_eq!(host.is_ok(), node_is_in, "the node itself: {host:?}");
        }
        for (ranges, kind) in [(others, ErrorKind::TimedOut), (client, ErrorKind::ConnectionRefused)] {
            plan.external = Outcome::Reject;
            plan.source_ranges = vec![ranges.parse().unwrap()];
            node.put(&plan);
            let patience = if kind == ErrorKind::TimedOut { short } else { PATIENCE };
            let error = node.net.client.run(|| ask(protocol, vip(family), patience)).unwrap().unwrap_err();
            let timed_out = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
            assert_eq!(timed_out, kind == ErrorKind::TimedOut, "{protocol} {ranges} {error}");
        }
    }
}

#[test]
fn rule_9_10_other_ports_of_a_cluster_ip_are_refused() {
    for scope in [PacketScope::All, EXTERNAL] {
        let mut node = node_with(scope);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2]);
            plan.frontends = vec![Frontend::ClusterIp(vip(family))];
            node.put(&plan);
            let other = SocketAddr::new(vip(family).ip(), 81);
            let error = node.ask(protocol, other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{protocol} {family} {scope:?}");
        }
    }
}

#[test]
fn rule_6_6_node_ports_at_localhost() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut node = node_with(PacketScope::All);
        let localhost: SocketAddr = ([127, 0, 0, 1], NODE_PORT).into();
        for policy_local in [false, true] {
            let mut plan = web(protocol, IpFamily::V4, &[2, 3]);
            plan.masquerade_external = !policy_local;
            node.put(&plan);
            let answer = node.net.node.run(|| ask(protocol, localhost, PATIENCE)).unwrap().unwrap();
            assert_eq!(answer.source.to_string(), "10.244.1.1", "{protocol:?}, policy Local: {policy_local}");
        }
        // Beside a socket plane the parameter stays as it is.
        let route_localnet = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap();
        assert_eq!(node.net.node.run(route_localnet).unwrap(), "1\n");
        assert_eq!(node_with(EXTERNAL).net.node.run(route_localnet).unwrap(), "0\n");
    }
}

#[test]
fn rule_6_6_a_neighbour_does_not_reach_localhost() {
    for localhost_node_ports in [false, true] {
        let settings = PacketSettings { localhost_node_ports, ..PacketSettings::default() };
        let mut node = Node::new(Nftables::new(PacketScope::All, settings));
        node.put(&web(Protocol::Udp, IpFamily::V4, &[2]));
        // As a neighbour's socket would: with a route for 127.0.0.2 and route_localnet at its end.
        let shell = "ip route add 127.0.0.2 via 192.0.2.1; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; \
                     ip route del local 127.0.0.0/8 dev lo table local";
        let done = node.net.client.run(|| std::process::Command::new("sh").args(["-c", shell]).status()).unwrap();
        done.unwrap();
        let server = node.net.node.run(|| UdpSocket::bind("127.0.0.2:53")).unwrap().unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let send = |port| {
            let socket = UdpSocket::bind("192.0.2.2:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket.send_to(b"?", ("127.0.0.2", port)).unwrap();
            socket.recv_from(&mut [0; 64]).is_ok()
        };
        assert!(!node.net.client.run(|| send(NODE_PORT)).unwrap(), "the NodePort is not for it there");
        assert!(!node.net.client.run(|| send(53)).unwrap());
        assert!(server.recv_from(&mut [0; 64]).is_err(), "{localhost_node_ports}");
    }
}

#[test]
fn rules_7_1_to_7_7_a_client_stays_with_its_endpoint() {
    let mut node = node_with(PacketScope::All);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2, 3, 4]);
        plan.frontends.insert(0, Frontend::ClusterIp(vip(family)));
        plan.affinity = Some(Duration::from_secs(100));
        node.put(&plan);
        let ask =
            |node: &Node<Nftables>| [vip(family), node_port(family)].map(|to| node.ask(protocol, to).unwrap().pod);
        let first = ask(&node)[0];
        for _ in 0..3 {
            assert_eq!(ask(&node), [first; 2], "7.1: all frontends share it, {protocol} {family}");
        }
        // Another client is the next in turn, and stays there.
        let others = [(); 2].map(|()| node.net.node.run(|| ask_other(protocol, vip(family))).unwrap());
        assert_ne!(others[0], first);
        assert_eq!(others[0], others[1]);
        assert_eq!(ask(&node), [first; 2]);
        // An endpoint that is in one list only counts for that one (7.6); the record then names the new one.
        let last = |pod: IpAddr| pod.to_string().chars().last().unwrap().to_digit(10).unwrap() as u8;
        let rest: Vec<u8> = [2, 3, 4].into_iter().filter(|n| *n != last(first)).collect();
        plan.internal = web(protocol, family, &rest).internal;
        node.put(&plan);
        assert_eq!(node.ask(protocol, node_port(family)).unwrap().pod, first, "{protocol} {family}");
        let next = node.ask(protocol, vip(family)).unwrap().pod;
        assert_ne!(next, first, "7.5");
        assert_eq!(ask(&node), [next; 2]);
        // Records outlive the agent (7.7), and other changes of the endpoints.
        plan.external = web(protocol, family, &[last(next)]).external;
        plan.internal = plan.external.clone();
        node.put(&plan);
        plan.internal = web(protocol, family, &[2, 3, 4]).internal;
        plan.external = plan.internal.clone();
        node.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        node.restart(plane(PacketScope::All));
        assert_eq!(ask(&node), [next; 2], "7.7 {protocol} {family}");
        assert!(node.connections(&plan.key).iter().sum::<u64>() >= 2);
    }
}

fn ask_other(protocol: Protocol, to: SocketAddr) -> IpAddr {
    ask(protocol, to, PATIENCE).unwrap().pod
}

#[test]
fn rule_7_2_the_timeout_slides_and_ends() {
    let mut node = node_with(PacketScope::All);
    let (protocol, family) = (Protocol::Tcp, IpFamily::V4);
    let mut plan = web(protocol, family, &[2, 3]);
    plan.frontends = vec![Frontend::ClusterIp(vip(family))];
    plan.affinity = Some(Duration::from_secs(1));
    node.put(&plan);
    let ask = || node.ask(protocol, vip(family)).unwrap().pod;
    let first = ask();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        assert_eq!(ask(), first, "each connection renews it");
    }
    // It ends when nothing renews it: another endpoint is next in turn.
    let deadline = Instant::now() + PATIENCE;
    while !node.net.nft("list map inet weft-proxy affinity4").lines().all(|line| !line.contains("expires")) {
        assert!(Instant::now() < deadline, "the record stays");
        thread::yield_now();
    }
    assert_ne!(ask(), first);
}
