//! Somebody deletes each kind of object while packets flow: it is back within a second, and others' packets do not notice.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use weft_netlink::Netns;

use crate::{
    REPAIR,
    cluster::{Cluster, Node, shell, until},
};

/// How soon everything is back, from before the sabotage until a packet and its answer went the way again. The median of three
/// times counts: once, the machine may have been busy with other tests.
const SOON: Duration = Duration::from_secs(1);

/// Time between two packets of a stream.
const EVERY: Duration = Duration::from_millis(2);

/// Numbered packets to an echo, one after the other; stopped and counted by [`Stream::end`].
struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<bool>>,
    _echo: Echo,
}

/// Answers every packet until it is dropped.
struct Echo {
    stop: Arc<AtomicBool>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn echo(netns: &Netns, address: IpAddr) -> (Echo, SocketAddr) {
    let socket = netns.run(|| UdpSocket::bind((address, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let target = socket.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        let mut data = [0; 8];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut data) {
                let _ = socket.send_to(&data[..length], from);
            }
        }
    });
    (Echo { stop }, target)
}

impl Stream {
    /// From a pod to another.
    fn start(from: &Netns, to: &Netns, address: IpAddr) -> Self {
        let (echo, target) = echo(to, address);
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = from.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut answered = Vec::new();
            let mut data = [0; 8];
            let mut grace = 100;
            loop {
                let sending = !stopped.load(Ordering::Relaxed);
                if sending {
                    // What cannot even be sent is not answered.
                    let _ = socket.send_to(&answered.len().to_be_bytes(), target);
                    answered.push(false);
                } else if grace == 0 || answered.iter().all(|answered| *answered) {
                    return answered;
                } else {
                    grace -= 1;
                }
                thread::sleep(EVERY);
                loop {
                    match socket.recv_from(&mut data) {
                        Ok(_) => answered[usize::from_be_bytes(data)] = true,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        // Told by an earlier packet: no route.
                        Err(_) => {}
                    }
                }
            }
        });
        Self { stop, sender, _echo: echo }
    }

    /// How many packets were sent, and how many were lost.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let answered = self.sender.join().unwrap();
        (answered.len(), answered.iter().filter(|answered| !**answered).count())
    }
}

/// Three nodes, with a pod of each family on each; streams from the first to the other two.
struct Field {
    nodes: [Node; 3],
    /// By family, then by node.
    pods: [[(IpAddr, Netns); 3]; 2],
    _cluster: Cluster,
}

impl Field {
    fn new(conf: &str) -> Self {
        let cluster = Cluster::new();
        let nodes = [1, 2, 3].map(|number| cluster.node(number, conf));
        nodes.iter().for_each(|node| node.until_peers(2));
        let addresses =
            [["10.244.1.5", "10.244.2.5", "10.244.3.5"], ["fd44:0:0:1::6", "fd44:0:0:2::6", "fd44:0:0:3::6"]];
        let pods = addresses.map(|family| {
            let mut nodes = nodes.iter();
            family.map(|address| {
                let address = address.parse().unwrap();
                (address, nodes.next().unwrap().pod(address))
            })
        });
        let field = Self { nodes, pods, _cluster: cluster };
        for family in 0..2 {
            for node in [1, 2] {
                until(Duration::from_secs(4), || field.once(family, node));
            }
        }
        field
    }

    fn once(&self, family: usize, node: usize) -> Result<(), String> {
        let stream = self.stream(family, node);
        thread::sleep(EVERY * 5);
        match stream.end() {
            (sent, lost) if sent > 0 && lost == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn stream(&self, family: usize, node: usize) -> Stream {
        let (address, pod) = &self.pods[family][node];
        Stream::start(&self.pods[family][0].1, pod, *address)
    }

    /// Does `sabotage` under traffic, again and again until two times of three were soon (then their median is), or were not.
    /// `reached` tells what must work again, `undisturbed` whose packets must not be lost meanwhile: by family and node.
    fn assert_repaired(&self, sabotage: &str, reached: (usize, usize), undisturbed: &[(usize, usize)]) {
        let mut took = Vec::new();
        let soon = |took: &[Duration]| took.iter().filter(|took| **took < SOON).count();
        while soon(&took) < 2 && took.len() - soon(&took) < 2 {
            let streams: Vec<_> = undisturbed.iter().map(|(family, node)| self.stream(*family, *node)).collect();
            took.push(self.repair(sabotage, reached));
            for ((family, node), stream) in undisturbed.iter().zip(streams) {
                assert_eq!(stream.end().1, 0, "{sabotage}: packets of family {family} to node {node}");
            }
        }
        eprintln!("repaired after {took:?}: {sabotage}");
        assert!(soon(&took) == 2, "{sabotage}: {took:?}");
    }

    /// How long it takes until a repair was counted and a packet of a family and its answer came through.
    fn repair(&self, sabotage: &str, (family, node): (usize, usize)) -> Duration {
        let repairs = self.nodes[0].status().repairs;
        let begin = Instant::now();
        assert_eq!(shell(&self.nodes[0].netns, sabotage), "", "{sabotage}");
        until(REPAIR * 3, || match self.nodes[0].status().repairs {
            counted if counted > repairs => self.once(family, node),
            counted => Err(format!("{sabotage}: {counted} repairs")),
        });
        begin.elapsed()
    }
}

/// Streams of both families to node 3, while what serves node 2 is attacked.
const TO_ANOTHER_PEER: [(usize, usize); 2] = [(0, 2), (1, 2)];

const CONF: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48","EnableNFTables":MODE}"#;

#[test]
fn what_belongs_to_one_peer_is_repaired_and_no_packet_of_another_is_lost() {
    let field = Field::new(&CONF.replace("MODE", "true"));
    let status = field.nodes[1].status();
    let macs = [status.ipv4.vtep_mac.unwrap(), status.ipv6.unwrap().vtep_mac.unwrap()];
    for (family, (flag, device, subnet, vtep, public)) in [
        ("-4", "flannel.1", "10.244.2.0/24", "10.244.2.0", "172.30.0.2"),
        ("-6", "flannel-v6.1", "fd44:0:0:2::/64", "fd44:0:0:2::", "fd99::2"),
    ]
    .into_iter()
    .enumerate()
    {
        let mac = &macs[family];
        for sabotage in [
            format!("ip {flag} route delete {subnet}"),
            format!("ip {flag} neigh delete {vtep} dev {device}"),
            format!("bridge fdb delete {mac} dev {device} dst {public} self"),
            format!("ip {flag} neigh replace {vtep} lladdr 02:00:00:00:00:99 dev {device} nud permanent"),
            format!("bridge fdb replace {mac} dev {device} dst {public}0 self permanent"),
        ] {
            field.assert_repaired(&sabotage, (family, 1), &TO_ANOTHER_PEER);
        }
    }
}

#[test]
fn what_all_peers_share_is_repaired_within_a_second() {
    let field = Field::new(&CONF.replace("MODE", "true"));
    for (family, device, address) in [(0, "flannel.1", "10.244.1.0/32"), (1, "flannel-v6.1", "fd44:0:0:1::/128")] {
        for sabotage in [
            format!("ip address delete {address} dev {device}"),
            format!("ip link set {device} down"),
            format!("ip link delete {device}"),
            format!("ip link set {device} mtu 1300"),
        ] {
            // The other family has a device of its own.
            field.assert_repaired(&sabotage, (family, 1), &[(1 - family, 1)]);
        }
    }
}

#[test]
fn packet_rules_are_repaired_and_no_pods_packet_is_lost() {
    for (nftables, sabotages) in [
        (true, &["nft delete table inet weft-overlay", "nft flush ruleset"][..]),
        (
            false,
            &[
                "iptables -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
                "ip6tables -D FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
                "iptables -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
                "ip6tables -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
                "printf '*nat\\nCOMMIT\\n' | ip6tables-restore",
            ][..],
        ),
    ] {
        let field = Field::new(&CONF.replace("MODE", if nftables { "true" } else { "false" }));
        for sabotage in sabotages {
            field.assert_repaired(sabotage, (0, 1), &TO_ANOTHER_PEER);
        }
    }
}
