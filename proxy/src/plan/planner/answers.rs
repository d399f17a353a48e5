//! What a planner knows, for those who ask.

use std::{collections::BTreeMap, sync::Arc};

use super::Planner;
use crate::{
    dataplane::Desired,
    model::{IpFamily, NodeIps, ObjectError, PodCidrs, ServiceName, Warning},
    plan::{Frontend, HealthCheck, NoLocalEndpoints, PlanKey, ServicePortPlan, UdpFlows},
};

/// Sizes, for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services that get traffic.
    pub services: usize,
    /// Their ports, counted once per family.
    pub service_ports: usize,
    /// Endpoints in use, counted once per Service port.
    pub endpoints: usize,
    /// Objects that could not be used.
    pub rejected: usize,
}

impl Planner {
    /// The desired state as of the last [`take_changes`](Self::take_changes).
    pub fn desired(&self) -> &Desired {
        &self.state.desired
    }

    /// The planned Service ports, by key.
    pub fn ports(&self) -> &BTreeMap<PlanKey, Arc<ServicePortPlan>> {
        &self.state.desired.ports
    }

    /// Sizes of the desired state. Walks over all of it.
    pub fn counts(&self) -> Counts {
        Counts {
            services: self.services.len(),
            service_ports: self.state.desired.ports.len(),
            endpoints: self.state.desired.ports.values().map(|plan| plan.endpoints().len()).sum(),
            rejected: self.rejected.len(),
        }
    }

    /// Service ports of a family that drop traffic for want of a local endpoint (3.9). Walks over all of the desired state.
    pub fn no_local_endpoints(&self, family: IpFamily) -> NoLocalEndpoints {
        let plans = self.state.desired.ports.values().map(|plan| &**plan);
        NoLocalEndpoints::count(plans.filter(|plan| plan.key.family == family))
    }

    /// This node's own addresses: what `nodePortAddresses: primary` stands for (6.3). Addresses seen once stay until others
    /// are named.
    pub fn node_ips(&self) -> NodeIps {
        self.topology.ips
    }

    /// The networks of this node's pods: what `detectLocalMode: NodeCIDR` goes by (8.8). Those seen once stay until others
    /// are named.
    pub fn pod_cidrs(&self) -> PodCidrs {
        self.topology.pod_cidrs
    }

    /// The health-check node ports to answer at, by Service (11.3).
    pub fn health_checks(&self) -> &BTreeMap<ServiceName, HealthCheck> {
        &self.health_checks.by_service
    }

    /// The UDP Service ports of a family, with the endpoints their flows may lead to (section 10).
    pub fn udp_flows(&self, family: IpFamily) -> impl Iterator<Item = UdpFlows<'_>> {
        self.udp.iter().filter(move |(key, _)| key.family == family).filter_map(|(key, serving)| {
            let frontends = &self.state.desired.ports.get(key)?.frontends;
            Some(UdpFlows { key, frontends, serving })
        })
    }

    /// Objects that cannot be used as they are now, ordered by kind and name.
    pub fn rejected(&self) -> impl Iterator<Item = &ObjectError> {
        self.rejected.values()
    }

    /// Parts of objects that are left out, ordered by kind and name.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.warnings.values().flatten()
    }

    /// Every frontend that a Service port asks for and another one has, ordered by the former: loser, frontend, winner.
    /// Such a frontend is in the winner's plan only.
    pub fn contested(&self) -> impl Iterator<Item = (&PlanKey, Frontend, &PlanKey)> {
        self.state.claims.contested()
    }
}
