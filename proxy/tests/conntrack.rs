//! Conntrack in a real kernel: flows of UDP clients through DNAT, of which exactly the stale ones are deleted.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

#[expect(unreachable_pub, dead_code, reason = "shared with the tests of the data planes, which use more of it")]
mod support;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use support::{Net, PATIENCE, SERVER_PORT, ask_tcp};
use weft_netlink::{Conntrack, Family, Listing, Netns, sysctl};
use weft_proxy::{
    conntrack::{self, ConntrackParameters},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Frontend, PlanKey, UdpFlows},
};

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Everything to the VIPs and node ports of a family goes to one pod.
fn rules(pods: [&str; 2]) -> String {
    let [v4, v6] = pods;
    format!(
        "table ip s {{
            chain pre {{
                type nat hook prerouting priority -100
                ip daddr 10.96.0.10 meta l4proto {{ tcp, udp }} th dport 53 dnat to {v4}:{SERVER_PORT}
                ip daddr 192.0.2.1 udp dport 30053 dnat to {v4}:{SERVER_PORT}
            }}
        }}
        table ip6 s {{
            chain pre {{
                type nat hook prerouting priority -100
                ip6 daddr fd96::10 udp dport 53 dnat to [{v6}]:{SERVER_PORT}
            }}
        }}"
    )
}

struct World {
    net: Net,
}

impl World {
    fn new() -> Self {
        Self { net: Net::new() }
    }

    /// Sends what comes from now on to these pods.
    fn route_to(&self, pods: [&str; 2]) {
        for family in ["ip", "ip6"] {
            self.net.nft(&format!("add table {family} s"));
            self.net.nft(&format!("delete table {family} s"));
        }
        let rules = rules(pods);
        let added = self.net.node.run(|| Command::new("nft").arg(rules).output().unwrap()).unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }

    /// A client that keeps its port, so that all it sends is one flow.
    fn client(&self, to: &str) -> Client {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.net.client.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        socket.connect(to).unwrap();
        Client(socket)
    }

    fn clean_up(&self, family: IpFamily, flows: &[UdpFlows<'_>]) -> usize {
        let work = || conntrack::clean_up(&mut Conntrack::open().unwrap(), family, flows.iter().copied()).unwrap();
        let cleaned = self.net.node.run(work).unwrap();
        assert!(cleaned.failed.is_empty(), "{:?}", cleaned.failed);
        assert_eq!(cleaned.listing, Listing::Complete);
        cleaned.deleted
    }

    fn entries(&self, family: Family, protocol: u8) -> usize {
        let mut count = 0;
        let list = || Conntrack::open().unwrap().for_each(family, protocol, |_| count += 1).unwrap();
        self.net.node.run(list).unwrap();
        count
    }
}

struct Client(UdpSocket);

impl Client {
    /// Which pod answers.
    fn ask(&self, patience: Duration) -> io::Result<String> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.send(b"?")?;
        let mut buffer = [0; 128];
        let length = self.0.recv(&mut buffer)?;
        let answer = String::from_utf8_lossy(&buffer[..length]);
        Ok(answer.split(' ').next().unwrap().to_owned())
    }

    fn served_by(&self) -> String {
        self.ask(PATIENCE).unwrap()
    }

    /// Sends what nobody will answer.
    fn call_in_vain(&self) {
        let _ = self.ask(Duration::from_millis(100));
    }
}

fn key(family: IpFamily) -> PlanKey {
    let service = ServiceName::new("default", "dns");
    PlanKey { port: ServicePortName { service, port: "".into(), protocol: Protocol::Udp }, family }
}

#[test]
fn stale_flows_move_to_a_serving_endpoint_and_others_stay() {
    let world = World::new();
    let frontends = [Frontend::ClusterIp("10.96.0.10:53".parse().unwrap()), Frontend::NodePort(30053)];
    let serving = |pod: &str| [SocketAddr::new(pod.parse().unwrap(), SERVER_PORT)];

    world.route_to(["10.244.1.3", "fd44::3"]);
    let kept = world.client("10.96.0.10:53");
    assert_eq!(kept.served_by(), "10.244.1.3");

    world.route_to(["10.244.1.2", "fd44::2"]);
    let [stale, at_node_port, in_ipv6] =
        ["10.96.0.10:53", "192.0.2.1:30053", "[fd96::10]:53"].map(|to| world.client(to));
    assert_eq!([&stale, &at_node_port, &in_ipv6].map(Client::served_by), ["10.244.1.2", "10.244.1.2", "fd44::2"]);
    let direct = world.client("10.244.1.2:8080");
    assert_eq!(direct.served_by(), "10.244.1.2");
    world.net.client.run(|| ask_tcp("10.96.0.10:53".parse().unwrap(), PATIENCE).unwrap()).unwrap();

    // The endpoint .2 goes; the rules change, and conntrack does not know of it.
    world.route_to(["10.244.1.3", "fd44::3"]);
    assert_eq!(stale.served_by(), "10.244.1.2");
    let before = world.entries(Family::V4, UDP);
    let tcp_before = world.entries(Family::V4, TCP);
    assert!(tcp_before > 0);

    // 10.6: as long as nobody serves, nothing happens.
    let key = key(IpFamily::V4);
    assert_eq!(world.clean_up(IpFamily::V4, &[UdpFlows { key: &key, frontends: &frontends, serving: &[] }]), 0);

    let now = serving("10.244.1.3");
    let flows = [UdpFlows { key: &key, frontends: &frontends, serving: &now }];
    assert_eq!(world.clean_up(IpFamily::V4, &flows), 2);
    assert_eq!(world.entries(Family::V4, UDP), before - 2);
    assert_eq!(world.entries(Family::V4, TCP), tcp_before);
    // Of the other family nothing was touched.
    assert_eq!(in_ipv6.served_by(), "fd44::2");
    assert_eq!([&stale, &at_node_port, &kept].map(Client::served_by), ["10.244.1.3"; 3]);
    assert_eq!(direct.served_by(), "10.244.1.2");
    assert_eq!(world.clean_up(IpFamily::V4, &flows), 0);

    let (frontends, now) = ([Frontend::ClusterIp("[fd96::10]:53".parse().unwrap())], serving("fd44::3"));
    let key = self::key(IpFamily::V6);
    let flows = [UdpFlows { key: &key, frontends: &frontends, serving: &now }];
    assert_eq!(world.clean_up(IpFamily::V6, &flows), 1);
    assert_eq!(in_ipv6.served_by(), "fd44::3");
}

#[test]
fn rules_9_5_and_10_5_a_flow_from_before_the_first_endpoint_is_freed() {
    let world = World::new();
    world.route_to(["10.244.1.2", "fd44::2"]);
    let early = world.client("10.96.0.11:53");
    early.call_in_vain();
    world.net.nft("add rule ip s pre ip daddr 10.96.0.11 udp dport 53 dnat to 10.244.1.2:8080");
    // The kernel goes by what it decided at the first packet.
    early.call_in_vain();

    let frontends = [Frontend::ClusterIp("10.96.0.11:53".parse().unwrap())];
    let now = [SocketAddr::new("10.244.1.2".parse().unwrap(), SERVER_PORT)];
    let key = key(IpFamily::V4);
    let deleted = world.clean_up(IpFamily::V4, &[UdpFlows { key: &key, frontends: &frontends, serving: &now }]);
    assert_eq!(deleted, 1);
    assert_eq!(early.served_by(), "10.244.1.2");
}

#[test]
fn rule_10_10_parameters_are_written_where_they_differ() {
    let netns = Netns::create().unwrap();
    let asked = ConntrackParameters {
        // The size of the table is the machine's, so it is left alone.
        max_per_core: 0,
        tcp_established_timeout: Duration::from_secs(7777),
        tcp_close_wait_timeout: Duration::ZERO,
        tcp_be_liberal: true,
        udp_timeout: Duration::from_secs(11),
        ..ConntrackParameters::default()
    };
    netns
        .run(|| {
            let settings = conntrack::settings(&asked, conntrack::online_cpus());
            let close_wait = sysctl::get("net/netfilter/nf_conntrack_tcp_timeout_close_wait").unwrap();
            assert_eq!(conntrack::apply(&settings).unwrap(), settings);
            for (name, value) in [
                ("tcp_timeout_established", "7777"),
                ("tcp_timeout_close_wait", close_wait.as_str()),
                ("tcp_be_liberal", "1"),
                ("udp_timeout", "11"),
            ] {
                assert_eq!(sysctl::get(&format!("net/netfilter/nf_conntrack_{name}")).unwrap(), value, "{name}");
            }
            assert_eq!(conntrack::apply(&settings).unwrap(), []);
        })
        .unwrap();
}
