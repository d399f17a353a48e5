//! The desired state, and what of it differs after some Services were planned again.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{PlanKey, ServicePortPlan, claims::Claims};
use crate::{
    dataplane::Desired,
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    packed::pack,
};

/// Owns [`Desired`], so that a change never copies it.
#[derive(Debug, Default)]
pub(super) struct DesiredState {
    pub(super) desired: Desired,
    pub(super) claims: Claims,
}

impl DesiredState {
    /// Replaces all plans of the Services named. Returns the keys whose plan is added, changed or removed, sorted.
    pub(super) fn replace(&mut self, services: Vec<(ServiceName, Vec<ServicePortPlan>)>) -> Vec<PlanKey> {
        let mut changes = BTreeSet::new();
        // Who gets a frontend is known only when everyone has said what they ask for.
        let mut shares = BTreeSet::new();
        for (service, plans) in &services {
            for gone in self.keys_not_in(service, plans) {
                if let Some(plan) = self.desired.ports.remove(&gone) {
                    shares.extend(self.claims.ask(&gone, &plan.frontends, &[]));
                    self.claims.share(&gone, &[]);
                }
                changes.insert(gone);
            }
            for plan in plans {
                let held = self.desired.ports.get(&plan.key).map_or(&[][..], |old| &old.frontends);
                shares.extend(self.claims.ask(&plan.key, held, &plan.frontends));
            }
        }
        for mut plan in services.into_iter().flat_map(|(_, plans)| plans) {
            plan.frontends = self.claims.share(&plan.key, &plan.frontends);
            if self.desired.ports.get(&plan.key).is_none_or(|old| **old != plan) {
                changes.insert(plan.key.clone());
                self.desired.ports.insert(plan.key.clone(), Arc::new(plan));
            }
        }
        changes.extend(shares.into_iter().filter(|key| self.share_frontends(key)));
        if changes.len() > self.desired.ports.len() / 2 {
            pack(&mut self.desired.ports);
        }
        Vec::from_iter(changes)
    }

    /// Keys that this Service has now and will not have.
    fn keys_not_in(&self, service: &ServiceName, plans: &[ServicePortPlan]) -> Vec<PlanKey> {
        let kept: HashSet<_> = plans.iter().map(|plan| &plan.key).collect();
        let now = self.desired.ports.range(first_key(service)..).map(|(key, _)| key);
        now.take_while(|key| key.port.service == *service).filter(|key| !kept.contains(key)).cloned().collect()
    }

    /// Gives a Service port that was not planned again the frontends it wins now; true if they are others than before.
    fn share_frontends(&mut self, key: &PlanKey) -> bool {
        let Some(plan) = self.desired.ports.get_mut(key) else { return false };
        let frontends = self.claims.share(key, &self.claims.asked(key, &plan.frontends));
        let differ = plan.frontends != frontends;
        if differ {
            Arc::make_mut(plan).frontends = frontends;
        }
        differ
    }
}

/// The smallest key a port of this Service can have: keys are ordered by Service first.
pub(super) fn first_key(service: &ServiceName) -> PlanKey {
    let port = ServicePortName { service: service.clone(), port: "".into(), protocol: Protocol::Tcp };
    PlanKey { port, family: IpFamily::V4 }
}
