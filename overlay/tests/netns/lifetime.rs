//! An overlay starts, is refused, takes over, moves, starts again and is removed.

use weft_overlay::{LeaseHolder, LeaseManager, StartError};

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, NETWORK, Node, until},
    exchange::exchange,
    until_shows, vtep, weft_cleanup,
};

#[test]
fn a_restart_keeps_the_device_and_removes_peers_that_left_meanwhile() {
    let cluster = Cluster::new();
    let mut nodes = [1, 2, 3].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(2));
    let before = nodes[0].run("ip -oneline link show flannel.1");

    nodes[0].stop();
    // Traffic does not need the agent.
    assert_eq!(exchange(&nodes[1].netns, &nodes[0].netns, vtep(1)), Ok(vtep(2)));
    nodes[2].stop();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(nodes[2].leases().release(&LeaseHolder::named("n3"))).unwrap();
    nodes[1].until_peers(1);
    assert_eq!(nodes[0].run("ip route show dev flannel.1").lines().count(), 2, "nobody has told the stopped agent");

    nodes[0].start(NETWORK);
    nodes[0].until_ready();
    assert_eq!(nodes[0].run("ip route show dev flannel.1"), "10.244.2.0/24 via 10.244.2.0 onlink \n");
    assert_eq!(nodes[0].run("bridge fdb show dev flannel.1").lines().count(), 1);
    assert!(!nodes[0].run("ip neighbour show dev flannel.1").contains("10.244.3.0"));
    assert_eq!(nodes[0].run("ip -oneline link show flannel.1"), before, "same device, same MAC");
    assert_eq!(nodes[0].status().repairs, 0, "catching up is no repair");
    assert_eq!(exchange(&nodes[0].netns, &nodes[1].netns, vtep(2)), Ok(vtep(1)));
}

#[test]
fn a_running_flannels_device_is_adopted_with_its_mac() {
    let cluster = Cluster::new();
    let flannel = "ip link add flannel.1 address 02:00:00:00:0f:01 type vxlan id 1 local 172.30.0.1 dev eth0 dstport";
    // Agreeing: the very same device. Another port: made anew with the same MAC.
    for (number, port, same) in [(1, 8472, true), (2, 4789, false)] {
        let mut node = cluster.machine(number);
        node.run(&format!("{} {port} nolearning", flannel.replace("172.30.0.1", &format!("172.30.0.{number}"))));
        let index = |node: &Node| node.run("ip -oneline link show flannel.1").split(':').next().unwrap().to_owned();
        let before = index(&node);
        node.start(NETWORK);
        node.until_ready();
        let link = node.run("ip -details link show flannel.1");
        assert!(link.contains("02:00:00:00:0f:01") && link.contains("dstport 8472"), "{link}");
        // The device was made with the kernel's MTU of the moment; it is set in place.
        assert!(link.contains("mtu 1450"), "{link}");
        assert_eq!(before == index(&node), same, "port {port}");
        node.stop();
        weft_cleanup(&node);
    }
}

#[test]
fn cleanup_removes_exactly_our_objects() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    let routes = node.run("ip route show");
    node.run("nft add table inet other");
    node.start(DUAL_STACK);
    node.until_ready();
    assert!(node.run("nft list tables").contains("weft-overlay"));
    node.stop();

    assert_eq!(
        weft_cleanup(&node),
        [
            "device flannel.1",
            "device flannel-v6.1",
            "unreachable route 10.244.1.0/24, unreachable route fd44:0:0:1::/64",
            "table inet weft-overlay",
            node.subnet_file.to_str().unwrap(),
            "lease of n1",
        ]
    );
    assert_eq!(node.run("ip route show"), routes);
    assert!(!node.run("ip link show").contains("flannel"));
    assert_eq!(node.run("nft list tables"), "table inet other\n");
    assert_eq!(cluster.lease_files(), Vec::<String>::new());
    assert!(!node.subnet_file.exists());
    // Again: nothing left, no error.
    assert_eq!(weft_cleanup(&node), ["lease of n1"]);
}

#[test]
fn a_start_that_is_refused_changes_nothing() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    let before = node.run("ip address show") + &node.run("ip route show");
    let mut config = node.config(NETWORK);
    config.interface.interfaces = vec!["eth7".into()];
    let error = node.try_start(config).unwrap_err();
    assert!(matches!(error, StartError::Interface(_)));
    assert!(error.to_string().contains("--iface eth7 (looked at lo"), "{error}");
    assert_eq!(node.run("ip address show") + &node.run("ip route show"), before);
    assert!(!cluster.leases().exists() && !node.subnet_file.exists());
    assert_eq!(node.run("nft list tables"), "");
}

#[test]
fn the_nodes_new_address_is_followed_and_announced() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let [first, second] = &nodes;
    let mac = first.status().ipv4.vtep_mac;
    first.run("ip address delete 172.30.0.1/24 dev eth0");
    first.run("ip address add 172.30.0.77/24 dev eth0");
    first.run("ip route replace default via 172.30.0.254");
    until_shows(second, "bridge fdb show dev flannel.1", "dst 172.30.0.77 self permanent");
    until(REPAIR, || exchange(&first.netns, &second.netns, vtep(2)));
    assert_eq!(exchange(&second.netns, &first.netns, vtep(1)), Ok(vtep(2)));
    assert_eq!(first.status().ipv4.vtep_mac, mac);
}
