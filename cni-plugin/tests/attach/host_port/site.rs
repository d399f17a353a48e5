//! A node with a client outside, pods that serve, and who asks them.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use weft_netlink::{AddressOptions, Netlink, Netns, Route, VethSpec};

use crate::kit::{Node, Outcome, Pod, addresses};

/// Enough for what arrives, and not long for what does not.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const NOT_LONG: Duration = Duration::from_millis(200);

/// Addresses of the node on the wire to the client.
pub(super) const NODE4: &str = "192.0.2.1";
const NODE6: &str = "2001:db8::1";

/// A node and a client on one wire.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(super) client: Netns,
}

impl Site {
    pub(crate) fn new() -> Self {
        let (node, client) = (Node::dual_stack(), Netns::create().unwrap());
        let (here, there) = (node.netlink(), client.run(Netlink::open).unwrap().unwrap());
        let spec = VethSpec {
            name: "wan0",
            peer_name: "wan0",
            peer_netns: Some(client.as_fd()),
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

    pub(super) fn add(&self, pod: &Pod, mappings: Value) -> Value {
        self.node.run("ADD", pod, &self.config(mappings), &[]).result()
    }

    pub(super) fn check(&self, pod: &Pod, mappings: Value, result: &Value) -> Outcome {
        let mut config = self.config(mappings);
        config["prevResult"] = result.clone();
        self.node.run("CHECK", pod, &config, &[])
    }

    /// For the pod to get the addresses it had.
    pub(super) fn config_at(&self, result: &Value, mappings: &Value) -> Value {
        let runtime = json!({"portMappings": mappings, "ips": addresses(result)});
        self.node.config_with("1.0.0", json!({"runtimeConfig": runtime}))
    }
}

pub(crate) fn mapping(port: u16, protocol: &str, host: &str) -> Value {
    json!({"HostPort": port, "ContainerPort": 8080, "Protocol": protocol, "HostIP": host})
}

/// A pod that answers on TCP and UDP port 8080, both families, with its name and the client's address.
pub(super) fn serve(pod: &Pod) {
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
pub(super) fn ask(client: &Netns, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Some(text)
}

/// The same by UDP, from a socket of the client's.
pub(super) fn ask_udp(socket: &UdpSocket, to: &str) -> Option<String> {
    socket.send_to(b"who?", to).ok()?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(super) fn udp(netns: &Netns, patience: Duration) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// What a program prints that is run in a namespace, without a shell: words, separated by single spaces.
pub(crate) fn tool(netns: &Netns, words: &str) -> String {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = netns.run(|| command.args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All rules there are, but for those of iptables-legacy.
pub(crate) fn rules(netns: &Netns) -> String {
    tool(netns, "nft list ruleset")
}

pub(super) fn assert_nothing_left(site: &Site) {
    assert_eq!(rules(&site.node.netns), "");
    assert!(site.node.reserved().is_empty());
    assert_no_records(&site.node);
}

/// Nothing is written of any host port.
pub(crate) fn assert_no_records(node: &Node) {
    let Ok(listing) = fs::read_dir(node.directory().join("networks/.hostports")) else { return };
    let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.contains(':'));
    assert!(names.is_empty(), "{names:?}");
}
