//! Traffic kept near by the hints of EndpointSlices: kube-proxy.md section 5.

use super::endpoints::Candidate;
use crate::model::{NodeHint, NodeTopology};

/// Which ready endpoints the cluster list of one Service port is limited to (5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preference<'a> {
    /// Those hinted for this node.
    SameNode,
    /// Those hinted for this zone.
    SameZone(&'a str),
    /// All.
    Anywhere,
}

impl<'a> Preference<'a> {
    /// Chooses from the ready endpoints. A kind of hint counts only if each of them has one and one names this node or
    /// zone, so that a preference never leaves a Service port without endpoints (5.4).
    pub(super) fn of(candidates: &[Candidate<'_>], topology: &'a NodeTopology) -> Self {
        let ready = || candidates.iter().copied().filter(|candidate| candidate.is_ready());
        let all_name_nodes = ready().all(|candidate| candidate.entry.node_hint != NodeHint::Absent);
        if all_name_nodes && ready().any(|candidate| Self::SameNode.admits(candidate)) {
            return Self::SameNode;
        }
        let all_name_zones = ready().all(|candidate| candidate.entry.zone_hints.is_some());
        match topology.zone.as_deref().map(Self::SameZone) {
            Some(same_zone) if all_name_zones && ready().any(|candidate| same_zone.admits(candidate)) => same_zone,
            _ => Self::Anywhere,
        }
    }

    /// Whether a ready endpoint is among them (5.3).
    pub(super) fn admits(self, candidate: Candidate<'_>) -> bool {
        match self {
            Self::SameNode => candidate.entry.node_hint == NodeHint::Here,
            Self::SameZone(zone) => {
                candidate.entry.zone_hints.iter().flat_map(|zones| zones.iter()).any(|z| **z == *zone)
            }
            Self::Anywhere => true,
        }
    }
}
