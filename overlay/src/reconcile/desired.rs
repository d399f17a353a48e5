//! What leases say: this node's own and all others', and the desired state that follows from them.

use std::sync::Arc;

use tracing::warn;

use super::{Reconciler, Task, kernel};
use crate::{
    join::lease_request,
    lease::{Lease, LeaseAttributes, LeaseRequest, LeaseSnapshot},
    plan::{self, Local},
};

impl Reconciler {
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// True if something happened to this node's own lease.
    pub(super) fn set_snapshot(&mut self, snapshot: Arc<LeaseSnapshot>) -> bool {
        let own = |of: &LeaseSnapshot| of.leases.iter().find(|lease| lease.subnets == self.lease.subnets).cloned();
        let own_changed = own(&self.snapshot) != own(&snapshot) || self.snapshot.rejected != snapshot.rejected;
        self.snapshot = snapshot;
        self.derive();
        own_changed
    }

    /// Takes the lease that was got for `requested`.
    pub(super) fn set_lease(&mut self, lease: Lease, requested: LeaseAttributes) {
        self.requested = requested;
        if lease != self.lease {
            self.lease = lease;
            self.pods_changed = true;
            self.derive();
        }
    }

    /// What the node's lease should be: the subnets it holds, with the addresses it has now.
    pub(super) fn announcement(&self) -> LeaseRequest {
        lease_request(&self.settings, &self.underlay, self.requested.clone(), Some(self.lease.subnets))
    }

    /// Whether everyone else sees that lease.
    pub(super) fn is_announced(&self) -> bool {
        let key = self.lease.subnets.to_string();
        self.announcement().attributes == self.requested
            && self.snapshot.leases.contains(&self.lease)
            && !self.snapshot.rejected.iter().any(|rejected| rejected.object == key)
    }

    /// Recomputes the desired state. What changed is tried at once, however often its former self failed.
    pub(super) fn derive(&mut self) {
        self.look_up_peers();
        let local = Local {
            net_conf: &self.settings.net_conf,
            lease: &self.lease,
            underlay: &self.underlay,
            reach: &self.reach,
            former: &self.former,
        };
        let (desired, problems) = plan::desired(local, &self.snapshot);
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            warn!(subnet = %problem.subnets, reason = problem.reason, "peer cannot be served");
        }
        let old = std::mem::replace(&mut self.desired, desired);
        self.problems = problems;
        let new = &self.desired;
        self.retries.retain(|task| match task {
            Task::Kernel(family, subject) => {
                kernel::same_subject(old.families.get(family), new.families.get(family), *subject)
            }
            _ => true,
        });
    }
}
