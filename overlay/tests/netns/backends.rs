//! Backends, families and networks, in all combinations that differ: what passes, how, and at which size.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use weft_netlink::Netns;
use weft_overlay::{ChecksumOffload, PeerState, StartError};

use crate::{
    REPAIR,
    cluster::{Cluster, Node, shell, until},
    exchange::exchange,
};

pub(crate) const VXLAN: &str = r#"{"Type":"vxlan"}"#;
pub(crate) const DIRECT: &str = r#"{"Type":"vxlan","DirectRouting":true}"#;
pub(crate) const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

/// How long a first packet may take: the underlay's own resolution of addresses has second-long pauses when one is lost.
pub(crate) const FIRST: Duration = Duration::from_secs(4);

/// Configuration with both families, or with one.
pub(crate) fn conf(families: &[u8], backend: &str) -> String {
    format!(
        r#"{{"EnableIPv4":{},"Network":"10.244.0.0/16","EnableIPv6":{},"IPv6Network":"fd44::/48","Backend":{backend}}}"#,
        families.contains(&4),
        families.contains(&6)
    )
}

pub(crate) fn pod_address(family: u8, subnet: u8) -> IpAddr {
    match family {
        4 => [10, 244, subnet, 5].into(),
        _ => [0xfd44, 0, 0, u16::from(subnet), 0, 0, 0, 5].into(),
    }
}

/// Datagrams this namespace had to cut.
fn fragments(netns: &Netns) -> u64 {
    shell(netns, "nstat -asz IpFragCreates Ip6FragCreates IpFragFails Ip6FragFails")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

/// One datagram that fills a packet; UDP sets DF, so nobody on the way may cut the inner packet.
fn full_size(from: &Netns, to: &Netns, address: IpAddr, mtu: u32) -> Result<(), String> {
    let headers = if address.is_ipv4() { 28 } else { 48 };
    let payload = vec![9; mtu as usize - headers];
    let bind = |address: IpAddr| move || UdpSocket::bind((address, 0));
    let server = to.run(bind(address)).unwrap().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
    let client = from.run(bind(any.parse().unwrap())).unwrap().unwrap();
    client.send_to(&payload, server.local_addr().unwrap()).map_err(|error| error.to_string())?;
    let mut data = vec![0; 2000];
    match server.recv(&mut data) {
        Ok(length) if length == payload.len() => Ok(()),
        other => Err(format!("{} bytes to {address}: {other:?}", payload.len())),
    }
}

/// How a node sends to the pods of another.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Tunnel,
    Direct,
    Nothing,
}

fn way(node: &Node, family: u8, subnet: u8) -> Way {
    let prefix = match family {
        4 => format!("10.244.{subnet}.0/24"),
        _ => format!("fd44:0:0:{subnet}::/64"),
    };
    match node.run(&format!("ip -{family} route show {prefix}")) {
        route if route.contains("dev flannel") && route.contains("onlink") => Way::Tunnel,
        route if route.contains("dev eth0") && !route.contains("onlink") => Way::Direct,
        route if route.is_empty() => Way::Nothing,
        route => panic!("{route}"),
    }
}

/// Nodes 1 and 2 are neighbours, node 11 is behind a router.
fn check(families: &[u8], backend: &str, mtu: u32, neighbour: Way, routed: Way) {
    let cluster = Cluster::routed();
    let nodes = [1, 2, 11].map(|number| cluster.node(number, &conf(families, backend)));
    let outside = cluster.machine(100);
    assert!(nodes.iter().all(|node| node.status().mtu == Some(mtu)), "{:?}", nodes[0].status());
    for family in families {
        let addresses = nodes.each_ref().map(|node| pod_address(*family, node.subnet()));
        let pods = [0, 1, 2].map(|n| nodes[n].pod(addresses[n]));
        for (from, to, expected) in
            [(0, 1, neighbour), (1, 0, neighbour), (0, 2, routed), (2, 0, routed), (1, 2, routed)]
        {
            let what = format!("IPv{family} {from} -> {to}");
            until(REPAIR, || match way(&nodes[from], *family, nodes[to].subnet()) {
                now if now == expected => Ok(()),
                now => Err(format!("{what}: {now:?}")),
            });
            if expected == Way::Nothing {
                continue;
            }
            let before = nodes.each_ref().map(|node| fragments(&node.netns));
            until(FIRST, || exchange(&pods[from], &pods[to], addresses[to]));
            assert_eq!(exchange(&pods[from], &pods[to], addresses[to]), Ok(addresses[from]), "{what}");
            full_size(&pods[from], &pods[to], addresses[to], mtu).unwrap();
            exchange(&nodes[from].netns, &pods[to], addresses[to]).unwrap();
            assert_eq!(nodes.each_ref().map(|node| fragments(&node.netns)), before, "{what}: outer packets are whole");
        }
        let (outside_ip, node_ip): (IpAddr, IpAddr) = match family {
            4 => ([172, 30, 0, 100].into(), [172, 30, 0, 1].into()),
            _ => ("fd99::100".parse().unwrap(), "fd99::1".parse().unwrap()),
        };
        assert_eq!(exchange(&pods[0], &outside.netns, outside_ip), Ok(node_ip), "pod to outside");
        outside.run(&format!("ip route replace {} via {node_ip}", addresses[0]));
        assert_eq!(exchange(&outside.netns, &pods[0], addresses[0]), Ok(outside_ip), "outside to pod");
        nodes.iter().for_each(|node| _ = node.run("ip link delete pod5"));
    }
    for peer in nodes[0].status().peers {
        let behind_router = peer.public_ip.unwrap().contains("1.11") || peer.subnet.contains(":3:");
        if routed == Way::Nothing && peer.state == PeerState::Failed {
            assert!(peer.error.unwrap().contains("not on a directly connected network"));
        } else {
            assert_eq!((peer.state, peer.error), (PeerState::Up, None), "{behind_router}");
        }
    }
}

#[test]
fn matrix_vxlan_v4() {
    check(&[4], VXLAN, 1450, Way::Tunnel, Way::Tunnel);
}

#[test]
fn defect_b2_matrix_vxlan_v6_has_room_for_the_longer_outer_header() {
    check(&[6], VXLAN, 1430, Way::Tunnel, Way::Tunnel);
}

#[test]
fn matrix_vxlan_dual_stack() {
    check(&[4, 6], VXLAN, 1430, Way::Tunnel, Way::Tunnel);
}

#[test]
fn matrix_direct_routing_with_some_nodes_behind_a_router() {
    check(&[4, 6], DIRECT, 1430, Way::Direct, Way::Tunnel);
}

#[test]
fn matrix_host_gw_v4() {
    check(&[4], HOST_GW, 1500, Way::Direct, Way::Nothing);
}

#[test]
fn matrix_host_gw_dual_stack() {
    check(&[4, 6], HOST_GW, 1500, Way::Direct, Way::Nothing);
}

#[test]
fn matrix_direct_routing_v6() {
    check(&[6], DIRECT, 1430, Way::Direct, Way::Tunnel);
}

#[test]
fn matrix_host_gw_v6() {
    check(&[6], HOST_GW, 1500, Way::Direct, Way::Nothing);
}

#[test]
fn plain_routes_are_repaired_too() {
    for backend in [DIRECT, HOST_GW] {
        let cluster = Cluster::new();
        let nodes = [1, 2].map(|number| cluster.node(number, &conf(&[4, 6], backend)));
        let right = |text: String| text.contains("10.244.2.0/24 via 172.30.0.2 dev eth0");
        let shows = |sabotage: &str| {
            until(REPAIR, || match nodes[0].run("ip route show") {
                routes if right(routes.clone()) => Ok(()),
                routes => Err(format!("{backend} after {sabotage}: {routes}")),
            });
        };
        shows("start");
        for sabotage in [
            "ip route delete 10.244.2.0/24",
            "ip route replace 10.244.2.0/24 via 172.30.0.9",
            "ip route replace blackhole 10.244.2.0/24",
            "ip -6 route delete fd44:0:0:2::/64",
            // Takes all routes through it along, without a word.
            "sh -c 'ip link set eth0 down; ip link set eth0 up'",
        ] {
            shell(&nodes[0].netns, sabotage);
            shows(sabotage);
        }
        let address = pod_address(4, 2);
        let pod = nodes[1].pod(address);
        until(REPAIR, || exchange(&nodes[0].netns, &pod, address));
    }
}

#[test]
fn a_peer_that_is_no_longer_directly_connected_moves_into_the_tunnel_and_back() {
    let cluster = Cluster::routed();
    let nodes = [1, 2].map(|number| cluster.node(number, &conf(&[4], DIRECT)));
    let is = |expected: Way| {
        until(REPAIR, || match way(&nodes[0], 4, 2) {
            now if now == expected => Ok(()),
            now => Err(format!("{now:?}")),
        });
    };
    is(Way::Direct);
    nodes[0].run("ip route add 172.30.0.2/32 via 172.30.0.254");
    is(Way::Tunnel);
    nodes[0].run("ip route delete 172.30.0.2/32");
    is(Way::Direct);
}

#[test]
fn checksum_offload_is_switched_and_kept() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2].map(|number| cluster.machine(number));
    for (offload, shown) in [(ChecksumOffload::Off, "off"), (ChecksumOffload::On, "on")] {
        for node in &mut nodes {
            let mut config = node.config(&conf(&[4, 6], VXLAN));
            config.checksum_offload = offload;
            node.try_start(config).unwrap();
            node.until_ready();
        }
        let is_so = || {
            until(REPAIR, || {
                let features =
                    ["flannel.1", "flannel-v6.1"].map(|device| nodes[0].run(&format!("ethtool -k {device}")));
                let right = |text: &String| text.contains(&format!("tx-checksum-ip-generic: {shown}\n"));
                if features.iter().all(right) { Ok(()) } else { Err(format!("{features:?}")) }
            });
        };
        is_so();
        let other = if offload == ChecksumOffload::Off { "on" } else { "off" };
        nodes[0].run(&format!("ethtool -K flannel.1 tx-checksum-ip-generic {other}"));
        is_so();
        nodes[0].run("ip link delete flannel.1");
        until(REPAIR, || nodes[0].run("ip -brief link").contains("flannel.1").then_some(()).ok_or("no device".into()));
        is_so();
        let (address, pod) = (pod_address(4, 2), nodes[1].pod(pod_address(4, 2)));
        until(FIRST, || exchange(&nodes[0].netns, &pod, address));
        nodes[1].run("ip link delete pod5");
        nodes.iter_mut().for_each(Node::stop);
    }
}

#[test]
fn host_gw_behind_a_nat_is_refused() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    let mut config = node.config(&conf(&[4], HOST_GW));
    config.interface.interfaces = vec!["eth0".into()];
    config.interface.public_ip = Some([203, 0, 113, 7].into());
    let error = node.try_start(config).unwrap_err();
    assert!(matches!(error, StartError::BehindNat { .. }), "{error}");
    assert!(error.to_string().contains("203.0.113.7, but eth0 has 172.30.0.1"), "{error}");
}
