//! What the traffic policies make of a Service port's endpoints: kube-proxy.md section 3.

use std::sync::Arc;

use super::{Endpoint, Outcome, endpoints::Usable};
use crate::model::Service;

/// What happens to a new connection, by where it comes from and goes to.
pub(super) struct Outcomes {
    pub(super) internal: Outcome,
    pub(super) external: Outcome,
    pub(super) external_from_node: Outcome,
}

/// Applies the policies. Without an external frontend `external` has no meaning and equals `internal`.
pub(super) fn outcomes(service: &Service, usable: &Usable, externally_reachable: bool) -> Outcomes {
    let cluster = cluster_outcome(&usable.cluster);
    let local_outcome = || match usable.local.as_slice() {
        // Somewhere else there is one: silence, so that the client may try another node (3.2, 3.4, 4.5).
        [] if !usable.cluster.is_empty() => Outcome::Drop,
        [] => Outcome::Reject,
        same if same == usable.cluster => cluster.clone(),
        local => Outcome::Endpoints(local.into()),
    };
    let internal = if service.internal_local { local_outcome() } else { cluster.clone() };
    if !externally_reachable {
        return Outcomes { external: internal.clone(), external_from_node: internal.clone(), internal };
    }
    let external = if service.external_local { local_outcome() } else { cluster.clone() };
    // Pods and processes of this node are not sent away for want of a local endpoint (3.5, 3.6).
    Outcomes { internal, external, external_from_node: cluster }
}

fn cluster_outcome(endpoints: &[Endpoint]) -> Outcome {
    if endpoints.is_empty() { Outcome::Reject } else { Outcome::Endpoints(Arc::from(endpoints)) }
}
