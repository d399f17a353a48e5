//! The overlay in real network namespaces with real packets; iproute2 and nft are the second opinion.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backends;
mod cluster;
mod defects;
mod diagnose;
mod flannel_peer;
mod interfaces;
mod mixed;
mod options;
mod packet_rules;
mod sabotage;

use std::{fs, io::ErrorKind, net::IpAddr, time::Duration};

use weft_overlay::{
    CleanupConfig, LeaseHolder, LeaseManager, NetConf, ObjectKind, PeerState, StartError, SubnetSource,
};

use crate::cluster::{Cluster, DUAL_STACK, NETWORK, Node, exchange, run, until};

/// How long is waited for somebody else's change to be put right. The goal is one second (`sabotage` prints what it takes,
/// some hundredths usually); the rest is for a busy machine.
const REPAIR: Duration = Duration::from_secs(4);

fn vtep(number: u8) -> IpAddr {
    [10, 244, number, 0].into()
}

fn vtep_v6(number: u16) -> IpAddr {
    [0xfd44, 0, 0, number, 0, 0, 0, 0].into()
}

/// Waits until a command in the node prints `text`.
#[track_caller]
fn until_shows(node: &Node, command: &str, text: &str) {
    until(REPAIR, || match node.run(command) {
        shown if shown.contains(text) => Ok(()),
        shown => Err(format!("{command}: no {text:?} in {shown}")),
    });
}

#[test]
fn nodes_reach_each_other_with_flannels_entries() {
    let cluster = Cluster::new();
    let nodes = [1, 2, 3].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(2));
    assert_eq!(cluster.lease_files(), ["10.244.1.0-24", "10.244.2.0-24", "10.244.3.0-24"]);

    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1)] {
        let seen = exchange(&nodes[from].netns, &nodes[to].netns, vtep(to as u8 + 1));
        assert_eq!(seen, Ok(vtep(from as u8 + 1)), "{from} -> {to}");
    }

    // flannel.md 4.1, 4.2, 7: entry for entry.
    let [first, second, _] = &nodes;
    let mac = second.status().ipv4.vtep_mac.unwrap();
    let link = first.run("ip -details link show flannel.1");
    for part in ["mtu 1450", "vxlan id 1 local 172.30.0.1 dev eth0", "dstport 8472 nolearning", "udpcsum"] {
        assert!(link.contains(part), "no {part} in {link}");
    }
    assert!(first.run("ip address show flannel.1").contains("inet 10.244.1.0/32 scope global"));
    assert_eq!(
        first.run("ip route show dev flannel.1"),
        "10.244.2.0/24 via 10.244.2.0 onlink \n10.244.3.0/24 via 10.244.3.0 onlink \n"
    );
    let neighbours = first.run("ip neighbour show dev flannel.1");
    assert!(neighbours.contains(&format!("10.244.2.0 lladdr {mac} PERMANENT")), "{neighbours}");
    let fdb = first.run("bridge fdb show dev flannel.1");
    assert!(fdb.contains(&format!("{mac} dst 172.30.0.2 self permanent")), "{fdb}");
    assert_eq!(
        fs::read_to_string(&first.subnet_file).unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    );
    assert_eq!(first.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    assert_eq!(first.run("cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra"), "0\n");

    let status = first.status();
    assert!(status.peers.iter().all(|peer| peer.state == PeerState::Up && peer.error.is_none()));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["publicIP"], "172.30.0.1");
    assert_eq!(json["peers"][0]["vtepMAC"], mac);
    assert_eq!(json["peers"][0]["state"], "up");
    assert_eq!((&json["ready"], &json["repairs"], &json["mtu"]), (&true.into(), &0.into(), &1450.into()));
}

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

fn weft_cleanup(node: &Node) -> Vec<String> {
    let net_conf = NetConf::parse(DUAL_STACK, SubnetSource::Allocated).unwrap();
    let config =
        CleanupConfig { net_conf, subnet_file: node.subnet_file.clone(), node_name: format!("n{}", node.number) };
    let leases = node.leases();
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(weft_overlay::cleanup(&config, Some(&leases as &dyn LeaseManager)))
    };
    node.netns.run(work).unwrap().unwrap()
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
fn both_families_and_a_peer_with_only_one() {
    let cluster = Cluster::new();
    let dual = [1, 2].map(|number| cluster.node(number, DUAL_STACK));
    let single = cluster.node(3, NETWORK);
    dual.iter().for_each(|node| node.until_peers(2));
    single.until_peers(2);
    let [first, second] = &dual;

    until(REPAIR, || exchange(&first.netns, &second.netns, vtep_v6(2)));
    assert_eq!(exchange(&second.netns, &first.netns, vtep_v6(1)), Ok(vtep_v6(2)));
    assert_eq!(exchange(&first.netns, &second.netns, vtep(2)), Ok(vtep(1)));
    // flannel skips the node without IPv6 completely (flannel-defects.md B.3).
    assert_eq!(exchange(&single.netns, &first.netns, vtep(1)), Ok(vtep(3)));
    assert_eq!(exchange(&first.netns, &single.netns, vtep(3)), Ok(vtep(1)));

    let device = first.run("ip -details link show flannel-v6.1");
    assert!(device.contains("mtu 1430") && device.contains("local fd99::1"), "{device}");
    let mac = second.status().ipv6.unwrap().vtep_mac.unwrap();
    assert!(
        first.run("ip -6 route show dev flannel-v6.1").contains("fd44:0:0:2::/64 via fd44:0:0:2:: metric 1024 onlink")
    );
    assert!(
        first.run("ip -6 neighbour show dev flannel-v6.1").contains(&format!("fd44:0:0:2:: lladdr {mac} PERMANENT"))
    );
    assert!(first.run("bridge fdb show dev flannel-v6.1").contains(&format!("{mac} dst fd99::2 self permanent")));
    let env = fs::read_to_string(&first.subnet_file).unwrap();
    assert!(env.contains("FLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\nFLANNEL_MTU=1430\n"), "{env}");
    // Not only the IPv4 device is watched (flannel-defects.md A.3).
    first.run("ip link delete flannel-v6.1");
    until(REPAIR, || exchange(&first.netns, &second.netns, vtep_v6(2)));
    assert_eq!(first.run("cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
}

#[test]
fn unassigned_pod_addresses_are_unreachable_at_once() {
    let cluster = Cluster::new();
    let node = cluster.node(1, DUAL_STACK);
    for address in ["10.244.1.77:80", "[fd44:0:0:1::77]:80"] {
        let address = address.parse().unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2));
        let error = node.netns.run(connect).unwrap().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable), "{error}");
    }
    // flannel's connected route on cni0 wins over it.
    run(&node.netns, "ip link add cni0 type bridge");
    run(&node.netns, "ip address add 10.244.1.1/24 dev cni0");
    run(&node.netns, "ip link set cni0 up");
    assert!(node.run("ip route get 10.244.1.77").contains("dev cni0"));
    // Pods on it ask there for pods that are routed.
    for parameter in ["conf/cni0/proxy_arp = 1", "neigh/cni0/proxy_delay = 0"] {
        let (name, value) = parameter.split_once(" = ").unwrap();
        until(REPAIR, || match node.run(&format!("cat /proc/sys/net/ipv4/{name}")) {
            now if now.trim() == value => Ok(()),
            now => Err(format!("{name} is {now}")),
        });
    }
}

#[test]
fn broken_and_odd_leases_do_not_disturb_the_others() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let [first, second] = &nodes;
    let directory = cluster.leases().join("subnets");
    let lease = |ip: &str, vni: u32, mac: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":{vni},"VtepMAC":"{mac}"}}}}"#
        )
    };
    fs::write(directory.join("10.244.50.0-24"), lease("172.30.0.50", 2, "02:00:00:00:00:50")).unwrap();
    fs::write(directory.join("10.99.0.0-24"), lease("172.30.0.51", 1, "02:00:00:00:00:51")).unwrap();
    fs::write(directory.join("10.244.52.0-24"), r#"{"PublicIP":"#).unwrap();
    fs::write(directory.join("10.244.53.0-24"), lease("172.30.0.53", 1, "02:00:00:00:00:53")).unwrap();
    first.until_peers(2);

    // Its own file broken by somebody: written again. The other node's: its entries stay.
    fs::write(directory.join("10.244.1.0-24"), "").unwrap();
    until(REPAIR, || match fs::read_to_string(directory.join("10.244.1.0-24")) {
        Ok(text) if text.starts_with('{') => Ok(()),
        other => Err(format!("{other:?}")),
    });
    fs::write(directory.join("10.244.53.0-24"), "").unwrap();
    until(REPAIR, || match first.status() {
        status if status.rejected.len() == 2 => Ok(()),
        status => Err(format!("{status:?}")),
    });
    let status = first.status();
    let states: Vec<_> = status.peers.iter().map(|peer| (peer.subnet.as_str(), peer.state)).collect();
    assert_eq!(
        states,
        [
            ("10.99.0.0/24", PeerState::Failed),
            ("10.244.2.0/24", PeerState::Up),
            ("10.244.50.0/24", PeerState::Failed),
            ("10.244.53.0/24", PeerState::Up),
        ]
    );
    assert_eq!(status.peers[2].error.as_deref(), Some("uses VNI 2, this node 1"));
    assert!(status.ready, "peers do not count");
    assert_eq!(exchange(&first.netns, &second.netns, vtep(2)), Ok(vtep(1)));

    // Deleted, its own lease comes back with the same subnet.
    fs::remove_file(directory.join("10.244.1.0-24")).unwrap();
    until(REPAIR, || directory.join("10.244.1.0-24").exists().then_some(()).ok_or("no lease".into()));
    until(REPAIR, || exchange(&second.netns, &first.netns, vtep(1)));
}

#[test]
fn a_full_network_is_said_and_waited_for() {
    let cluster = Cluster::new();
    let small = r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}"#;
    let mut first = cluster.node(1, small);
    let mut second = cluster.machine(2);
    second.start(small);
    until(REPAIR, || match second.status().error {
        Some(error) if error.contains("no free IPv4 subnet in 10.244.0.0/16") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!second.run("ip link show").contains("flannel"), "nothing is made without a lease");
    assert!(!second.subnet_file.exists());
    first.stop();
    weft_cleanup(&first);
    second.until_ready();
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

#[test]
fn a_thousand_peers_are_programmed_and_one_change_costs_one_change() {
    let cluster = Cluster::new();
    let directory = cluster.leases().join("subnets");
    fs::create_dir_all(&directory).unwrap();
    let lease = |n: usize, host: usize| {
        let (a, b) = (n / 250, n % 250);
        format!(
            r#"{{"PublicIP":"172.31.{a}.{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{a:02x}:{b:02x}"}}}}"#
        )
    };
    let key = |n: usize| directory.join(format!("10.{}.{}.0-24", 1 + n / 250, n % 250));
    for n in 0..1000 {
        fs::write(key(n), lease(n, 1 + n % 250)).unwrap();
    }
    let network = r#"{"Network":"10.0.0.0/8","SubnetMin":"10.200.0.0"}"#;
    let mut node = cluster.machine(1);
    let start = std::time::Instant::now();
    node.start(network);
    node.until_ready();
    let programmed = start.elapsed();
    assert_eq!(node.run("ip route show dev flannel.1").lines().count(), 1000);
    assert_eq!(node.run("bridge fdb show dev flannel.1").lines().count(), 1000);

    let start = std::time::Instant::now();
    let changed = directory.join(".new");
    fs::write(&changed, lease(7, 250)).unwrap();
    fs::rename(&changed, key(7)).unwrap();
    let mac = "02:00:00:00:00:07";
    until(REPAIR, || {
        let fdb = node.run(&format!("bridge fdb get {mac} dev flannel.1 self"));
        if fdb.contains("dst 172.31.0.250") { Ok(()) } else { Err(fdb) }
    });
    let followed = start.elapsed();
    eprintln!("1000 peers: start to ready {programmed:?}, one change {followed:?}");
    assert!(programmed < Duration::from_secs(5), "{programmed:?}");
    assert_eq!(node.status().repairs, 0);
}
