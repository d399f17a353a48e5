//! A node that runs flannel, made by hand exactly as the reference measured one (flannel.md 4.1, 4.2, 4.3, 5.2), beside one
//! that runs Weft: neither can tell.

use std::{fs, net::IpAddr, time::Duration};

use crate::{
    REPAIR,
    cluster::{Cluster, Node, until},
    exchange::exchange,
    vtep, vtep_v6,
};

const MAC_V4: &str = "6a:54:3d:a5:9b:82";
const MAC_V6: &str = "26:92:df:da:5c:03";

/// The lease flannel writes to etcd for node 7, byte for byte; the `dir` manager keeps the same.
fn publish(cluster: &Cluster, key: &str, value: &str) {
    let directory = cluster.leases().join("subnets");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(key), value).unwrap();
}

/// Device and addresses of node 7, as flannel makes them.
fn device(flannel: &Node) {
    for command in [
        format!(
            "ip link add flannel.1 mtu 1450 address {MAC_V4} type vxlan id 1 local 172.30.0.7 dev eth0 dstport 8472 nolearning udpcsum"
        ),
        "sysctl -qw net.ipv6.conf.flannel/1.accept_ra=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".into(),
        "ip address add 10.244.7.0/32 dev flannel.1".into(),
        "ip link set flannel.1 up".into(),
        format!(
            "ip link add flannel-v6.1 mtu 1450 address {MAC_V6} type vxlan id 1 local fd99::7 dev eth0 dstport 8472 nolearning udpcsum"
        ),
        "ip address add fd44:0:0:7::/128 dev flannel-v6.1 nodad".into(),
        "ip link set flannel-v6.1 up".into(),
    ] {
        flannel.run(&command);
    }
}

/// The entries flannel makes for Weft's node 1.
fn entries(flannel: &Node, mac: &str, mac_v6: &str) {
    for command in [
        format!("ip neigh replace 10.244.1.0 lladdr {mac} dev flannel.1 nud permanent"),
        format!("bridge fdb replace {mac} dev flannel.1 dst 172.30.0.1 self permanent"),
        "ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink".into(),
        format!("ip neigh replace fd44:0:0:1:: lladdr {mac_v6} dev flannel-v6.1 nud permanent"),
        format!("bridge fdb replace {mac_v6} dev flannel-v6.1 dst fd99::1 self permanent"),
        "ip route replace fd44:0:0:1::/64 via fd44:0:0:1:: dev flannel-v6.1 onlink metric 1024".into(),
    ] {
        flannel.run(&command);
    }
}

fn pods(weft: &Node, flannel: &Node) -> [(IpAddr, weft_netlink::Netns, IpAddr, weft_netlink::Netns); 2] {
    [("10.244.1.5", "10.244.7.6"), ("fd44:0:0:1::5", "fd44:0:0:7::6")].map(|(ours, theirs)| {
        let (ours, theirs): (IpAddr, IpAddr) = (ours.parse().unwrap(), theirs.parse().unwrap());
        let made = (ours, weft.pod(ours), theirs, flannel.pod(theirs));
        // The next family's pods have the same names.
        weft.run(&format!("ip link set pod5 name w{}", if ours.is_ipv4() { 4 } else { 6 }));
        flannel.run(&format!("ip link set pod6 name f{}", if ours.is_ipv4() { 4 } else { 6 }));
        made
    })
}

#[test]
fn a_flannel_peer_and_weft_exchange_packets_both_ways() {
    let cluster = Cluster::new();
    let conf = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","Backend":{"Type":"vxlan"}}"#;
    let weft = cluster.node(1, conf);
    let flannel = cluster.machine(7);
    device(&flannel);
    publish(
        &cluster,
        "10.244.7.0-24&fd44:0:0:7::-64",
        &format!(
            r#"{{"PublicIP":"172.30.0.7","PublicIPv6":"fd99::7","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{MAC_V4}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{MAC_V6}"}}}}"#
        ),
    );
    // What flannel would read of us: its own bytes, with its textual parser's demands (VtepMAC last, the only string).
    let status = weft.status();
    let (mac, mac_v6) = (status.ipv4.vtep_mac.unwrap(), status.ipv6.unwrap().vtep_mac.unwrap());
    let lease = fs::read_to_string(cluster.leases().join("subnets/10.244.1.0-24&fd44:0:0:1::-64")).unwrap();
    assert_eq!(
        lease,
        format!(
            r#"{{"PublicIP":"172.30.0.1","PublicIPv6":"fd99::1","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}},"BackendV6Data":{{"VNI":1,"VtepMAC":"{mac_v6}"}}}}"#
        )
    );
    entries(&flannel, &mac, &mac_v6);
    weft.until_peers(1);

    // Device attributes, entry for entry and byte for byte.
    for (device, mtu, mac) in [("flannel.1", 1450, MAC_V4), ("flannel-v6.1", 1430, MAC_V6)] {
        let details = |node: &Node, device: &str| -> Vec<String> {
            let shown = node.run(&format!("ip -details link show {device}"));
            let line = shown.lines().find(|line| line.contains("vxlan id")).unwrap();
            // Its own address differs, and what follows belongs to every link.
            let words: Vec<&str> = line.split(" addrgenmode").next().unwrap().split_whitespace().collect();
            words
                .iter()
                .filter(|word| !word.starts_with("172.30.0.") && !word.starts_with("fd99::"))
                .map(|word| (*word).into())
                .collect()
        };
        assert_eq!(details(&weft, device), details(&flannel, device));
        assert!(weft.run(&format!("ip link show {device}")).contains(&format!("mtu {mtu}")));
        assert!(weft.run(&format!("bridge fdb show dev {device}")).contains(mac));
    }
    assert_eq!(weft.run("ip route show dev flannel.1"), "10.244.7.0/24 via 10.244.7.0 onlink \n");
    assert_eq!(weft.run("ip neigh show dev flannel.1"), format!("10.244.7.0 lladdr {MAC_V4} PERMANENT \n"));
    assert_eq!(weft.run("bridge fdb show dev flannel.1"), format!("{MAC_V4} dst 172.30.0.7 self permanent\n"));
    let v6_route = weft.run("ip -6 route show dev flannel-v6.1 fd44:0:0:7::/64");
    assert_eq!(v6_route, flannel.run("ip -6 route show dev flannel-v6.1 fd44:0:0:1::/64").replace(":1::", ":7::"));

    for (family, (ours, our_pod, theirs, their_pod)) in [4, 6].into_iter().zip(pods(&weft, &flannel)) {
        until(Duration::from_secs(3), || exchange(&our_pod, &their_pod, theirs));
        assert_eq!(exchange(&our_pod, &their_pod, theirs), Ok(ours), "IPv{family}");
        assert_eq!(exchange(&their_pod, &our_pod, ours), Ok(theirs), "IPv{family}");
    }
    // From node to pod the VTEP's address is the source (flannel.md 4.2).
    assert_eq!(exchange(&weft.netns, &flannel.netns, vtep(7)), Ok(vtep(1)));
    assert_eq!(exchange(&flannel.netns, &weft.netns, vtep_v6(1)), Ok(vtep_v6(7)));
    assert_eq!(
        fs::read_to_string(&weft.subnet_file).unwrap(),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
         FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\n\
         FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n"
    );
}

#[test]
fn a_flannel_peer_with_direct_routing_or_host_gw_works_the_same() {
    for (backend, lease) in [
        (
            r#"{"Type":"vxlan","DirectRouting":true}"#,
            format!(
                r#"{{"PublicIP":"172.30.0.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{MAC_V4}"}}}}"#
            ),
        ),
        (r#"{"Type":"host-gw"}"#, r#"{"PublicIP":"172.30.0.7","PublicIPv6":null,"BackendType":"host-gw"}"#.into()),
    ] {
        let cluster = Cluster::new();
        let weft = cluster.node(1, &format!(r#"{{"Network":"10.244.0.0/16","Backend":{backend}}}"#));
        let flannel = cluster.machine(7);
        flannel.run("sysctl -qw net.ipv4.ip_forward=1");
        flannel.run("ip route replace 10.244.1.0/24 via 172.30.0.1");
        publish(&cluster, "10.244.7.0-24", &lease);
        until(REPAIR, || match weft.run("ip route show 10.244.7.0/24") {
            route if route == "10.244.7.0/24 via 172.30.0.7 dev eth0 \n" => Ok(()),
            route => Err(route),
        });
        let (ours, theirs): (IpAddr, IpAddr) = ("10.244.1.5".parse().unwrap(), "10.244.7.6".parse().unwrap());
        let (our_pod, their_pod) = (weft.pod(ours), flannel.pod(theirs));
        until(Duration::from_secs(3), || exchange(&our_pod, &their_pod, theirs));
        assert_eq!(exchange(&our_pod, &their_pod, theirs), Ok(ours), "{backend}");
        assert_eq!(exchange(&their_pod, &our_pod, ours), Ok(theirs), "{backend}");
        let own = fs::read_to_string(cluster.leases().join("subnets/10.244.1.0-24")).unwrap();
        let kind = if backend.contains("host-gw") {
            r#","BackendType":"host-gw"}"#
        } else {
            r#","BackendType":"vxlan","BackendData":{"#
        };
        assert!(own.starts_with(&format!(r#"{{"PublicIP":"172.30.0.1","PublicIPv6":null{kind}"#)), "{own}");
    }
}

#[test]
fn weft_takes_over_a_flannel_node_under_traffic() {
    let cluster = Cluster::new();
    let conf = r#"{"Network":"10.244.0.0/16"}"#;
    let other = cluster.node(1, conf);
    let mut node = cluster.machine(7);
    device(&node);
    publish(
        &cluster,
        "10.244.7.0-24",
        &format!(
            r#"{{"PublicIP":"172.30.0.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{MAC_V4}"}}}}"#
        ),
    );
    entries(&node, &other.status().ipv4.vtep_mac.unwrap(), MAC_V6);
    let (near, far): (IpAddr, IpAddr) = ("10.244.1.5".parse().unwrap(), "10.244.7.6".parse().unwrap());
    let (near_pod, far_pod) = (other.pod(near), node.pod(far));
    until(Duration::from_secs(3), || exchange(&near_pod, &far_pod, far));
    let before = node.run("ip -oneline link show flannel.1");
    node.start(conf);
    until(REPAIR, || {
        assert_eq!(exchange(&near_pod, &far_pod, far), Ok(near), "no connection fails meanwhile");
        if node.status().ready { Ok(()) } else { Err(format!("{:?}", node.status())) }
    });
    assert_eq!(node.run("ip -oneline link show flannel.1"), before);
    assert_eq!(node.status().ipv4.subnet.as_deref(), Some("10.244.7.0/24"));
    assert_eq!(exchange(&far_pod, &near_pod, near), Ok(far));
}
