//! Who reaches whom, with which entries, and what is unreachable.

use std::{fs, io::ErrorKind, time::Duration};

use weft_overlay::PeerState;

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, NETWORK, run, until},
    exchange::exchange,
    vtep, vtep_v6,
};

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
