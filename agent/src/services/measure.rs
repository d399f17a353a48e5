//! What metrics are made of: numbers only the Services thread knows.

use weft_proxy::{
    model::IpFamily,
    plan::{NoLocalEndpoints, PlanKey, Planner},
};

use super::planes::Planes;

/// Services whose connections are told one by one; those of all others are added up, so that a large cluster does not make
/// a large scrape.
const SERVICES: usize = 500;

/// A look at the numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Services that drop traffic for want of a local endpoint, by family.
    pub(crate) no_local: Vec<(IpFamily, NoLocalEndpoints)>,
    /// How often each data plane could not be brought up to date.
    pub(crate) failures: Vec<(&'static str, u64)>,
    /// Connections of Services, the first in order of their names.
    pub(crate) connections: Vec<(PlanKey, u64)>,
    /// Connections of all other Services; `None`: there are none.
    pub(crate) connections_of_others: Option<u64>,
}

pub(super) fn measure(planner: &Planner, planes: &Planes) -> Measured {
    let connections = |key: &PlanKey| planes.connections(key).iter().map(|one| one.connections).sum::<u64>();
    let mut keys = planner.ports().keys();
    let told = keys.by_ref().take(SERVICES).map(|key| (key.clone(), connections(key))).collect();
    let others: Vec<u64> = keys.map(connections).collect();
    Measured {
        no_local: [IpFamily::V4, IpFamily::V6].map(|family| (family, planner.no_local_endpoints(family))).to_vec(),
        failures: planes.failures(),
        connections: told,
        connections_of_others: (!others.is_empty()).then(|| others.iter().sum()),
    }
}
