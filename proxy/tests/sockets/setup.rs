//! A node with a data plane on it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    ebpf::{Ebpf, MapSizes, SocketPlaneConfig},
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

use crate::support::{Node, serve};

pub(crate) const PODS: [&str; 3] = ["10.244.0.1", "10.244.0.2", "10.244.0.3"];
pub(crate) const PODS6: [&str; 3] = ["fd44::1", "fd44::2", "fd44::3"];
pub(crate) const VIP: &str = "10.96.0.10";
pub(crate) const VIP6: &str = "fd96::10";

/// The node, its data plane, and what was asked of it.
pub(crate) struct Setup {
    pub(crate) node: Node,
    pub(crate) plane: Ebpf,
    pub(crate) desired: Desired,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::with_sizes(MapSizes::default())
    }

    pub(crate) fn with_sizes(sizes: MapSizes) -> Self {
        let node = Node::new();
        let plane = Ebpf::open(SocketPlaneConfig { sizes, ..node.config() }).unwrap();
        Self { node, plane, desired: Desired::default() }
    }

    /// Programs the Service port at one frontend, TCP and UDP alike.
    pub(crate) fn service(&mut self, frontend: Frontend, outcome: &Outcome) {
        let family = match (frontend.address(), outcome.endpoints().first()) {
            (Some(address), _) => IpFamily::of(address.ip()),
            (None, endpoint) => endpoint.map_or(IpFamily::V4, |endpoint| IpFamily::of(endpoint.address)),
        };
        let plan = plan(key(Protocol::Tcp, family, frontend), &[frontend], outcome);
        self.program(&plan);
    }

    /// Programs the plan, for TCP and for UDP.
    pub(crate) fn program(&mut self, plan: &ServicePortPlan) {
        let mut keys = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut plan = plan.clone();
            plan.key.port.protocol = protocol;
            keys.push(plan.key.clone());
            self.desired.ports.insert(plan.key.clone(), Arc::new(plan));
        }
        // The first time it is everything all the same.
        self.plane.apply(&self.desired, &Changed::Ports(keys)).unwrap();
    }

    /// Removes all Services.
    pub(crate) fn clear(&mut self) {
        let keys = std::mem::take(&mut self.desired.ports).into_keys().collect();
        self.plane.apply(&self.desired, &Changed::Ports(keys)).unwrap();
    }

    /// A new agent in the place of this one, as after kill -9: nothing is said to the kernel.
    pub(crate) fn restart(&mut self) {
        self.plane = Ebpf::open(self.node.config()).unwrap();
        self.plane.apply(&self.desired, &Changed::Everything).unwrap();
    }

    /// Connections by endpoint address, as `weft services` shows them.
    pub(crate) fn connections(&self, protocol: Protocol, frontend: Frontend) -> BTreeMap<String, u64> {
        let family = frontend.address().map_or(IpFamily::V4, |address| IpFamily::of(address.ip()));
        self.connections_of(&key(protocol, family, frontend))
    }

    /// The same of any Service port.
    pub(crate) fn connections_of(&self, key: &PlanKey) -> BTreeMap<String, u64> {
        let connections = self.plane.connections(key).unwrap();
        connections.iter().map(|each| (each.endpoint.address.to_string(), each.connections)).collect()
    }
}

fn key(protocol: Protocol, family: IpFamily, frontend: Frontend) -> PlanKey {
    named(&format!("{frontend:?}"), protocol, family)
}

/// Key of the only port of a Service.
pub(crate) fn named(name: &str, protocol: Protocol, family: IpFamily) -> PlanKey {
    PlanKey { port: ServicePortName { service: ServiceName::new("default", name), port: "".into(), protocol }, family }
}

/// A Service port with the same outcome for everybody.
pub(crate) fn plan(key: PlanKey, frontends: &[Frontend], outcome: &Outcome) -> ServicePortPlan {
    let mut frontends = frontends.to_vec();
    frontends.sort_unstable();
    ServicePortPlan {
        key,
        frontends,
        internal: outcome.clone(),
        external: outcome.clone(),
        external_from_node: outcome.clone(),
        masquerade_external: true,
        health_check_port: None,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

/// Where everybody else in these tests has port 80.
pub(crate) fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 80)
}

pub(crate) fn cluster_ip(address: &str) -> Frontend {
    Frontend::ClusterIp(at(address))
}

pub(crate) fn to(pods: &[&str]) -> Outcome {
    let endpoint = |pod: &&str| Endpoint { address: pod.parse().unwrap(), port: 8080, local: true };
    let mut endpoints: Vec<_> = pods.iter().map(endpoint).collect();
    endpoints.sort_unstable();
    Outcome::Endpoints(Arc::from(endpoints))
}

pub(crate) fn serve_pods(pods: &[&str]) {
    for pod in pods {
        serve(&name(pod));
    }
}

/// What a server at `pod` answers.
pub(crate) fn name(pod: &str) -> String {
    SocketAddr::new(pod.parse().unwrap(), 8080).to_string()
}
