//! What flannel's users suffer from (reference flannel-defects.md): one test for each item that is about the node's own state.
//!
//! `docs/flannel-defects.md` says where the others are, or why they do not apply.

use std::{
    fs,
    time::{Duration, Instant},
};

use weft_overlay::PeerState;

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, NETWORK, Node, shell, until},
    exchange::exchange,
    vtep, vtep_v6,
};

fn until_contains(node: &Node, command: &str, text: &str) {
    until(REPAIR, || match shell(&node.netns, command) {
        shown if shown.contains(text) => Ok(()),
        shown => Err(format!("{command}: no {text:?} in {shown}")),
    });
}

/// The lease of a node as it is published, changed.
fn rewrite(cluster: &Cluster, key: &str, change: impl Fn(String) -> String) {
    let path = cluster.leases().join("subnets").join(key);
    let text = fs::read_to_string(&path).unwrap();
    let new = path.with_file_name(".new");
    fs::write(&new, change(text)).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn defect_a1_deleted_entries_come_back_and_other_peers_do_not_notice() {
    let cluster = Cluster::new();
    let nodes = [1, 2, 3].map(|number| cluster.node(number, DUAL_STACK));
    nodes.iter().for_each(|node| node.until_peers(2));
    let [first, second, third] = &nodes;
    let mac = second.status().ipv4.vtep_mac.unwrap();
    let mac_v6 = second.status().ipv6.unwrap().vtep_mac.unwrap();
    for sabotage in [
        "ip route delete 10.244.2.0/24".to_owned(),
        "ip neigh delete 10.244.2.0 dev flannel.1".into(),
        format!("bridge fdb delete {mac} dev flannel.1 dst 172.30.0.2 self"),
        "ip -6 route delete fd44:0:0:2::/64".into(),
        "ip -6 neigh delete fd44:0:0:2:: dev flannel-v6.1".into(),
        format!("bridge fdb delete {mac_v6} dev flannel-v6.1 dst fd99::2 self"),
    ] {
        let before = first.status().repairs;
        first.run(&sabotage);
        until(REPAIR, || {
            exchange(&first.netns, &third.netns, vtep(3)).unwrap_or_else(|error| panic!("{sabotage}: {error}"));
            let repaired = first.status().repairs > before;
            if repaired { Ok(()) } else { Err(sabotage.clone()) }
        });
        exchange(&first.netns, &second.netns, vtep(2)).unwrap();
        exchange(&first.netns, &second.netns, vtep_v6(2)).unwrap();
    }
    // What flaps or flushes an interface takes many at once.
    first.run("ip route flush dev flannel.1");
    first.run("ip neigh flush dev flannel.1 nud permanent");
    until(REPAIR, || exchange(&first.netns, &second.netns, vtep(2)));
}

#[test]
fn defect_a2_a_lost_device_comes_back_with_its_mac_and_all_entries() {
    let cluster = Cluster::new();
    let nodes = [1, 2, 3].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(2));
    let mac = nodes[0].status().ipv4.vtep_mac.unwrap();
    nodes[0].run("ip link delete flannel.1");
    until(REPAIR, || exchange(&nodes[1].netns, &nodes[0].netns, vtep(1)));
    until(REPAIR, || exchange(&nodes[0].netns, &nodes[2].netns, vtep(3)));
    assert!(nodes[0].run("ip link show flannel.1").contains(&mac), "peers need not learn anything");
}

#[test]
fn defect_a3_the_ipv6_device_is_watched_also_without_ipv4() {
    let v6 = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd44::/48"}"#;
    for conf in [DUAL_STACK, v6] {
        let cluster = Cluster::new();
        let nodes = [1, 2].map(|number| cluster.node(number, conf));
        until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, vtep_v6(2)));
        nodes[0].run("ip link delete flannel-v6.1");
        until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, vtep_v6(2)));
        exchange(&nodes[1].netns, &nodes[0].netns, vtep_v6(1)).unwrap();
    }
}

#[test]
fn defect_a4_entries_of_nodes_that_left_meanwhile_are_removed_at_start() {
    let cluster = Cluster::new();
    let mut node = cluster.node(1, DUAL_STACK);
    node.stop();
    // Those of a node nobody knows, as an agent that was not running at the right moment leaves them.
    for command in [
        "ip neigh replace 10.244.9.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent",
        "bridge fdb replace 02:00:00:00:00:09 dev flannel.1 dst 172.30.0.9 self permanent",
        "ip route replace 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink",
        "ip -6 neigh replace fd44:0:0:9:: lladdr 02:00:00:00:00:0a dev flannel-v6.1 nud permanent",
        "bridge fdb replace 02:00:00:00:00:0a dev flannel-v6.1 dst fd99::9 self permanent",
        "ip -6 route replace fd44:0:0:9::/64 via fd44:0:0:9:: dev flannel-v6.1 onlink",
    ] {
        node.run(command);
    }
    node.start(DUAL_STACK);
    node.until_ready();
    let left = shell(
        &node.netns,
        "ip route; ip -6 route; ip neigh show nud permanent; ip -6 neigh show nud permanent; bridge fdb show dev flannel.1; \
         bridge fdb show dev flannel-v6.1",
    );
    assert!(
        !left.contains("10.244.9.") && !left.contains("fd44:0:0:9:") && !left.contains("02:00:00:00:00:0"),
        "{left}"
    );
}

#[test]
fn defect_a5_a_removal_whose_entries_are_gone_delays_nobody() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, DUAL_STACK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let mut second = nodes.into_iter();
    let (first, mut second) = (second.next().unwrap(), second.next().unwrap());
    second.stop();
    // In one go, so that most of it happens before the agent can repair anything.
    shell(
        &first.netns,
        "ip route flush dev flannel.1; ip neigh flush dev flannel.1 nud permanent; ip -6 route flush dev flannel-v6.1",
    );
    second.release();
    let start = Instant::now();
    let third = cluster.node(3, DUAL_STACK);
    // flannel needs 153 s here.
    until(REPAIR, || exchange(&first.netns, &third.netns, format!("10.244.{}.0", third.subnet()).parse().unwrap()));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn defect_a7_the_backend_is_changed_node_by_node_and_nothing_of_the_old_one_stays() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    for (backend, route) in [
        (r#"{"Type":"host-gw"}"#, "10.244.2.0/24 via 172.30.0.2 dev eth0"),
        (r#"{"Type":"vxlan"}"#, "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"),
    ] {
        for node in &mut nodes {
            node.stop();
            node.start(&format!(r#"{{"Network":"10.244.0.0/16","Backend":{backend}}}"#));
            node.until_ready();
        }
        until_contains(&nodes[0], "ip route show", route);
        let links = nodes[0].run("ip -brief link show type vxlan");
        assert_eq!(links.contains("flannel"), backend.contains("vxlan"), "{links}");
    }
    // While the two differ, each says so.
    nodes[1].stop();
    nodes[1].start(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#);
    until(REPAIR, || match nodes[0].status().peers.first() {
        Some(peer) if peer.error.as_deref() == Some(r#"uses backend "host-gw", this node "vxlan""#) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn defect_b1_a_change_of_one_family_counts_although_the_other_stays() {
    let cluster = Cluster::new();
    let first = cluster.node(1, DUAL_STACK);
    let mut second = cluster.node(2, DUAL_STACK);
    // Without its agent nobody writes the lease back.
    second.stop();
    let key = "10.244.2.0-24&fd44:0:0:2::-64";
    rewrite(&cluster, key, |text| text.replace("172.30.0.2\"", "172.30.0.92\""));
    until_contains(&first, "bridge fdb show dev flannel.1", "dst 172.30.0.92 self");
    rewrite(&cluster, key, |text| text.replace("fd99::2\"", "fd99::92\""));
    until_contains(&first, "bridge fdb show dev flannel-v6.1", "dst fd99::92 self");
    let fdb = first.run("bridge fdb show dev flannel.1") + &first.run("bridge fdb show dev flannel-v6.1");
    assert_eq!(fdb.lines().count(), 2, "no old entry is left: {fdb}");
}

#[test]
fn defect_b4_ipv6_is_switched_on_while_others_have_ipv4_leases() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes[0].stop();
    nodes[0].start(DUAL_STACK);
    nodes[0].until_ready();
    until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, vtep(2)));
    assert_eq!(cluster.lease_files(), ["10.244.1.0-24&fd44:0:0:1::-64", "10.244.2.0-24"], "the IPv4 subnet is kept");
}

#[test]
fn defect_b5_families_may_use_different_interfaces() {
    let cluster = Cluster::new();
    let second = cluster.node(2, DUAL_STACK);
    let mut first = cluster.machine(1);
    // IPv6 leaves by an interface of its own.
    for command in [
        "ip link add link eth0 name eth6 type macvlan mode bridge",
        "ip address flush dev eth0 scope global",
        "ip address add 172.30.0.1/24 dev eth0",
        "ip route replace default via 172.30.0.254",
        "ip link set eth6 up",
        "ip address add fd99::61/64 dev eth6 nodad",
        "ip -6 route replace default via fd99::fe dev eth6",
    ] {
        first.run(command);
    }
    shell(&first.netns, "ip -6 address flush dev eth0 scope global; ip -6 route del default dev eth0");
    first.start(DUAL_STACK);
    first.until_ready();
    let status = first.status();
    assert_eq!(status.ipv4.interface.as_deref(), Some("eth0"));
    assert_eq!(status.ipv6.unwrap().interface.as_deref(), Some("eth6"));
    until(Duration::from_secs(3), || exchange(&second.netns, &first.netns, vtep(first.subnet())));
    until(Duration::from_secs(3), || exchange(&second.netns, &first.netns, vtep_v6(first.subnet().into())));
}

#[test]
fn defect_c6_a_storm_of_changes_ends_in_the_last_state() {
    let cluster = Cluster::new();
    let first = cluster.node(1, NETWORK);
    let directory = cluster.leases().join("subnets");
    let lease = |n: u32, host: u32| {
        format!(
            r#"{{"PublicIP":"172.30.9.{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:09:{n:02x}"}}}}"#
        )
    };
    for round in 1..=20 {
        for n in 10..60 {
            let path = directory.join(format!("10.244.{n}.0-24"));
            if (n + round) % 7 == 0 {
                let _ = fs::remove_file(path);
            } else {
                fs::write(directory.join(".storm"), lease(n, round)).unwrap();
                fs::rename(directory.join(".storm"), path).unwrap();
            }
        }
    }
    let expected = cluster.lease_files().len() - 1;
    until(Duration::from_secs(3), || {
        let fdb = first.run("bridge fdb show dev flannel.1");
        let last = fdb.lines().filter(|line| line.contains("dst 172.30.9.20 ")).count();
        if last == expected - 7 || fdb.lines().count() == expected && last > 0 { Ok(()) } else { Err(fdb) }
    });
    until_routes(&first, expected);
}

fn until_routes(node: &Node, expected: usize) {
    until(Duration::from_secs(3), || {
        let routes = node.run("ip route show dev flannel.1");
        if routes.lines().count() == expected { Ok(()) } else { Err(routes) }
    });
}

#[test]
fn defect_d2_status_says_what_is_broken() {
    let cluster = Cluster::new();
    let first = cluster.node(1, NETWORK);
    let _second = cluster.node(2, NETWORK);
    first.until_peers(1);
    assert!(first.status().ready && first.status().peers[0].state == PeerState::Up);
    // VNI and port are taken by a device of another name: ours cannot be made again.
    first.run("ip link set flannel.1 name thief");
    until(Duration::from_secs(3), || match first.status() {
        status if !status.ready && status.error.is_some() => Ok(()),
        status => Err(format!("{status:?}")),
    });
    first.run("ip link delete thief");
    until(REPAIR, || match first.status() {
        status if status.ready && status.error.is_none() => Ok(()),
        status => Err(format!("{status:?}")),
    });
}

#[test]
fn defect_d5_a_public_address_on_no_interface_is_published_with_iface() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    let mut config = node.config(NETWORK);
    // A 1:1 NAT: flannel ends with an error unless an interface is named.
    config.interface.interfaces = vec!["eth0".into()];
    config.interface.public_ip = Some([203, 0, 113, 9].into());
    node.try_start(config).unwrap();
    node.until_ready();
    let lease = fs::read_to_string(cluster.leases().join("subnets/10.244.1.0-24")).unwrap();
    assert!(lease.starts_with(r#"{"PublicIP":"203.0.113.9""#), "{lease}");
    assert!(node.run("ip -details link show flannel.1").contains("local 172.30.0.1 "));
}
