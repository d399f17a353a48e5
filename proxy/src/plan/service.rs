//! The plan of one Service: a pure function of the Service, its slices, and where this node is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    HealthCheck, PlanKey, PlannerConfig, ServicePortPlan,
    endpoints::{Candidate, candidates, usable},
    frontends::frontends,
    policy::{Outcomes, outcomes},
    source_ranges::source_ranges,
    udp,
};
use crate::model::{EndpointSlice, IpFamily, NodeTopology, Protocol, Service, ServicePort, ServicePortName};

/// Everything that follows from one Service.
#[derive(Debug, Default)]
pub(super) struct ServicePlan {
    /// Each port in each family the Service has a ClusterIP of.
    pub(super) ports: Vec<ServicePortPlan>,
    /// Of those the UDP ones, with their endpoints.
    pub(super) udp: Vec<(PlanKey, udp::Endpoints)>,
    pub(super) health_check: Option<HealthCheck>,
}

/// Plans a Service. The order of `slices` does not matter.
pub(super) fn plan_service(
    service: &Service,
    slices: &[&EndpointSlice],
    topology: &NodeTopology,
    config: &PlannerConfig,
) -> ServicePlan {
    let mut plan = ServicePlan::default();
    let mut local_ready = BTreeMap::new();
    for family in [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| service.cluster_ip(*family).is_some()) {
        let mut addresses = BTreeSet::new();
        for port in &service.ports {
            let candidates = candidates(slices, port, family);
            let port = plan_port(service, port, family, &candidates, topology, config);
            if port.key.port.protocol == Protocol::Udp {
                plan.udp.push((port.key.clone(), udp_endpoints(&candidates)));
            }
            if service.health_check_node_port.is_some() {
                // Terminating ones do not count, although they may still get traffic (11.3).
                let ready = candidates.iter().filter(|candidate| candidate.entry.local && candidate.is_ready());
                addresses.extend(ready.map(|candidate| candidate.entry.address));
            }
            plan.ports.push(port);
        }
        local_ready.insert(family, addresses.len());
    }
    plan.health_check = service.health_check_node_port.filter(|_| !plan.ports.is_empty()).map(|port| HealthCheck {
        service: service.name.clone(),
        port,
        local_ready_endpoints: local_ready,
    });
    plan
}

fn plan_port(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    candidates: &[Candidate<'_>],
    topology: &NodeTopology,
    config: &PlannerConfig,
) -> ServicePortPlan {
    let frontends = frontends(service, port, family, config);
    let usable = usable(candidates, topology);
    let externally_reachable = frontends.iter().any(|frontend| frontend.is_external());
    let Outcomes { internal, external, external_from_node } = outcomes(service, &usable, externally_reachable);
    let port = ServicePortName { service: service.name.clone(), port: port.name.clone(), protocol: port.protocol };
    ServicePortPlan {
        key: PlanKey { port, family },
        source_ranges: source_ranges(service, &frontends, family, topology.ips.of(family)),
        frontends,
        internal,
        external,
        external_from_node,
        masquerade_external: !service.external_local,
        affinity: service.affinity,
        health_check_port: service.health_check_node_port,
    }
}

fn udp_endpoints(candidates: &[Candidate<'_>]) -> udp::Endpoints {
    let addresses = |wanted: fn(Candidate<'_>) -> bool| {
        // Sorted, as candidates are.
        let wanted = candidates.iter().copied().filter(|candidate| wanted(*candidate));
        wanted.map(|candidate| SocketAddr::new(candidate.entry.address, candidate.port)).collect()
    };
    udp::Endpoints {
        serving: addresses(|candidate| candidate.entry.serving),
        usable: addresses(|candidate| candidate.entry.serving || candidate.is_ready()),
    }
}
