//! The plan against maps that check every reference.

mod cases;
mod fake;
mod properties;

use std::{net::SocketAddr, sync::Arc};

use crate::{
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

fn key(name: &str, family: IpFamily, protocol: Protocol) -> PlanKey {
    let port = ServicePortName { service: ServiceName::new("default", name), port: "".into(), protocol };
    PlanKey { port, family }
}

fn to(addresses: &[&str]) -> Outcome {
    let endpoint = |text: &&str| {
        let address: SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port(), local: false }
    };
    let mut endpoints: Vec<_> = addresses.iter().map(endpoint).collect();
    endpoints.sort_unstable();
    Outcome::Endpoints(Arc::from(endpoints))
}

/// A Service port with the same outcome for everybody.
fn service(name: &str, frontends: &[Frontend], outcome: Outcome) -> ServicePortPlan {
    let family = match &outcome {
        Outcome::Endpoints(endpoints) => IpFamily::of(endpoints[0].address),
        _ => IpFamily::V4,
    };
    let mut frontends = frontends.to_vec();
    frontends.sort_unstable();
    ServicePortPlan {
        key: key(name, family, Protocol::Tcp),
        frontends,
        internal: outcome.clone(),
        external: outcome.clone(),
        external_from_node: outcome,
        masquerade_external: true,
        health_check_port: None,
        affinity: None,
        source_ranges: Vec::new(),
    }
}

fn cluster_ip(address: &str) -> Frontend {
    Frontend::ClusterIp(address.parse().unwrap())
}
