//! The count behind the metric `sync_proxy_rules_no_local_endpoints_total`: kube-proxy.md 3.9.

use super::{Frontend, Outcome, ServicePortPlan};

/// Service ports whose traffic is dropped because a policy is Local and no usable endpoint is on this node. Those that
/// have no endpoint anywhere do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// For internalTrafficPolicy (3.2).
    pub internal: usize,
    /// For externalTrafficPolicy (3.4).
    pub external: usize,
}

impl NoLocalEndpoints {
    pub(super) fn count<'a>(plans: impl Iterator<Item = &'a ServicePortPlan>) -> Self {
        let mut counts = Self::default();
        for plan in plans {
            // Without an external frontend the external outcome means nothing.
            let has_external = || plan.frontends.iter().any(Frontend::is_external);
            counts.internal += usize::from(plan.internal == Outcome::Drop);
            counts.external += usize::from(plan.external == Outcome::Drop && has_external());
        }
        counts
    }
}
