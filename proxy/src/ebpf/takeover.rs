//! What a new agent makes of the maps a former one left, and of its own after an error.
//!
//! The maps do not say which Service an element belongs to; the plan does, by its frontends. A Service whose frontends are found keeps
//! its sets, blocks, counters and affinity, so that turns and counts go on and nothing is written that is right already.

use std::{collections::HashSet, net::SocketAddr};

use weft_ebpf_abi::{SERVICE_REJECT, ServiceValue};

use super::{
    blocks::Block,
    frontend::{FrontendKey, Role, frontends},
    port::{Affinity, Port, Set, endpoint},
    storage::{Item, Storage},
    writes::{Observed, Slot},
};
use crate::{
    model::IpFamily,
    plan::{Outcome, ServicePortPlan},
};

/// What was found, and how much of it has an owner by now.
pub(crate) struct Takeover<'a> {
    observed: &'a Observed,
    /// All that makes sense, each once: reserved in the storage.
    found: HashSet<Item>,
    adopted: HashSet<Item>,
}

impl<'a> Takeover<'a> {
    /// Reserves everything the maps refer to.
    pub(crate) fn new(observed: &'a Observed, storage: &mut Storage) -> Self {
        let sets = observed.services.values().map(|value| Item::Set(value.set_id));
        let affinities = observed.services.values().filter_map(affinity).map(|affinity| Item::Set(affinity.id));
        let blocks = observed.blocks.keys().map(|&(family, block)| Item::Block(family, block));
        let counters = observed.blocks.values().flatten().map(|slot| Item::Counter(slot.counter));
        let found =
            sets.chain(affinities).chain(blocks).chain(counters).filter(|&item| storage.reserve(item)).collect();
        Self { observed, found, adopted: HashSet::new() }
    }

    /// The port as it was left; empty if nothing of it is there.
    pub(crate) fn adopt(&mut self, plan: &ServicePortPlan) -> Port {
        let family = plan.key.family;
        let mut port = Port::default();
        let mut counters = Vec::new();
        let frontends = frontends(plan);
        for role in [Role::Internal, Role::External] {
            let mut values =
                frontends.iter().filter(|(_, of)| *of == role).filter_map(|(key, _)| self.observed.services.get(key));
            // `adopt_set` refuses a set that already has an owner, as the one both roles share has after the first.
            port.sets[role as usize] = values.find_map(|value| self.adopt_set(value, family, &mut counters));
        }
        port.count(&counters);
        port.affinity = frontends
            .iter()
            .filter_map(|(key, _)| affinity(self.observed.services.get(key)?))
            .find(|affinity| self.take(Item::Set(affinity.id)).is_some());
        for (key, _) in frontends {
            if let Some(index) = self.set_of(&key, &port) {
                port.frontends.push((key, index));
            }
        }
        port
    }

    /// What nobody wanted.
    pub(crate) fn leftovers(self) -> Vec<Item> {
        let mut leftovers: Vec<_> = self.found.difference(&self.adopted).copied().collect();
        leftovers.sort_unstable();
        leftovers
    }

    fn set_of(&self, key: &FrontendKey, port: &Port) -> Option<usize> {
        let value = self.observed.services.get(key)?;
        port.sets.iter().position(|set| set.as_ref().is_some_and(|set| set.id == value.set_id))
    }

    fn adopt_set(
        &mut self,
        value: &ServiceValue,
        family: IpFamily,
        counters: &mut Vec<(SocketAddr, u32)>,
    ) -> Option<Set> {
        let id = value.set_id;
        self.take(Item::Set(id))?;
        let block = Block { base: value.base, count: value.count };
        if let Some(slots) = self.observed.blocks.get(&(family, block))
            && self.adopt_block(Item::Block(family, block), slots, counters).is_some()
        {
            // Good only for comparing addresses.
            let endpoints = slots.iter().map(|slot| endpoint(slot.endpoint)).collect();
            return Some(Set { id, block: Some(block), outcome: Outcome::Endpoints(endpoints) });
        }
        // Without endpoints, or with a block that makes no sense: its number is enough to go on with.
        let outcome = if value.flags & SERVICE_REJECT != 0 { Outcome::Reject } else { Outcome::Drop };
        Some(Set { id, block: None, outcome })
    }

    /// Takes the block and the counters in it, if each counter is this port's or nobody's.
    fn adopt_block(&mut self, block: Item, slots: &[Slot], counters: &mut Vec<(SocketAddr, u32)>) -> Option<()> {
        let mut merged = counters.clone();
        for slot in slots {
            match merged.binary_search_by_key(&slot.endpoint, |(address, _)| *address) {
                Ok(place) if merged[place].1 == slot.counter => {}
                Ok(_) => return None,
                Err(place) => {
                    let counter = Item::Counter(slot.counter);
                    let taken = self.adopted.contains(&counter) || merged.iter().any(|&(_, id)| id == slot.counter);
                    if taken || !self.found.contains(&counter) {
                        return None;
                    }
                    merged.insert(place, (slot.endpoint, slot.counter));
                }
            }
        }
        self.take(block)?;
        self.adopted.extend(slots.iter().map(|slot| Item::Counter(slot.counter)));
        *counters = merged;
        Some(())
    }

    /// Makes it somebody's; `None` if it is not there to be had.
    fn take(&mut self, item: Item) -> Option<()> {
        (self.found.contains(&item) && self.adopted.insert(item)).then_some(())
    }
}

fn affinity(value: &ServiceValue) -> Option<Affinity> {
    let ServiceValue { affinity_id: id, affinity_seconds: seconds, .. } = *value;
    (seconds != 0).then_some(Affinity { id, seconds })
}
