//! Who a frontend belongs to. The API server keeps ClusterIPs and NodePorts apart, but two Services may name the same externalIP.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::frontend::FrontendKey;
use crate::plan::PlanKey;

/// Of several Service ports that claim a frontend, the one with the smallest key owns it, in whatever order they came.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    owners: HashMap<FrontendKey, PlanKey>,
    /// The others; nearly always empty.
    waiting: BTreeMap<FrontendKey, BTreeSet<PlanKey>>,
}

impl Claims {
    /// Who owns the frontend.
    pub(crate) fn owner(&self, frontend: &FrontendKey) -> Option<&PlanKey> {
        self.owners.get(frontend)
    }

    /// Adds a claim.
    pub(crate) fn claim(&mut self, frontend: FrontendKey, key: &PlanKey) {
        let Some(owner) = self.owners.get(&frontend) else {
            self.owners.insert(frontend, key.clone());
            return;
        };
        if owner == key {
            return;
        }
        let (first, second) = if key < owner { (key, owner) } else { (owner, key) };
        tracing::warn!(%frontend, served = %first, not_served = %second, "two Services claim the same frontend");
        let (first, second) = (first.clone(), second.clone());
        self.owners.insert(frontend, first);
        self.waiting.entry(frontend).or_default().insert(second);
    }

    /// Takes a claim back; the frontend goes to the next in line.
    pub(crate) fn release(&mut self, frontend: &FrontendKey, key: &PlanKey) {
        let waiting = self.waiting.get_mut(frontend);
        if self.owners.get(frontend) == Some(key) {
            match waiting.and_then(BTreeSet::pop_first) {
                Some(next) => self.owners.insert(*frontend, next),
                None => self.owners.remove(frontend),
            };
        } else if let Some(waiting) = waiting {
            waiting.remove(key);
        }
        if self.waiting.get(frontend).is_some_and(BTreeSet::is_empty) {
            self.waiting.remove(frontend);
        }
    }
}
