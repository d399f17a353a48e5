//! Packets through what ADD made.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use weft_netlink::{Netns, RouteFilter, sysctl};

use crate::kit::{Node, Pod, addresses};

/// A first packet that gets lost comes again after a second: so much faster means that none was lost.
const AT_ONCE: Duration = Duration::from_millis(700);

/// Sends a word from one namespace to another by TCP and gets it back, at the first attempt; returns the source
/// address the server saw.
fn tcp(client: &Netns, server: &Netns, to: IpAddr) -> IpAddr {
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(to, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut connection, from) = listener.accept().unwrap();
        let mut word = [0; 4];
        connection.read_exact(&mut word).unwrap();
        connection.write_all(&word).unwrap();
        from.ip()
    });
    let start = Instant::now();
    client
        .run(|| {
            let mut connection = TcpStream::connect_timeout(&SocketAddr::new(to, port), AT_ONCE).unwrap();
            connection.write_all(b"weft").unwrap();
            let mut word = [0; 4];
            connection.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"weft");
        })
        .unwrap();
    assert!(start.elapsed() < AT_ONCE, "{to}: {:?}", start.elapsed());
    serving.join().unwrap()
}

fn attach(node: &Node, id: &str) -> (Pod, Vec<IpAddr>) {
    let pod = Pod::new(id);
    let result = node.add(&pod).result();
    let ips = addresses(&result).iter().map(|text| text.parse().unwrap()).collect();
    (pod, ips)
}

fn pods_reach_each_other_and_the_node(node: &Node, families: usize) {
    let (a, a_ips) = attach(node, "a");
    let (b, b_ips) = attach(node, "b");
    assert_eq!((a_ips.len(), b_ips.len()), (families, families));
    for (a_ip, b_ip) in a_ips.iter().zip(&b_ips) {
        assert_eq!(tcp(&a.netns, &b.netns, *b_ip), *a_ip);
        assert_eq!(tcp(&b.netns, &a.netns, *a_ip), *b_ip);
        assert_eq!(tcp(&a.netns, &a.netns, *a_ip), *a_ip);
        let gateway: IpAddr =
            if a_ip.is_ipv4() { "10.244.1.1".parse().unwrap() } else { "fd44:0:0:1::1".parse().unwrap() };
        assert_eq!(tcp(&node.netns, &a.netns, *a_ip), gateway);
        assert_eq!(tcp(&a.netns, &node.netns, gateway), *a_ip);
    }
}

#[test]
fn a9_ipv4_pods_reach_each_other_and_the_node() {
    pods_reach_each_other_and_the_node(&Node::v4(), 1);
}

#[test]
fn a9_ipv6_pods_reach_each_other_and_the_node() {
    pods_reach_each_other_and_the_node(&Node::v6(), 1);
}

#[test]
fn a9_dual_stack_pods_reach_each_other_and_the_node() {
    pods_reach_each_other_and_the_node(&Node::dual_stack(), 2);
}

/// A container runtime may have switched IPv6 off in new namespaces.
#[test]
fn a7_ipv6_is_switched_on_where_it_was_off() {
    let (node, pod) = (Node::v6(), Pod::new("p"));
    for netns in [&node.netns, &pod.netns] {
        netns.run(|| sysctl::set("net/ipv6/conf/default/disable_ipv6", "1").unwrap()).unwrap();
    }
    let result = node.add(&pod).result();
    let address = addresses(&result)[0].parse().unwrap();
    tcp(&node.netns, &pod.netns, address);
}

#[test]
fn a7_both_ends_have_their_kernel_parameters() {
    let (node, pod) = (Node::dual_stack(), Pod::new("p"));
    let result = node.add(&pod).result();
    let host_end = result["interfaces"][0]["name"].as_str().unwrap();
    let is = |netns: &Netns, parameter: &str, value: &str| {
        let found = netns.run(|| sysctl::get(parameter).unwrap()).unwrap();
        assert_eq!(found, value, "{parameter}");
    };
    is(&node.netns, "net/ipv4/ip_forward", "1");
    is(&node.netns, "net/ipv6/conf/all/forwarding", "1");
    is(&node.netns, &format!("net/ipv6/conf/{host_end}/accept_ra"), "0");
    for (parameter, value) in [("accept_dad", "0"), ("keep_addr_on_down", "1"), ("disable_ipv6", "0")] {
        is(&pod.netns, &format!("net/ipv6/conf/eth0/{parameter}"), value);
    }
    is(&pod.netns, "net/ipv6/conf/lo/disable_ipv6", "0");
}

/// The very first packet arrives, sent the moment the result is there.
#[test]
fn a12_the_first_datagram_arrives() {
    let node = Node::dual_stack();
    let (sender, _) = attach(&node, "sender");
    for round in 0..20 {
        let (receiver, ips) = attach(&node, &format!("receiver{round}"));
        for ip in ips {
            let socket = receiver.netns.run(|| UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap()).unwrap();
            socket.set_read_timeout(Some(AT_ONCE)).unwrap();
            let to = socket.local_addr().unwrap();
            let any: SocketAddr = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            sender.netns.run(|| UdpSocket::bind(any).unwrap().send_to(b"first", to).unwrap()).unwrap();
            let mut buffer = [0; 16];
            let received = socket.recv(&mut buffer);
            assert!(matches!(received, Ok(5)), "round {round}, {ip}: {received:?}");
        }
    }
}

#[test]
fn a9_the_container_has_its_address_alone_and_a_default_route() {
    let (node, pod) = (Node::dual_stack(), Pod::new("p"));
    node.add(&pod).result();
    let netlink = pod.netlink();
    let eth0 = netlink.link_by_name("eth0").unwrap().unwrap();
    let mut found: Vec<_> =
        netlink.addresses(Some(eth0.index)).unwrap().iter().map(|a| a.address.to_string()).collect();
    found.retain(|address| !address.starts_with("fe80"));
    assert_eq!(found, ["10.244.1.2/32", "fd44:0:0:1::2/128"]);
    let routes: Vec<_> = netlink.routes(&RouteFilter::default()).unwrap().iter().map(ToString::to_string).collect();
    let index = eth0.index;
    for expected in [
        format!("10.244.1.1/32 on link #{index}"),
        format!("0.0.0.0/0 via 10.244.1.1 on link #{index}"),
        format!("fd44:0:0:1::1/128 on link #{index}"),
        format!("::/0 via fd44:0:0:1::1 on link #{index}"),
    ] {
        assert!(routes.contains(&expected), "{expected}: {routes:?}");
    }
    let usable = netlink.addresses(Some(index)).unwrap();
    assert!(usable.iter().all(|address| address.address.prefix() == 64 || !address.tentative), "{usable:?}");
}

#[test]
fn a6_configured_routes_replace_the_default_route() {
    let (node, pod) = (Node::v4(), Pod::new("p"));
    let mut config = node.config("1.1.0");
    config["ipam"] = json!({"type": "host-local", "routes": [{"dst": "10.244.0.0/16", "mtu": 1400}]});
    let result = node.run("ADD", &pod, &config, &[]).result();
    assert_eq!(result["routes"], json!([{"dst": "10.244.0.0/16", "gw": "10.244.1.1", "mtu": 1400}]));
    let routes: Vec<_> = pod.netlink().routes(&RouteFilter::default()).unwrap();
    let destinations: Vec<_> = routes.iter().map(|route| route.destination.to_string()).collect();
    for expected in ["10.244.0.0/16", "10.244.1.0/24", "10.244.1.1/32"] {
        assert!(destinations.contains(&expected.to_owned()), "{destinations:?}");
    }
    assert!(!destinations.contains(&"0.0.0.0/0".to_owned()));
}

#[test]
fn a4_two_attachments_of_one_pod_are_independent() {
    let (node, pod) = (Node::dual_stack(), Pod::new("p"));
    let of = |ifname| [("CNI_IFNAME", ifname)];
    let run = |command, ifname| node.run(command, &pod, &node.config("1.0.0"), &of(ifname));
    let reachable = |addresses: &[String]| {
        for address in addresses {
            tcp(&node.netns, &pod.netns, address.parse().unwrap());
        }
    };
    let first = addresses(&run("ADD", "eth0").result());
    let second = addresses(&run("ADD", "net1").result());
    assert_ne!(first, second);
    reachable(&first);
    reachable(&second);
    assert!(run("DEL", "net1").success);
    assert_eq!(node.reserved(), first);
    reachable(&first);
    let third = addresses(&run("ADD", "net1").result());
    assert!(run("DEL", "eth0").success);
    reachable(&third);
}
