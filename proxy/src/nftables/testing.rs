//! Short forms for plans in this module's tests.

use std::net::SocketAddr;

use crate::{
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Endpoint, Outcome, PlanKey, ServicePortPlan},
};

/// A TCP port of `default/<name>`, IPv4.
pub(crate) fn key(name: &str) -> PlanKey {
    let service = ServiceName::new("default", name);
    PlanKey { port: ServicePortName { service, port: "".into(), protocol: Protocol::Tcp }, family: IpFamily::V4 }
}

/// Endpoints elsewhere.
pub(crate) fn endpoints(addresses: &[&str]) -> Outcome {
    let endpoint = |text: &&str| {
        let at: SocketAddr = text.parse().expect("address:port");
        Endpoint { address: at.ip(), port: at.port(), local: false }
    };
    Outcome::Endpoints(addresses.iter().map(endpoint).collect())
}

/// A plan with `outcome` for everybody, masqueraded, without frontends.
pub(crate) fn plan(key: PlanKey, outcome: Outcome) -> ServicePortPlan {
    ServicePortPlan {
        key,
        frontends: Vec::new(),
        internal: outcome.clone(),
        external: outcome.clone(),
        external_from_node: outcome,
        masquerade_external: true,
        health_check_port: None,
        affinity: None,
        source_ranges: Vec::new(),
    }
}
