//! The nftables data plane in a real kernel: a client outside, a node, pods, and real connections.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
mod support;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{Answer, Net, PATIENCE, SERVER_PORT, ask_tcp, ask_udp, enter, fresh_udp_source};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    nftables::{Nftables, PacketScope},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

/// A node that runs the data plane.
struct Node {
    net: Net,
    plane: Nftables,
    desired: Desired,
}

const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const NODE_PORT: u16 = 30080;

impl Node {
    fn new(scope: PacketScope) -> Self {
        let node_port_addresses = NODE.map(|a| a.parse().unwrap()).into();
        let desired = Desired { node_port_addresses, ..Desired::default() };
        let mut node = Self { net: Net::new(), plane: Nftables::new(scope), desired };
        node.apply(&Changed::Everything);
        node
    }

    fn apply(&mut self, changed: &Changed) {
        let Self { net, plane, desired } = self;
        net.node.run(|| plane.apply(desired, changed).unwrap()).unwrap();
    }

    fn put(&mut self, plan: &ServicePortPlan) {
        self.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        self.apply(&Changed::Ports(vec![plan.key.clone()]));
    }

    /// Asks from the client outside.
    fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Answer> {
        self.net.client.run(|| ask(protocol, to, PATIENCE)).unwrap()
    }

    fn is_intact(&mut self) -> bool {
        let Self { net, plane, .. } = self;
        net.node.run(|| plane.is_intact().unwrap()).unwrap()
    }

    fn connections(&mut self, key: &PlanKey) -> Vec<u64> {
        let Self { net, plane, .. } = self;
        let connections = net.node.run(|| plane.connections(key).unwrap()).unwrap();
        connections.iter().map(|c| c.connections).collect()
    }
}

fn ask(protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    match protocol {
        Protocol::Udp => ask_udp(fresh_udp_source(to), to, patience),
        _ => ask_tcp(to, patience),
    }
}

const ALL: [(Protocol, IpFamily); 4] = [
    (Protocol::Tcp, IpFamily::V4),
    (Protocol::Udp, IpFamily::V4),
    (Protocol::Tcp, IpFamily::V6),
    (Protocol::Udp, IpFamily::V6),
];

/// `default/web` on NodePort 30080, with the pods 2, 3, 4 or some of them.
fn web(protocol: Protocol, family: IpFamily, pods: &[u8]) -> ServicePortPlan {
    let endpoint = |last: &u8| Endpoint { address: pod(family, *last), port: SERVER_PORT, local: true };
    let outcome = Outcome::Endpoints(pods.iter().map(endpoint).collect());
    let service = ServiceName::new("default", "web");
    ServicePortPlan {
        key: PlanKey { port: ServicePortName { service, port: "".into(), protocol }, family },
        frontends: vec![Frontend::NodePort(NODE_PORT)],
        internal: outcome.clone(),
        external: outcome.clone(),
        external_from_node: outcome,
        masquerade_external: true,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

fn pod(family: IpFamily, last: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [10, 244, 1, last].into(),
        IpFamily::V6 => [0xfd44, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

fn pick<T>(family: IpFamily, [v4, v6]: [T; 2]) -> T {
    match family {
        IpFamily::V4 => v4,
        IpFamily::V6 => v6,
    }
}

fn node_port(family: IpFamily) -> SocketAddr {
    SocketAddr::new(pick(family, NODE).parse().unwrap(), NODE_PORT)
}

/// An address that is on no interface; the client's packets to it reach the node.
fn vip(family: IpFamily) -> SocketAddr {
    pick(family, ["198.51.100.7:80", "[2001:db8:7::7]:80"]).parse().unwrap()
}

#[test]
fn node_port_is_in_exact_round_robin_for_four_clients_at_once() {
    let mut node = Node::new(PacketScope::External);
    for (protocol, family) in ALL {
        let plan = web(protocol, family, &[2, 3, 4]);
        node.put(&plan);
        let mut answers: BTreeMap<IpAddr, u32> = BTreeMap::new();
        let pods: Vec<IpAddr> = thread::scope(|scope| {
            let client = || {
                let _netns = enter(&node.net.client);
                let answer = |_| ask(protocol, node_port(family), PATIENCE).unwrap().pod;
                (0..150).map(answer).collect::<Vec<_>>()
            };
            let clients = [(); 4].map(|()| scope.spawn(client));
            clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        for pod in pods {
            *answers.entry(pod).or_default() += 1;
        }
        assert_eq!(answers, [2, 3, 4].map(|last| (pod(family, last), 200)).into(), "{protocol} {family}");
        assert_eq!(node.connections(&plan.key), [200, 200, 200], "{protocol} {family}");
    }
}

#[test]
fn the_pod_sees_the_node_if_masqueraded_and_the_client_if_not() {
    let mut node = Node::new(PacketScope::External);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2]);
        for (masquerade, source) in [(true, ["10.244.1.1", "fd44::1"]), (false, ["192.0.2.2", "2001:db8::2"])] {
            plan.masquerade_external = masquerade;
            node.put(&plan);
            let answer = node.ask(protocol, node_port(family)).unwrap();
            assert_eq!(answer.source.to_string(), pick(family, source), "{protocol} {family} {masquerade}");
        }
    }
}

#[test]
fn external_ip_and_load_balancer_address_are_balanced_too() {
    let mut node = Node::new(PacketScope::External);
    for (protocol, family) in ALL {
        for frontend in [Frontend::ExternalIp(vip(family)), Frontend::LoadBalancer(vip(family))] {
            let mut plan = web(protocol, family, &[2, 3]);
            plan.frontends = vec![frontend];
            node.put(&plan);
            let pods = [(); 4].map(|()| node.ask(protocol, vip(family)).unwrap().pod);
            assert_ne!(pods[0], pods[1]);
            assert_eq!(pods[..2], pods[2..]);
        }
    }
}

#[test]
fn reject_refuses_at_once_and_drop_is_silent() {
    let mut node = Node::new(PacketScope::External);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2]);
        plan.frontends.push(Frontend::ExternalIp(vip(family)));
        plan.external = Outcome::Reject;
        node.put(&plan);
        for to in [node_port(family), vip(family)] {
            let error = node.ask(protocol, to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{protocol} {to}");
        }
        let local = node.net.node.run(|| ask(protocol, vip(family), PATIENCE)).unwrap().unwrap_err();
        // UDP is told by sendmsg itself that a rule forbids it; kube-proxy's rules do the same.
        let told = if protocol == Protocol::Tcp { ErrorKind::ConnectionRefused } else { ErrorKind::PermissionDenied };
        assert_eq!(local.kind(), told, "{protocol} from the node itself");
        plan.external = Outcome::Drop;
        node.put(&plan);
        for to in [node_port(family), vip(family)] {
            let short = Duration::from_millis(200);
            let error = node.net.client.run(|| ask(protocol, to, short)).unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{protocol} {to}: {error}");
        }
    }
}

#[test]
fn a_pod_reaches_itself_through_the_node_port() {
    let mut node = Node::new(PacketScope::External);
    for family in [IpFamily::V4, IpFamily::V6] {
        for masquerade in [true, false] {
            let mut plan = web(Protocol::Udp, family, &[2]);
            plan.masquerade_external = masquerade;
            node.put(&plan);
            let from = pod(family, 2);
            let answer = node.net.pods.run(|| ask_udp((from, 0).into(), node_port(family), PATIENCE)).unwrap().unwrap();
            assert_eq!(answer.pod, from);
            assert_eq!(answer.source.to_string(), pick(family, ["10.244.1.1", "fd44::1"]), "{masquerade}");
        }
        // Without a local endpoint in the way, the pod's TCP connection goes the same way.
        node.put(&web(Protocol::Tcp, family, &[3]));
        let answer = node.net.pods.run(|| ask_tcp(node_port(family), PATIENCE)).unwrap().unwrap();
        assert_eq!(answer.pod, pod(family, 3));
    }
}

#[test]
fn no_connection_fails_while_endpoints_come_and_go() {
    let mut node = Node::new(PacketScope::External);
    let family = IpFamily::V4;
    node.put(&web(Protocol::Tcp, family, &[2, 3, 4]));
    let client = Arc::clone(&node.net.client);
    let (stop, connected) = (AtomicBool::new(false), AtomicU32::new(0));
    let failed: Vec<io::Error> = thread::scope(|scope| {
        let load = || {
            let _netns = enter(&client);
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match ask_tcp(node_port(family), PATIENCE) {
                    Ok(_) => drop(connected.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failed.push(error),
                }
            }
            failed
        };
        let clients = [(); 4].map(|()| scope.spawn(load));
        let started = Instant::now();
        let mut changes = 0;
        while started.elapsed() < Duration::from_secs(3) {
            // Other numbers of endpoints (another chain, and back) and other endpoints of the same number.
            for pods in [&[2, 3][..], &[3, 4], &[4], &[2, 3, 4]] {
                node.put(&web(Protocol::Tcp, family, pods));
                changes += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        eprintln!("{changes} changes during {} connections", connected.load(Ordering::Relaxed));
        clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert!(connected.into_inner() > 100);
}

#[test]
fn counters_survive_a_change_of_the_other_endpoints() {
    let mut node = Node::new(PacketScope::External);
    let (tcp, family) = (Protocol::Tcp, IpFamily::V4);
    let mut plan = web(tcp, family, &[2, 3]);
    node.put(&plan);
    for _ in 0..10 {
        node.ask(tcp, node_port(family)).unwrap();
    }
    plan = web(tcp, family, &[2, 3, 4]);
    node.put(&plan);
    assert_eq!(node.connections(&plan.key), [5, 5, 0]);
}

#[test]
fn a_restart_leaves_the_table_as_it_is() {
    let mut node = Node::new(PacketScope::External);
    let plans = ALL.map(|(protocol, family)| web(protocol, family, &[2, 3, 4]));
    for plan in &plans {
        node.put(plan);
    }
    let mut refusing = web(Protocol::Tcp, IpFamily::V4, &[]);
    refusing.key.port.service = ServiceName::new("default", "refusing");
    refusing.frontends = vec![Frontend::NodePort(30081), Frontend::ExternalIp(vip(IpFamily::V4))];
    refusing.external = Outcome::Reject;
    node.put(&refusing);
    refusing.key.port.service = ServiceName::new("default", "silent");
    refusing.frontends = vec![Frontend::NodePort(30082), Frontend::ExternalIp(vip(IpFamily::V6))];
    refusing.external = Outcome::Drop;
    node.put(&refusing);
    node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();

    // With handles: a rule, chain or set made again would have another one.
    let before = node.net.nft("-a list ruleset");
    node.plane = Nftables::new(PacketScope::External);
    node.apply(&Changed::Everything);
    assert_eq!(node.net.nft("-a list ruleset"), before);
    let mut counted = node.connections(&plans[0].key);
    counted.sort_unstable();
    assert_eq!(counted, [0, 0, 1]);
}

#[test]
fn a_restart_brings_what_changed_meanwhile() {
    let mut node = Node::new(PacketScope::External);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2, 3, 4]));
    node.put(&web(Protocol::Udp, IpFamily::V4, &[2]));
    node.desired.ports.clear();
    let plan = web(Protocol::Tcp, IpFamily::V4, &[3]);
    node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
    node.plane = Nftables::new(PacketScope::External);
    node.apply(&Changed::Everything);
    assert_eq!(node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap().pod, pod(IpFamily::V4, 3));
    let error = node.ask(Protocol::Udp, node_port(IpFamily::V4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "nobody listens on the node itself");
}

#[test]
fn a_foreign_flush_is_noticed_and_repaired() {
    let mut node = Node::new(PacketScope::External);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
    assert!(node.is_intact());
    for flush in ["flush ruleset", "delete table inet weft-proxy", "flush table inet weft-proxy"] {
        node.net.nft(flush);
        assert!(!node.is_intact(), "{flush}");
        node.apply(&Changed::Everything);
        assert!(node.is_intact(), "{flush}");
        node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();
    }
}

#[test]
fn foreign_tables_are_not_touched() {
    let mut node = Node::new(PacketScope::External);
    node.net.nft("add table ip foreign");
    node.net.nft("add chain ip foreign pre { type nat hook prerouting priority dstnat ; }");
    node.net.nft("add rule ip foreign pre tcp dport 30080 dnat to 192.0.2.1:1");
    node.net.nft("add table inet weft-proxy-2");
    let foreign =
        |node: &Node| [node.net.nft("-a list table ip foreign"), node.net.nft("-a list table inet weft-proxy-2")];
    let before = foreign(&node);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
    node.ask(Protocol::Tcp, node_port(IpFamily::V4)).expect("ours comes before the standard priority");
    node.net.nft("delete table inet weft-proxy");
    node.apply(&Changed::Everything);
    let Node { net, plane, .. } = &mut node;
    net.node.run(|| plane.cleanup().unwrap()).unwrap();
    net.node.run(|| plane.cleanup().expect("twice is fine")).unwrap();
    assert_eq!(foreign(&node), before);
    assert!(!node.net.nft("list tables").contains("inet weft-proxy\n"));
}

#[test]
fn a_cluster_ip_to_drop_is_dropped_beside_the_socket_plane() {
    let mut node = Node::new(PacketScope::External);
    let mut plan = web(Protocol::Tcp, IpFamily::V4, &[2]);
    plan.frontends = vec![Frontend::ClusterIp(vip(IpFamily::V4))];
    plan.internal = Outcome::Drop;
    node.put(&plan);
    let short = Duration::from_millis(200);
    for from in [&node.net.node, &node.net.pods] {
        let error = from.run(|| ask_tcp(vip(IpFamily::V4), short)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}

#[test]
fn scope_all_serves_cluster_ips_to_pods_and_to_the_node() {
    let mut node = Node::new(PacketScope::All);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2, 3, 4]);
        plan.frontends = vec![Frontend::ClusterIp(vip(family))];
        node.put(&plan);
        for from in [&node.net.node, &*node.net.client] {
            let ask = || ask(protocol, vip(family), PATIENCE).unwrap().pod;
            let mut pods = from.run(|| [(); 3].map(|()| ask())).unwrap();
            pods.sort_unstable();
            assert_eq!(pods, [2, 3, 4].map(|last| pod(family, last)), "{protocol} {family}");
        }
    }
}
