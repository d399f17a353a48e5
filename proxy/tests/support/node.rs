//! A node with a data plane on it, and `default/web` on the pods behind it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weft_netlink::{Netns, sysctl};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

use crate::support::{Answer, Net, PATIENCE, SERVER_PORT, ask_tcp, ask_udp, fresh_udp_source};

/// A node that runs the data plane `P`.
pub struct Node<P> {
    pub net: Net,
    pub plane: P,
    pub desired: Desired,
}

/// Addresses of the node towards the client, where NodePorts are served.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The pods' side.
pub const NODE_POD_SIDE: [&str; 2] = ["10.244.1.1", "fd44::1"];
pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub const NODE_PORT: u16 = 30080;

pub const ALL: [(Protocol, IpFamily); 4] = [
    (Protocol::Tcp, IpFamily::V4),
    (Protocol::Udp, IpFamily::V4),
    (Protocol::Tcp, IpFamily::V6),
    (Protocol::Udp, IpFamily::V6),
];

impl<P: DataPlane> Node<P> {
    pub fn new(plane: P) -> Self {
        let node_port_addresses = NODE.map(|a| a.parse().unwrap()).into();
        let desired = Desired { node_port_addresses, ..Desired::default() };
        let mut node = Self { net: Net::new(), plane, desired };
        // The way out for VIPs is back to the client. The redirects that tell it so would use up its share of ICMP errors,
        // which are limited by destination, and leave none for refusals.
        let quiet = |link: &str| sysctl::set(&format!("net/ipv4/conf/{link}/send_redirects"), "0").unwrap();
        node.net.node.run(|| ["all", "client0"].map(quiet)).unwrap();
        node.apply(&Changed::Everything);
        node
    }

    pub fn apply(&mut self, changed: &Changed) {
        let Self { net, plane, desired } = self;
        net.node.run(|| plane.apply(desired, changed).unwrap()).unwrap();
    }

    /// The agent goes and comes back.
    pub fn restart(&mut self, plane: P) {
        self.plane = plane;
        self.apply(&Changed::Everything);
    }

    pub fn put(&mut self, plan: &ServicePortPlan) {
        self.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        self.apply(&Changed::Ports(vec![plan.key.clone()]));
    }

    pub fn is_intact(&mut self) -> bool {
        let Self { net, plane, .. } = self;
        net.node.run(|| plane.is_intact().unwrap()).unwrap()
    }

    pub fn cleanup(&mut self) {
        let Self { net, plane, .. } = self;
        net.node.run(|| plane.cleanup().unwrap()).unwrap();
    }

    pub fn connections(&mut self, key: &PlanKey) -> Vec<u64> {
        let Self { net, plane, .. } = self;
        let connections = net.node.run(move || plane.connections(key).unwrap()).unwrap();
        connections.iter().map(|c| c.connections).collect()
    }

    /// Asks from the client outside.
    pub fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Answer> {
        ask_from(&self.net.client, protocol, to)
    }
}

pub fn ask(protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    match protocol {
        Protocol::Udp => ask_udp(fresh_udp_source(to), to, patience),
        _ => ask_tcp(to, patience),
    }
}

pub fn ask_from(netns: &Netns, protocol: Protocol, to: SocketAddr) -> io::Result<Answer> {
    netns.run(|| ask(protocol, to, PATIENCE)).unwrap()
}

/// `default/web` on NodePort 30080 and the ClusterIP of [`cluster_ip`], with the pods 2, 3, 4 or some of them.
pub fn web(protocol: Protocol, family: IpFamily, pods: &[u8]) -> ServicePortPlan {
    let outcome = endpoints(family, pods);
    let service = ServiceName::new("default", "web");
    ServicePortPlan {
        key: PlanKey { port: ServicePortName { service, port: "".into(), protocol }, family },
        frontends: vec![Frontend::ClusterIp(cluster_ip(family)), Frontend::NodePort(NODE_PORT)],
        internal: outcome.clone(),
        external: outcome.clone(),
        external_from_node: outcome,
        masquerade_external: true,
        health_check_port: None,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

pub fn endpoints(family: IpFamily, pods: &[u8]) -> Outcome {
    let endpoint = |last: &u8| Endpoint { address: pod(family, *last), port: SERVER_PORT, local: true };
    Outcome::Endpoints(pods.iter().map(endpoint).collect())
}

pub fn pod(family: IpFamily, last: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [10, 244, 1, last].into(),
        IpFamily::V6 => [0xfd44, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

pub fn pick<T>(family: IpFamily, [v4, v6]: [T; 2]) -> T {
    match family {
        IpFamily::V4 => v4,
        IpFamily::V6 => v6,
    }
}

pub fn node_port(family: IpFamily) -> SocketAddr {
    SocketAddr::new(pick(family, NODE).parse().unwrap(), NODE_PORT)
}

/// An address that is on no interface; the client's packets to it reach the node.
pub fn vip(family: IpFamily) -> SocketAddr {
    pick(family, ["198.51.100.7:80", "[2001:db8:7::7]:80"]).parse().unwrap()
}

/// Another one.
pub fn cluster_ip(family: IpFamily) -> SocketAddr {
    pick(family, ["10.96.0.10:80", "[fd96::10]:80"]).parse().unwrap()
}
