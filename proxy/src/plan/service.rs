//! The plan of one Service: a pure function of the Service, its slices, and where this node is.

use ipnetwork::IpNetwork;

use super::{
    Frontend, PlanKey, PlannerConfig, ServicePortPlan,
    endpoints::{candidates, usable},
    frontends::frontends,
    policy::{Outcomes, outcomes},
};
use crate::model::{EndpointSlice, IpFamily, NodeTopology, Service, ServicePort, ServicePortName};

/// Plans each port of a Service in each family it has a ClusterIP of. The order of `slices` does not matter.
pub(crate) fn plan_service(
    service: &Service,
    slices: &[&EndpointSlice],
    topology: &NodeTopology,
    config: &PlannerConfig,
) -> Vec<ServicePortPlan> {
    let families = [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| service.cluster_ip(*family).is_some());
    families
        .flat_map(|family| service.ports.iter().map(move |port| (port, family)))
        .map(|(port, family)| plan_port(service, port, family, slices, topology, config))
        .collect()
}

fn plan_port(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    slices: &[&EndpointSlice],
    topology: &NodeTopology,
    config: &PlannerConfig,
) -> ServicePortPlan {
    let frontends = frontends(service, port, family, config);
    let usable = usable(&candidates(slices, port, family), topology);
    let externally_reachable = frontends.iter().any(|frontend| frontend.is_external());
    let Outcomes { internal, external, external_from_node } = outcomes(service, &usable, externally_reachable);
    let port = ServicePortName { service: service.name.clone(), port: port.name.clone(), protocol: port.protocol };
    ServicePortPlan {
        key: PlanKey { port, family },
        source_ranges: source_ranges(service, &frontends, family),
        frontends,
        internal,
        external,
        external_from_node,
        masquerade_external: !service.external_local,
        affinity: service.affinity,
    }
}

/// Ranges of the family, sorted, each once. None at all, or one that spans the whole family, means unrestricted (9.6).
fn source_ranges(service: &Service, frontends: &[Frontend], family: IpFamily) -> Vec<IpNetwork> {
    let guarded = frontends.iter().any(|frontend| matches!(frontend, Frontend::LoadBalancer(_)));
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: Vec<_> = ranges.filter(|range| guarded && IpFamily::of(range.ip()) == family).collect();
    if ranges.iter().any(|range| range.prefix() == 0) {
        ranges.clear();
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}
