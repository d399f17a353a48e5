//! route_localnet does not open what listens on 127.0.0.1 to the pod (CVE-2020-8558).

use std::net::{IpAddr, UdpSocket};

use serde_json::json;
use weft_netlink::{Route, sysctl};

use super::site::{NOT_LONG, Site, ask, mapping, serve, tool};
use crate::kit::Pod;

#[test]
fn section_8_pods_do_not_reach_loopback_addresses_of_the_node() {
    pods_do_not_reach_them("nftables", "nft flush chain inet weft-hostports input");
}

#[test]
fn section_8_pods_do_not_reach_loopback_addresses_by_iptables_either() {
    pods_do_not_reach_them("iptables", "iptables -F INPUT");
}

/// `open` takes our guard away.
fn pods_do_not_reach_them(backend: &str, open: &str) {
    let (site, pod) = (Site::new(), Pod::new("web"));
    // What others accept is none of their business.
    tool(&site.node.netns, "iptables -A INPUT -j ACCEPT");
    let mut config = site.config(json!([mapping(80, "tcp", "")]));
    config["backend"] = backend.into();
    site.node.run("ADD", &pod, &config, &[]).result();
    serve(&pod);
    assert_eq!(ask(&site.node.netns, "127.0.0.1:80").unwrap(), "web 10.244.1.1", "answers do come");
    let listening = site.node.netns.run(|| UdpSocket::bind("127.0.0.1:9").unwrap()).unwrap();
    listening.set_read_timeout(Some(NOT_LONG)).unwrap();
    let socket = sender_to_loopback(&pod);
    let received = || {
        socket.send_to(b"secret", "127.0.0.1:9").unwrap();
        listening.recv(&mut [0; 16]).is_ok()
    };
    assert!(!received());
    // The packets do arrive at the node: without our guard they are taken.
    tool(&site.node.netns, open);
    assert!(received());
}

/// A socket of a pod that may make its own packets, and sends those to 127.0.0.1 to its node.
fn sender_to_loopback(pod: &Pod) -> UdpSocket {
    pod.netns.run(|| sysctl::set("net/ipv4/conf/all/route_localnet", "1").unwrap()).unwrap();
    for rule in ["add pref 0 to 127.0.0.1 lookup 100", "add pref 1 lookup local", "del pref 0 lookup local"] {
        tool(&pod.netns, &format!("ip rule {rule}"));
    }
    let netlink = pod.netlink();
    let link = netlink.link_by_name("eth0").unwrap().map(|link| link.index);
    let gateway: IpAddr = "10.244.1.1".parse().unwrap();
    let route = Route { gateway: Some(gateway), link, table: 100, ..Route::new("127.0.0.0/8".parse().unwrap()) };
    netlink.replace_route(&route).unwrap();
    pod.netns.run(|| UdpSocket::bind("10.244.1.2:0").unwrap()).unwrap()
}
