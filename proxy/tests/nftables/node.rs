//! A node that runs the data plane, and a Service on it.

use std::{
    io::{self},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::support::{Answer, Net, PATIENCE, SERVER_PORT, ask_tcp, ask_udp, fresh_udp_source};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    nftables::{Nftables, PacketScope},
    plan::{Endpoint, Frontend, Outcome, PacketSettings, PlanKey, ServicePortPlan},
};

/// A node that runs the data plane.
pub(crate) struct Node {
    pub(crate) net: Net,
    pub(crate) plane: Nftables,
    pub(crate) desired: Desired,
}

pub(crate) const EXTERNAL: PacketScope = PacketScope::External { second_line: false };
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const NODE_PORT: u16 = 30080;

impl Node {
    pub(crate) fn new(scope: PacketScope) -> Self {
        Self::with(scope, PacketSettings::default())
    }

    pub(crate) fn with(scope: PacketScope, settings: PacketSettings) -> Self {
        let node_port_addresses = NODE.map(|a| a.parse().unwrap()).into();
        let desired = Desired { node_port_addresses, ..Desired::default() };
        let mut node = Self { net: Net::new(), plane: Nftables::new(scope, settings), desired };
        node.apply(&Changed::Everything);
        node
    }

    pub(crate) fn apply(&mut self, changed: &Changed) {
        let Self { net, plane, desired } = self;
        net.node.run(|| plane.apply(desired, changed).unwrap()).unwrap();
    }

    /// Does some of what may wait; false: there was nothing.
    pub(crate) fn catch_up(&mut self) -> bool {
        let Self { net, plane, desired } = self;
        net.node.run(|| plane.catch_up(desired).unwrap()).unwrap()
    }

    pub(crate) fn put(&mut self, plan: &ServicePortPlan) {
        self.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        self.apply(&Changed::Ports(vec![plan.key.clone()]));
    }

    /// Asks from the client outside.
    pub(crate) fn ask(&self, protocol: Protocol, to: SocketAddr) -> io::Result<Answer> {
        self.net.client.run(|| ask(protocol, to, PATIENCE)).unwrap()
    }

    pub(crate) fn is_intact(&mut self) -> bool {
        let Self { net, plane, .. } = self;
        net.node.run(|| plane.is_intact().unwrap()).unwrap()
    }

    pub(crate) fn connections(&mut self, key: &PlanKey) -> Vec<u64> {
        let Self { net, plane, .. } = self;
        let connections = net.node.run(|| plane.connections(key).unwrap()).unwrap();
        connections.iter().map(|c| c.connections).collect()
    }
}

pub(crate) fn ask(protocol: Protocol, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    match protocol {
        Protocol::Udp => ask_udp(fresh_udp_source(to), to, patience),
        _ => ask_tcp(to, patience),
    }
}

pub(crate) const ALL: [(Protocol, IpFamily); 4] = [
    (Protocol::Tcp, IpFamily::V4),
    (Protocol::Udp, IpFamily::V4),
    (Protocol::Tcp, IpFamily::V6),
    (Protocol::Udp, IpFamily::V6),
];

/// `default/web` on NodePort 30080, with the pods 2, 3, 4 or some of them.
pub(crate) fn web(protocol: Protocol, family: IpFamily, pods: &[u8]) -> ServicePortPlan {
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
        health_check_port: None,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

pub(crate) fn pod(family: IpFamily, last: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [10, 244, 1, last].into(),
        IpFamily::V6 => [0xfd44, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

pub(crate) fn pick<T>(family: IpFamily, [v4, v6]: [T; 2]) -> T {
    match family {
        IpFamily::V4 => v4,
        IpFamily::V6 => v6,
    }
}

pub(crate) fn node_port(family: IpFamily) -> SocketAddr {
    SocketAddr::new(pick(family, NODE).parse().unwrap(), NODE_PORT)
}

/// An address that is on no interface; the client's packets to it reach the node.
pub(crate) fn vip(family: IpFamily) -> SocketAddr {
    pick(family, ["198.51.100.7:80", "[2001:db8:7::7]:80"]).parse().unwrap()
}
