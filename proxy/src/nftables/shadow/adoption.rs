//! What a new agent makes of the table that a former one left, and of its own after an error.

use std::net::SocketAddr;

use super::{Observed, Shadow};
use crate::{
    dataplane::Desired,
    nftables::{
        collection::Stage,
        element::{Element, Value},
        entries::entries,
        plan::{Content, Elements},
        pool::{Chain, MapKind},
        target::Target,
    },
    plan::{PlanKey, ServicePortPlan},
};

impl Shadow {
    /// Finds out whose second line is missing.
    pub(super) fn fall_behind(&mut self, desired: &Desired, observed: &Observed) {
        if self.scope.without_second_line() == self.scope {
            return;
        }
        let is_there = |target| match observed {
            Observed::Ours(Content { elements, .. }) => {
                let stage = Stage::First;
                [Element::Dispatch { stage, target }, Element::Refusal(target)].iter().any(|e| elements.contains_key(e))
            }
            Observed::Nothing | Observed::Foreign => false,
        };
        for (key, plan) in &desired.ports {
            let all = entries(plan, self.scope, &self.settings);
            let urgent = entries(plan, self.scope.without_second_line(), &self.settings);
            let mut second_line = all
                .iter()
                .map(|entry| entry.target)
                .filter(|target| !urgent.iter().any(|entry| entry.target == *target));
            if second_line.any(|target| !is_there(target)) {
                self.behind.insert(key.clone());
            }
        }
    }

    /// Lets a Service port have the chains and numbers it had before a restart.
    pub(super) fn adopt(&mut self, key: &PlanKey, plan: &ServicePortPlan, observed: &Elements) {
        for entry in entries(plan, self.scope_of(key), &self.settings) {
            let target = entry.target;
            for chain in Stage::ALL.iter().filter_map(|stage| chain_of(observed, *stage, target)) {
                if entry.pools().any(|pool| pool == chain.pool) {
                    self.buckets.adopt(key, chain);
                }
                if let Some(Value::Number(port)) = observed.get(&Element::AffinityPort(target)) {
                    self.numbers.adopt(key, *port, numbered(observed, chain, target));
                }
            }
        }
    }
}

fn chain_of(observed: &Elements, stage: Stage, target: Target) -> Option<Chain> {
    match observed.get(&Element::Dispatch { stage, target }) {
        Some(Value::Chain(chain)) => Some(*chain),
        _ => None,
    }
}

/// The numbers of the endpoints that `chain` gives `target`.
fn numbered(observed: &Elements, chain: Chain, target: Target) -> impl Iterator<Item = (SocketAddr, u32)> {
    let element = move |slot| Element::Endpoint { map: chain.map(MapKind::Numbered), target, slot };
    observed.range(element(0)..=element(u32::MAX)).filter_map(|(element, value)| match (element, value) {
        (Element::Endpoint { slot, .. }, Value::Endpoint(at)) => Some((*at, *slot)),
        _ => None,
    })
}
