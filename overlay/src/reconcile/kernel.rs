//! The part of a pass that rtnetlink shows: links, addresses, routes, neighbours and FDB.

use std::{collections::BTreeSet, time::Instant};

use ipnetwork::IpNetwork;
use tracing::{info, warn};

use super::{Cause, Reconciler, Task};
use crate::{
    apply,
    family::Family,
    observe,
    plan::{self, Step, Subject},
};

impl Reconciler {
    /// Brings links, addresses, routes, neighbours and FDB to the desired state; true if this node's own part is.
    pub(super) fn kernel_pass(&mut self, cause: Cause, now: Instant) -> bool {
        if self.retries.is_waiting(&Task::Observe, now) {
            return false;
        }
        let mut observed = match self.observed.take() {
            Some(observed) => observed,
            None => match observe::observe(&self.netlink, &self.desired) {
                Ok((observed, devices)) => {
                    self.retries.forget(&Task::Observe);
                    self.devices = devices;
                    observed
                }
                Err(error) => {
                    self.retries.failed(Task::Observe, now, error.to_string());
                    return false;
                }
            },
        };
        let steps = self.due(plan::plan(&self.desired, &observed), now);
        let failures = apply::apply(&self.netlink, &self.desired, &steps, &mut observed, &mut self.devices);
        let failed: BTreeSet<(Family, Subject)> =
            failures.iter().map(|failure| (failure.family, failure.subject)).collect();
        if cause != Cause::NewDesired && self.complete {
            self.count_repairs(&steps, &failed);
        }
        self.retries.retain(|task| match task {
            // What is not even in the plan, or was done, has not failed any more.
            Task::Kernel(family, subject) => {
                failed.contains(&(*family, *subject))
                    || !steps.iter().any(|step| (step.family, step.subject) == (*family, *subject))
            }
            _ => true,
        });
        // After an error nothing is certain: look before the next plan.
        if failures.is_empty() {
            self.observed = Some(observed);
        }
        for failure in failures {
            let error = failure.error.to_string();
            warn!(family = %failure.family, subject = ?failure.subject, error, "failed, will be tried again");
            self.retries.failed(Task::Kernel(failure.family, failure.subject), now, error);
        }
        self.kernel_is_well()
    }

    pub(super) fn kernel_is_well(&self) -> bool {
        let failed = |family: &Family| self.retries.has_failed(&Task::Kernel(*family, Subject::Node));
        !self.desired.families.is_empty()
            && !self.retries.has_failed(&Task::Observe)
            && !self.desired.families.keys().any(failed)
    }

    /// Leaves out what failed and is not due yet; with the node's own part waits all of its family.
    fn due(&mut self, mut steps: Vec<Step>, now: Instant) -> Vec<Step> {
        let planned: BTreeSet<_> = steps.iter().map(|step| (step.family, step.subject)).collect();
        self.retries.retain(|task| match task {
            // Somebody else did what failed, or it is no longer wanted.
            Task::Kernel(family, subject) => planned.contains(&(*family, *subject)),
            _ => true,
        });
        steps.retain(|step| {
            [Subject::Node, step.subject]
                .into_iter()
                .all(|subject| !self.retries.is_waiting(&Task::Kernel(step.family, subject), now))
        });
        steps
    }

    fn count_repairs(&mut self, steps: &[Step], failed: &BTreeSet<(Family, Subject)>) {
        let after = self.since_notice().map(tracing::field::debug);
        for step in steps {
            let key = (step.family, step.subject);
            // The end of a failure of ours is no repair of somebody else's change.
            if !failed.contains(&key) && !self.retries.has_failed(&Task::Kernel(key.0, key.1)) {
                info!(family = %step.family, action = %step.action, after, "repaired");
                *self.repairs.entry(step.action.kind()).or_default() += 1;
            }
        }
    }
}

/// Whether what a failure was about is still the same.
pub(super) fn same_subject(
    old: Option<&plan::DesiredFamily>,
    new: Option<&plan::DesiredFamily>,
    subject: Subject,
) -> bool {
    let peer = |state: Option<&plan::DesiredFamily>, subnet: &IpNetwork| {
        state.and_then(|state| state.peers.get(subnet).copied())
    };
    match subject {
        Subject::Peer(subnet) => peer(old, &subnet) == peer(new, &subnet),
        Subject::Node => {
            old.map(|state| (&state.device, state.subnet)) == new.map(|state| (&state.device, state.subnet))
        }
        Subject::Stale => true,
    }
}
