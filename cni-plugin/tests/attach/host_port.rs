//! hostPort (section 8): packets from a client outside, from the node and from the pods themselves.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use weft_netlink::{AddressOptions, Netlink, Netns, Route, VethSpec, sysctl};

use crate::kit::{Node, Outcome, Pod, addresses};

/// Enough for what arrives, and not long for what does not.
const PATIENCE: Duration = Duration::from_secs(5);
const NOT_LONG: Duration = Duration::from_millis(200);

/// Addresses of the node on the wire to the client.
const NODE4: &str = "192.0.2.1";
const NODE6: &str = "2001:db8::1";

/// A node and a client on one wire.
pub(crate) struct Site {
    pub(crate) node: Node,
    client: Netns,
}

impl Site {
    pub(crate) fn new() -> Self {
        let (node, client) = (Node::dual_stack(), Netns::create().unwrap());
        let (here, there) = (node.netlink(), client.run(Netlink::open).unwrap().unwrap());
        let spec = VethSpec {
            name: "wan0",
            peer_name: "wan0",
            peer_netns: Some(std::os::fd::AsFd::as_fd(&client)),
            mtu: None,
            mac: None,
            peer_mac: None,
        };
        here.create_veth(&spec).unwrap();
        for (netlink, ips) in [(&here, [NODE4, NODE6]), (&there, ["192.0.2.2", "2001:db8::2"])] {
            let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
            let link = netlink.link_by_name("wan0").unwrap().unwrap().index;
            netlink.set_up(netlink.link_by_name("lo").unwrap().unwrap().index).unwrap();
            netlink.set_up(link).unwrap();
            for ip in ips {
                let length = if ip.contains(':') { 64 } else { 24 };
                netlink.replace_address(link, format!("{ip}/{length}").parse().unwrap(), options).unwrap();
            }
        }
        let link = there.link_by_name("wan0").unwrap().map(|link| link.index);
        for (to, via) in [("10.244.0.0/16", NODE4), ("fd44::/32", NODE6)] {
            let gateway = Some(via.parse().unwrap());
            there.replace_route(&Route { gateway, link, ..Route::new(to.parse().unwrap()) }).unwrap();
        }
        Self { node, client }
    }

    /// The plugin's configuration with port mappings, in the spelling of containerd.
    pub(crate) fn config(&self, mappings: Value) -> Value {
        self.node.config_with("1.0.0", json!({"runtimeConfig": {"portMappings": mappings}}))
    }

    fn add(&self, pod: &Pod, mappings: Value) -> Value {
        self.node.run("ADD", pod, &self.config(mappings), &[]).result()
    }

    fn check(&self, pod: &Pod, mappings: Value, result: &Value) -> Outcome {
        let mut config = self.config(mappings);
        config["prevResult"] = result.clone();
        self.node.run("CHECK", pod, &config, &[])
    }
}

pub(crate) fn mapping(port: u16, protocol: &str, host: &str) -> Value {
    json!({"HostPort": port, "ContainerPort": 8080, "Protocol": protocol, "HostIP": host})
}

/// A pod that answers on TCP and UDP port 8080, both families, with its name and the client's address.
fn serve(pod: &Pod) {
    let (listener, socket) =
        pod.netns.run(|| (TcpListener::bind("[::]:8080").unwrap(), UdpSocket::bind("[::]:8080").unwrap())).unwrap();
    let name = pod.id.clone();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let from = connection.peer_addr().unwrap().ip().to_canonical();
            let _ = connection.write_all(format!("{name} {from}").as_bytes());
        }
    });
    let name = pod.id.clone();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", from.ip().to_canonical()).as_bytes(), from);
        }
    });
}

/// What the server behind an address says; `None` if there is none.
fn ask(client: &Netns, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Some(text)
}

/// The same by UDP, from a socket of the client's.
fn ask_udp(socket: &UdpSocket, to: &str) -> Option<String> {
    socket.send_to(b"who?", to).ok()?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn udp(netns: &Netns, patience: Duration) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// All that nft and iptables know.
pub(crate) fn rules(netns: &Netns) -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = netns.run(|| Command::new(program).args(arguments).output().unwrap()).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    output("nft", &["list", "ruleset"])
}

fn assert_nothing_left(site: &Site) {
    assert_eq!(rules(&site.node.netns), "");
    assert!(site.node.reserved().is_empty());
}

#[test]
fn section_8_from_outside_from_the_node_from_pods_and_from_the_pod_itself() {
    let site = Site::new();
    let (pod, other) = (Pod::new("web"), Pod::new("other"));
    let mappings = json!([mapping(80, "tcp", ""), mapping(53, "UDP", "")]);
    let result = site.add(&pod, mappings.clone());
    let ip = addresses(&result).remove(0);
    site.node.add(&other).result();
    serve(&pod);

    // Clients keep their addresses, but where they could not be answered.
    let answer = |from: &Netns, to: &str| ask(from, to).unwrap_or_else(|| panic!("{to}: {}", rules(&site.node.netns)));
    assert_eq!(answer(&site.client, "192.0.2.1:80"), "web 192.0.2.2");
    assert_eq!(answer(&site.client, "[2001:db8::1]:80"), "web 2001:db8::2");
    assert_eq!(answer(&other.netns, "192.0.2.1:80"), "web 10.244.1.3");
    assert_eq!(answer(&other.netns, "[2001:db8::1]:80"), "web fd44:0:0:1::3");
    assert_eq!(answer(&pod.netns, "192.0.2.1:80"), "web 10.244.1.1");
    assert_eq!(answer(&pod.netns, "[2001:db8::1]:80"), "web fd44:0:0:1::1");
    assert!(answer(&site.node.netns, "192.0.2.1:80").starts_with("web "));
    assert!(answer(&site.node.netns, "[2001:db8::1]:80").starts_with("web "));
    assert_eq!(answer(&site.node.netns, "127.0.0.1:80"), "web 10.244.1.1");
    // Refused at once, so that clients of "localhost" go on to 127.0.0.1.
    assert_eq!(ask(&site.node.netns, "[::1]:80"), None);
    for (from, to) in [(&site.client, "192.0.2.1:53"), (&site.node.netns, "127.0.0.1:53"), (&pod.netns, "192.0.2.1:53")]
    {
        assert!(ask_udp(&udp(from, PATIENCE), to).unwrap().starts_with("web "), "{to}");
    }
    assert_eq!(ask(&site.client, &format!("{ip}:8080")).unwrap(), "web 192.0.2.2");
    assert_eq!(ask(&site.client, "192.0.2.1:8080"), None);

    let checked = site.check(&pod, mappings.clone(), &result);
    assert!(checked.success, "{checked:?}");
    assert!(site.node.run("DEL", &pod, &site.config(mappings), &[]).success);
    assert_eq!(ask(&site.client, "192.0.2.1:80"), None);
    assert!(site.node.del(&other).success);
    assert_nothing_left(&site);
}

#[test]
fn section_8_host_ip_restricts_the_address_and_the_family() {
    let site = Site::new();
    let pods = [Pod::new("wan"), Pod::new("local"), Pod::new("six")];
    for (pod, host) in pods.iter().zip([NODE4, "127.0.0.1", "::"]) {
        site.add(pod, json!([mapping(80, "tcp", host)]));
        serve(pod);
    }
    assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "wan 192.0.2.2");
    assert_eq!(ask(&site.node.netns, "127.0.0.1:80").unwrap(), "local 10.244.1.1");
    assert_eq!(ask(&site.client, "[2001:db8::1]:80").unwrap(), "six 2001:db8::2");
    assert_eq!(ask(&site.node.netns, "127.0.0.2:80"), None);
}

/// Whose address the pod sees: the node's of everybody, or nobody's but the client's own, which leaves 127.0.0.1 out.
#[test]
fn section_8_masq_all_and_snat_false() {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let pods = [Pod::new("all"), Pod::new("never")];
        let settings = [json!({"masqAll": true}), json!({"snat": false})];
        for ((pod, settings), port) in pods.iter().zip(settings).zip([81, 82]) {
            let mut config = site.config(json!([mapping(port, "tcp", "")]));
            config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            config["backend"] = backend.into();
            site.node.run("ADD", pod, &config, &[]).result();
            serve(pod);
        }
        assert_eq!(ask(&site.client, "192.0.2.1:81").unwrap(), "all 10.244.1.1", "{backend}");
        assert_eq!(ask(&site.client, "[2001:db8::1]:81").unwrap(), "all fd44:0:0:1::1", "{backend}");
        assert_eq!(ask(&site.node.netns, "127.0.0.1:81").unwrap(), "all 10.244.1.1", "{backend}");
        assert_eq!(ask(&site.client, "192.0.2.1:82").unwrap(), "never 192.0.2.2", "{backend}");
        assert_eq!(ask(&site.client, "[2001:db8::1]:82").unwrap(), "never 2001:db8::2", "{backend}");
        assert_eq!(ask(&site.node.netns, "127.0.0.1:82"), None, "{backend}");
    }
}

/// The later pod has the port, and the earlier gets it back.
#[test]
fn section_8_two_pods_with_one_port() {
    let site = Site::new();
    let pods = [Pod::new("old"), Pod::new("new")];
    let mappings = json!([mapping(80, "tcp", "")]);
    let results = pods.each_ref().map(|pod| {
        let result = site.add(pod, mappings.clone());
        serve(pod);
        result
    });
    let served = || ask(&site.client, "192.0.2.1:80").map(|text| text.split(' ').next().unwrap().to_owned());
    assert_eq!(served().unwrap(), "new");
    assert_eq!(site.check(&pods[0], mappings.clone(), &results[0]).error().0, 104);
    assert!(site.check(&pods[1], mappings.clone(), &results[1]).success);
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(served().unwrap(), "old");
    assert!(site.check(&pods[0], mappings, &results[0]).success);
    // A late DEL of the other takes nothing away (D4).
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(served().unwrap(), "old");
    assert!(site.node.del(&pods[0]).success);
    assert_nothing_left(&site);
}

/// The fallback for kernels without nftables, asked for by name.
#[test]
fn section_8_by_iptables() {
    let site = Site::new();
    let pods = [Pod::new("old"), Pod::new("new")];
    let config = || {
        let mut config = site.config(json!([mapping(80, "tcp", ""), mapping(81, "tcp", NODE4)]));
        config["backend"] = json!("iptables");
        config
    };
    let results = pods.each_ref().map(|pod| {
        let result = site.node.run("ADD", pod, &config(), &[]).result();
        serve(pod);
        result
    });
    let check = |number: usize| {
        let mut config = config();
        config["prevResult"] = results[number].clone();
        site.node.run("CHECK", &pods[number], &config, &[])
    };
    for to in ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.1:81"] {
        assert!(ask(&site.client, to).unwrap().starts_with("new "), "{to}");
        assert!(ask(&pods[1].netns, to).unwrap().starts_with("new "), "{to}");
    }
    assert_eq!(ask(&site.node.netns, "127.0.0.1:80").unwrap(), "new 10.244.1.1");
    let outcome = check(1);
    assert!(outcome.success, "{outcome:?}");
    // The configuration may have changed since: DEL finds the rules all the same.
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(check(1).error().0, 104);
    assert!(check(0).success);
    assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "old 192.0.2.2");
    assert!(site.node.gc(&[]).success);
    let ruleset = rules(&site.node.netns);
    assert!(!ruleset.contains("WEFT"), "{ruleset}");
}

/// A client that sent before the pod was there, and goes on, reaches it; and the next pod after it.
#[test]
fn section_8_udp_flows_follow_the_rules() {
    let site = Site::new();
    let socket = udp(&site.client, NOT_LONG);
    // Something else that is translated, so that conntrack is on.
    let earlier = Pod::new("earlier");
    site.add(&earlier, json!([mapping(54, "udp", "")]));
    assert_eq!(ask_udp(&socket, "192.0.2.1:53"), None);
    for name in ["first", "second"] {
        let pod = Pod::new(name);
        site.add(&pod, json!([mapping(53, "udp", "")]));
        serve(&pod);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(ask_udp(&socket, "192.0.2.1:53").unwrap(), format!("{name} 192.0.2.2"));
        assert!(site.node.del(&pod).success);
        socket.set_read_timeout(Some(NOT_LONG)).unwrap();
        assert_eq!(ask_udp(&socket, "192.0.2.1:53"), None);
    }
}

#[test]
fn section_8_c1_check_looks_at_the_rules() {
    let site = Site::new();
    let pod = Pod::new("web");
    let mappings = json!([mapping(80, "tcp", "")]);
    let mut result = site.add(&pod, mappings.clone());
    let damages = [
        "delete element inet weft-hostports any4 { tcp . 80 }",
        "delete element inet weft-hostports hairpin6 { fd44:0:0:1::2 . fd44:0:0:1::2 . tcp . 8080 }",
        "delete element inet weft-hostports claims6 { :: . tcp . 80 . fd44:0:0:1::2 . 8080 }",
        "flush chain inet weft-hostports prerouting",
        "flush table inet weft-hostports",
        "delete table inet weft-hostports",
    ];
    for (number, damage) in damages.iter().enumerate() {
        assert!(site.check(&pod, mappings.clone(), &result).success, "{damage}");
        let nft = || Command::new("nft").arg(damage).output().unwrap();
        let output = site.node.netns.run(nft).unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(site.check(&pod, mappings.clone(), &result).error().0, 104, "{damage}");
        // Whichever pod comes next repairs what is there for all: all but what has lost its claim.
        let next = Pod::new(&format!("next{number}"));
        site.add(&next, json!([mapping(81, "tcp", "")]));
        let lost_claim = damage.contains("claims") || damage.starts_with("delete table");
        assert_eq!(site.check(&pod, mappings.clone(), &result).success, !lost_claim, "{damage}");
        assert!(site.node.del(&next).success);
        if lost_claim {
            assert!(site.node.del(&pod).success);
            result = site.node.run("ADD", &pod, &site.config_at(&result, &mappings), &[]).result();
        }
    }
    let parameter = format!("net/ipv4/conf/{}/route_localnet", result["interfaces"][0]["name"].as_str().unwrap());
    assert!(site.check(&pod, mappings.clone(), &result).success);
    site.node.netns.run(|| sysctl::set(&parameter, "0").unwrap()).unwrap();
    let (code, message) = site.check(&pod, mappings, &result).error();
    assert!(code == 104 && message.contains("route_localnet"), "{message}");
}

impl Site {
    /// For the pod to get the addresses it had.
    fn config_at(&self, result: &Value, mappings: &Value) -> Value {
        let runtime = json!({"portMappings": mappings, "ips": addresses(result)});
        self.node.config_with("1.0.0", json!({"runtimeConfig": runtime}))
    }
}

#[test]
fn section_8_g2_gc_removes_the_ports_of_pods_that_are_gone() {
    let site = Site::new();
    let pods = [Pod::new("kept"), Pod::new("gone")];
    for (pod, port) in pods.iter().zip([80, 81]) {
        site.add(pod, json!([mapping(port, "tcp", "")]));
        serve(pod);
    }
    let mut other = site.config(json!([mapping(82, "tcp", "")]));
    other["name"] = json!("other");
    site.node.run("ADD", &pods[1], &other, &[("CNI_IFNAME", "net1")]).result();
    assert!(site.node.gc(&[("kept", "eth0")]).success);
    assert!(ask(&site.client, "192.0.2.1:80").is_some());
    let ruleset = rules(&site.node.netns);
    assert!(!ruleset.contains("tcp . 81") && ruleset.contains("tcp . 82"), "{ruleset}");
}

#[test]
fn section_8_mistakes_are_refused_and_undone_and_do_not_hinder_del() {
    let site = Site::new();
    let pod = Pod::new("web");
    for mappings in [json!([mapping(0, "tcp", "")]), json!([mapping(80, "icmp", "")]), json!(7)] {
        let config = site.config(mappings);
        assert!(matches!(site.node.run("ADD", &pod, &config, &[]).error().0, 6 | 7));
        assert_nothing_left(&site);
        assert!(site.node.run("DEL", &pod, &config, &[]).success);
    }
    for mappings in [json!(null), json!([])] {
        site.add(&pod, mappings);
        assert_eq!(rules(&site.node.netns), "");
        assert!(site.node.del(&pod).success);
    }
}

/// route_localnet does not open what listens on 127.0.0.1 to the pod.
#[test]
fn section_8_pods_do_not_reach_loopback_addresses_of_the_node() {
    let site = Site::new();
    let pod = Pod::new("web");
    site.add(&pod, json!([mapping(80, "udp", "")]));
    let listening = site.node.netns.run(|| UdpSocket::bind("127.0.0.1:9").unwrap()).unwrap();
    listening.set_read_timeout(Some(NOT_LONG)).unwrap();
    let netlink = pod.netlink();
    let eth0 = netlink.link_by_name("eth0").unwrap().map(|link| link.index);
    let gateway: IpAddr = "10.244.1.1".parse().unwrap();
    // What a pod can send that may make its own packets.
    pod.netns
        .run(|| {
            sysctl::set("net/ipv4/conf/all/route_localnet", "1").unwrap();
            for arguments in [
                ["rule", "add", "pref", "0", "to", "127.0.0.1", "lookup", "100"].as_slice(),
                &["rule", "add", "pref", "1", "lookup", "local"],
                &["rule", "del", "pref", "0", "lookup", "local"],
            ] {
                assert!(Command::new("ip").args(arguments).status().unwrap().success());
            }
        })
        .unwrap();
    let route = Route { gateway: Some(gateway), link: eth0, table: 100, ..Route::new("127.0.0.0/8".parse().unwrap()) };
    netlink.replace_route(&route).unwrap();
    let socket = pod.netns.run(|| UdpSocket::bind("10.244.1.2:0").unwrap()).unwrap();
    let received = |socket: &UdpSocket| {
        socket.send_to(b"secret", "127.0.0.1:9").unwrap();
        listening.recv(&mut [0; 16]).is_ok()
    };
    assert!(!received(&socket));
    // The packets do arrive at the node: without our guard they are taken.
    let open = || Command::new("nft").args(["flush", "chain", "inet", "weft-hostports", "input"]).status().unwrap();
    assert!(site.node.netns.run(open).unwrap().success());
    assert!(received(&socket));
}
