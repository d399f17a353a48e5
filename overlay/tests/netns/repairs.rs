//! What somebody else changes is put right, and what is not ours is left alone.

use weft_overlay::ObjectKind;

use crate::{
    REPAIR,
    cluster::{Cluster, NETWORK, until},
    exchange::exchange,
    until_shows, vtep,
};

#[test]
fn whatever_is_deleted_is_repaired() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let [first, second] = &nodes;
    let mac = second.status().ipv4.vtep_mac.unwrap();

    let route = "10.244.2.0/24 via 10.244.2.0 onlink";
    let neighbour = &format!("10.244.2.0 lladdr {mac} PERMANENT");
    let fdb = &format!("{mac} dst 172.30.0.2 self permanent");
    let cases = [
        ("ip route delete 10.244.2.0/24", "ip route show dev flannel.1", route),
        ("ip route replace 10.244.2.0/24 via 172.30.0.9", "ip route show dev flannel.1", route),
        ("ip route delete unreachable 10.244.1.0/24 metric 4096", "ip route show", "unreachable 10.244.1.0/24"),
        ("ip neighbour delete 10.244.2.0 dev flannel.1", "ip neighbour show dev flannel.1", neighbour),
        (
            "ip neighbour replace 10.244.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
            "ip neighbour show dev flannel.1",
            neighbour,
        ),
        (&format!("bridge fdb delete {mac} dev flannel.1 dst 172.30.0.2 self"), "bridge fdb show dev flannel.1", fdb),
        (
            &format!("bridge fdb replace {mac} dev flannel.1 dst 172.30.0.9 self permanent"),
            "bridge fdb show dev flannel.1",
            fdb,
        ),
        ("ip address delete 10.244.1.0/32 dev flannel.1", "ip address show flannel.1", "inet 10.244.1.0/32"),
        ("ip link set flannel.1 mtu 1300", "ip link show flannel.1", "mtu 1450"),
        ("ip link set flannel.1 address 02:00:00:00:00:77", "ip neighbour show dev flannel.1", neighbour),
        ("ip link set flannel.1 down", "ip route show dev flannel.1", route),
        ("ip link delete flannel.1", "ip route show dev flannel.1", route),
    ];
    for (sabotage, command, text) in cases {
        first.run(sabotage);
        // The device itself may be missing while it is repaired.
        until(REPAIR, || {
            let shown =
                first.netns.run(|| std::process::Command::new("sh").args(["-c", command]).output()).unwrap().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            if shown.contains(text) { Ok(()) } else { Err(format!("after {sabotage}: {command}: {shown}")) }
        });
        until(REPAIR, || {
            exchange(&first.netns, &second.netns, vtep(2)).map_err(|error| format!("after {sabotage}: {error}"))
        });
        exchange(&second.netns, &first.netns, vtep(1)).unwrap();
    }
    let repairs = first.status().repairs_by_kind;
    for kind in [ObjectKind::Device, ObjectKind::Address, ObjectKind::Route, ObjectKind::Neighbour, ObjectKind::Fdb] {
        assert!(repairs.contains_key(&kind), "{kind:?} in {repairs:?}");
    }
    assert_eq!(second.status().repairs, 0);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let [first, _] = &nodes;
    // An administrator's route over the tunnel, another address on the device, another table, another unreachable route.
    for command in [
        "ip route add 192.168.7.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "ip address add 192.168.6.1/32 dev flannel.1",
        "ip route add unreachable 192.168.8.0/24",
        "nft add table inet other",
    ] {
        first.run(command);
    }
    // A repair, so that a whole pass has happened since.
    first.run("ip route delete 10.244.2.0/24");
    until_shows(first, "ip route show", "10.244.2.0/24 via 10.244.2.0");
    let routes = first.run("ip route show");
    assert!(routes.contains("192.168.7.0/24 via 10.244.2.0 dev flannel.1 onlink"), "{routes}");
    assert!(routes.contains("unreachable 192.168.8.0/24"), "{routes}");
    assert!(first.run("ip address show flannel.1").contains("192.168.6.1/32"));
    assert!(first.run("nft list tables").contains("table inet other"));
}
