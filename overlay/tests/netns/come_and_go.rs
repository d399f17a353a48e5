//! Nodes are added, removed, re-created and renumbered, and move to other interfaces and addresses, by every backend.

use std::time::Duration;

use crate::{
    REPAIR,
    backends::{DIRECT, FIRST, HOST_GW, VXLAN, conf, pod_address},
    cluster::{Cluster, Node, shell, until},
    exchange::exchange,
};

/// Added, removed, re-created, renumbered; and gone while this node's agent was not running.
fn lifecycle(backend: &str) {
    let cluster = Cluster::new();
    let conf = conf(&[4, 6], backend);
    let mut first = cluster.node(1, &conf);
    let reaches = |first: &Node, other: &Node, number: u8| {
        for family in [4, 6] {
            let address = pod_address(family, number);
            let pod = other.pod(address);
            until(FIRST, || exchange(&first.netns, &pod, address));
            other.run("ip link delete pod5");
        }
    };
    let is_gone = |first: &Node, subnet: u8| {
        until(REPAIR, || {
            let left = shell(
                &first.netns,
                &format!(
                    "ip route show; ip -6 route show; ip neigh show nud permanent; ip -6 neigh show nud permanent; \
                     bridge fdb show dev flannel.1 2>/dev/null | grep 172.30.0.{subnet}"
                ),
            );
            let found = [format!("10.244.{subnet}."), format!("fd44:0:0:{subnet}:"), format!("172.30.0.{subnet} self")]
                .into_iter()
                .find(|text| left.contains(text.as_str()));
            found.map_or(Ok(()), |found| Err(format!("{found} in {left}")))
        });
    };
    let mut second = cluster.node(2, &conf);
    let keeper = cluster.node(3, &conf);
    reaches(&first, &second, 2);
    // Removed, its machine lost.
    second.stop();
    second.release();
    is_gone(&first, 2);
    drop(second);
    // Another machine of the same name: another MAC, the same subnet.
    let mut second = cluster.node(2, &conf);
    // Of the underlay, which is not ours: a real machine announces itself when its network comes up.
    for family in [4, 6] {
        [&first, &keeper].iter().for_each(|node| _ = node.run(&format!("ip -{family} neigh flush dev eth0")));
    }
    reaches(&first, &second, 2);
    // Renumbered.
    for command in [
        "ip address add 172.30.0.222/24 dev eth0",
        "ip address delete 172.30.0.2/24 dev eth0",
        "ip address add 172.30.0.222/24 dev eth0",
        "ip address add fd99::222/64 dev eth0 nodad",
        "ip address delete fd99::2/64 dev eth0",
        "ip route replace default via 172.30.0.254",
        "ip route replace default via fd99::fe",
    ] {
        shell(&second.netns, command);
    }
    until(Duration::from_secs(2), || match first.status().peers.iter().find(|peer| peer.subnet == "10.244.2.0/24") {
        Some(peer) if peer.public_ip.as_deref() == Some("172.30.0.222") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    reaches(&first, &second, 2);
    // Gone while nobody looked.
    first.stop();
    second.stop();
    second.release();
    first.start(&conf);
    first.until_ready();
    is_gone(&first, 2);
    reaches(&first, &keeper, 3);
    assert_eq!(first.status().repairs, 0);
}

#[test]
fn nodes_come_and_go_vxlan() {
    lifecycle(VXLAN);
}

#[test]
fn nodes_come_and_go_direct_routing() {
    lifecycle(DIRECT);
}

#[test]
fn nodes_come_and_go_host_gw() {
    lifecycle(HOST_GW);
}

/// The MTU of its interface changes, and then the interface is replaced by another with another name and other addresses.
fn moves(families: &[u8], backend: &str) {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, &conf(families, backend)));
    let overhead = match (backend == VXLAN, families.contains(&6)) {
        (false, _) => 0,
        (true, false) => 50,
        (true, true) => 70,
    };
    nodes[0].run("ip link set eth0 mtu 1400");
    until(REPAIR, || match std::fs::read_to_string(&nodes[0].subnet_file).unwrap() {
        text if text.contains(&format!("FLANNEL_MTU={}\n", 1400 - overhead)) => Ok(()),
        text => Err(text),
    });
    nodes[0].run("ip link set eth0 mtu 1500");
    for command in [
        "ip link set eth0 down",
        "ip link set eth0 name uplink0",
        "ip address flush dev uplink0",
        "ip link set uplink0 up",
        "ip address add 172.30.0.77/24 dev uplink0",
        "ip route replace default via 172.30.0.254",
        "ip address add fd99::77/64 dev uplink0 nodad",
        "ip route replace default via fd99::fe",
    ] {
        nodes[0].run(command);
    }
    for family in families {
        for (to, from) in [(0, 1), (1, 0)] {
            let address = pod_address(*family, nodes[to].subnet());
            let pod = nodes[to].pod(address);
            until(Duration::from_secs(5), || {
                exchange(&nodes[from].netns, &pod, address)
                    .map_err(|error| format!("{backend} IPv{family}: {error} {:?}", nodes[0].status()))
            });
            nodes[to].run("ip link delete pod5");
        }
    }
    let status = nodes[0].status();
    let v4 = (status.ipv4.interface.as_deref(), status.ipv4.public_ip.as_deref());
    let v6 = status.ipv6.as_ref().map(|v6| (v6.interface.as_deref(), v6.public_ip.as_deref()));
    assert!(!families.contains(&4) || v4 == (Some("uplink0"), Some("172.30.0.77")), "{v4:?}");
    assert!(!families.contains(&6) || v6 == Some((Some("uplink0"), Some("fd99::77"))), "{v6:?}");
}

#[test]
fn interface_address_and_mtu_are_followed_at_run_time() {
    for backend in [VXLAN, HOST_GW] {
        moves(&[4], backend);
    }
}

#[test]
fn interface_address_and_mtu_are_followed_with_ipv6_too() {
    for backend in [VXLAN, HOST_GW] {
        moves(&[6], backend);
        moves(&[4, 6], backend);
    }
}
