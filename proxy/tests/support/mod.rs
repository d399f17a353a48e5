//! A node with one client outside and three pods, in namespaces without names, and servers in the pods.
//!
//! ```text
//! client 192.0.2.2 -- 192.0.2.1 node 10.244.1.1 -- 10.244.1.2, .3, .4 pods
//! 2001:db8::2 -- 2001:db8::1 node fd44::1 -- fd44::2, ::3, ::4
//! ```
//! The namespaces go away with the last descriptor, so nothing is left after a panic either.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use weft_netlink::{AddressOptions, Netlink, Netns, NetnsGuard, Route, VethSpec, sysctl};

/// Port the servers in the pods listen on, TCP and UDP.
pub const SERVER_PORT: u16 = 8080;

/// Longer than anything takes on a busy machine; only a packet that was dropped takes this long.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The namespaces, and the servers in them.
pub struct Net {
    /// Shared, so that clients can run while the node is changed.
    pub client: Arc<Netns>,
    pub node: Netns,
    pub pods: Netns,
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

impl Net {
    pub fn new() -> Self {
        let [client, node, pods] = [(); 3].map(|()| Netns::create().expect("create a namespace; are we root?"));
        connect(&node, "client0", &["192.0.2.1/24", "2001:db8::1/64"], &client, &["192.0.2.2/24", "2001:db8::2/64"]);
        let pod_addresses =
            ["10.244.1.2/24", "10.244.1.3/24", "10.244.1.4/24", "fd44::2/64", "fd44::3/64", "fd44::4/64"];
        connect(&node, "pods0", &["10.244.1.1/24", "fd44::1/64"], &pods, &pod_addresses);
        node.run(|| {
            sysctl::set("net/ipv4/ip_forward", "1").unwrap();
            sysctl::set("net/ipv6/conf/all/forwarding", "1").unwrap();
            // A packet to a VIP leaves by where it came from: redirects would use up what ICMP errors the kernel allows.
            for key in [
                "ipv4/conf/all/send_redirects",
                "ipv4/conf/client0/send_redirects",
                "ipv4/icmp_ratelimit",
                "ipv6/icmp/ratelimit",
            ] {
                sysctl::set(&format!("net/{key}"), "0").unwrap();
            }
        })
        .unwrap();
        default_routes(&client, ["192.0.2.1", "2001:db8::1"]);
        // As on a real node, a VIP has a way to go even when nothing translates it.
        default_routes(&node, ["192.0.2.2", "2001:db8::2"]);
        default_routes(&pods, ["10.244.1.1", "fd44::1"]);
        let mut net = Self { client: Arc::new(client), node, pods, stop: Arc::default(), servers: Vec::new() };
        for address in pod_addresses {
            let address = address.split('/').next().unwrap().parse().unwrap();
            net.serve(SocketAddr::new(address, SERVER_PORT));
        }
        net
    }

    /// Starts a TCP and a UDP server that answer with their own address and the client's.
    fn serve(&mut self, at: SocketAddr) {
        let (listener, udp) = self.pods.run(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap())).unwrap();
        let stop = Arc::clone(&self.stop);
        self.servers.push(thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ =
                    stream.and_then(|mut s| s.peer_addr().and_then(|peer| s.write_all(answer(at, peer).as_bytes())));
            }
        }));
        let stop = Arc::clone(&self.stop);
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        self.servers.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut [0; 16]) {
                    let _ = udp.send_to(answer(at, peer).as_bytes(), peer);
                }
            }
        }));
    }

    /// Runs nft on the node and returns what it prints.
    pub fn nft(&self, arguments: &str) -> String {
        let output = self.node.run(|| Command::new("nft").args(arguments.split(' ')).output().unwrap()).unwrap();
        assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the TCP servers.
        let _ = self.pods.run(|| {
            for last in 2..5 {
                let _ = TcpStream::connect((IpAddr::from([10, 244, 1, last]), SERVER_PORT));
                let _ = TcpStream::connect((IpAddr::from([0xfd44, 0, 0, 0, 0, 0, 0, u16::from(last)]), SERVER_PORT));
            }
        });
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
    }
}

fn answer(at: SocketAddr, peer: SocketAddr) -> String {
    format!("{} {} {}", at.ip(), peer.ip(), peer.port())
}

/// Which pod answered, and whom it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub pod: IpAddr,
    pub source: IpAddr,
    pub source_port: u16,
}

fn parse(text: &str) -> io::Result<Answer> {
    let mut words = text.split(' ');
    let mut read = || -> Option<Answer> {
        let (pod, source, port) = (words.next()?, words.next()?, words.next()?);
        Some(Answer { pod: pod.parse().ok()?, source: source.parse().ok()?, source_port: port.parse().ok()? })
    };
    let parsed = read();
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer but {text:?}")))
}

/// One TCP connection from the calling thread's namespace.
pub fn ask_tcp(to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text)
}

/// One UDP question from a fresh socket bound to `from`, from the calling thread's namespace.
pub fn ask_udp(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    parse(&String::from_utf8_lossy(&buffer[..length]))
}

/// A UDP source no other call of this process has: two sockets with the same port within 30 s are one flow to conntrack,
/// which leads both to the same endpoint.
pub fn fresh_udp_source(to: SocketAddr) -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    SocketAddr::new(any, PORT.fetch_add(1, Ordering::Relaxed))
}

/// Connects from `client` to `target`, four clients at a time, while for three seconds `change` does what may be done without
/// a failed connection.
pub fn assert_no_connection_fails(client: &Netns, target: SocketAddr, mut change: impl FnMut()) {
    let (stop, connected) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = || {
        let _netns = enter(client);
        let mut failed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match ask_tcp(target, PATIENCE) {
                Ok(_) => drop(connected.fetch_add(1, Ordering::Relaxed)),
                Err(error) => failed.push(error),
            }
        }
        failed
    };
    let failed: Vec<io::Error> = thread::scope(|scope| {
        let clients = [(); 4].map(|()| scope.spawn(load));
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            change();
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert!(connected.into_inner() > 100);
}

/// Puts the calling thread into a namespace.
pub fn enter(netns: &Netns) -> NetnsGuard {
    NetnsGuard::enter(netns).unwrap()
}

fn connect(here: &Netns, name: &str, addresses: &[&str], there: &Netns, peer_addresses: &[&str]) {
    let spec =
        VethSpec { name, peer_name: "eth0", peer_netns: Some(there.as_fd()), mtu: None, mac: None, peer_mac: None };
    here.run(|| Netlink::open().unwrap().create_veth(&spec).unwrap()).unwrap();
    for (netns, link, addresses) in [(here, name, addresses), (there, "eth0", peer_addresses)] {
        netns.run(|| set_up(link, addresses)).unwrap();
    }
}

fn set_up(link: &str, addresses: &[&str]) {
    let netlink = Netlink::open().unwrap();
    let link = netlink.link_by_name(link).unwrap().unwrap().index;
    for address in addresses {
        let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
        netlink.replace_address(link, address.parse().unwrap(), options).unwrap();
    }
    netlink.set_up(link).unwrap();
    let loopback = netlink.link_by_name("lo").unwrap().unwrap().index;
    netlink.set_up(loopback).unwrap();
}

fn default_routes(netns: &Netns, gateways: [&str; 2]) {
    netns
        .run(|| {
            let netlink = Netlink::open().unwrap();
            for (destination, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(gateways) {
                let mut route = Route::new(destination.parse().unwrap());
                route.gateway = Some(gateway.parse().unwrap());
                netlink.replace_route(&route).unwrap();
            }
        })
        .unwrap();
}
