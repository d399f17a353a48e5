//! One Service port as it is in the maps.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use weft_ebpf::Full;
use weft_ebpf_abi::{SERVICE_DROP, SERVICE_REJECT, ServiceValue};

use super::{
    blocks::Block,
    frontend::{FrontendKey, Role, frontends},
    storage::{Item, Request, Storage},
    writes::{Slot, Writes},
};
use crate::{
    model::IpFamily,
    plan::{Endpoint, Outcome, ServicePortPlan},
};

/// A backend set: what one or more frontends of a Service port lead to.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// Kept for as long as the port has a set in this role, so that round robin goes on where it was.
    pub(crate) id: u32,
    /// Where its endpoints are; `None` without endpoints.
    pub(crate) block: Option<Block>,
    pub(crate) outcome: Outcome,
}

/// Session affinity of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Affinity {
    /// The port's number in `AFFINITY`, from among those of sets. Kept for as long as the port has affinity, so that clients stay with
    /// their endpoints whatever else changes.
    pub(crate) id: u32,
    /// Timeout.
    pub(crate) seconds: u32,
}

impl Set {
    fn value(&self, affinity: Option<Affinity>) -> ServiceValue {
        let flags = match self.outcome {
            Outcome::Endpoints(_) => 0,
            Outcome::Reject => SERVICE_REJECT,
            Outcome::Drop => SERVICE_DROP,
        };
        let (base, count) = self.block.map_or((0, 0), |block| (block.base, block.count));
        let (affinity_id, affinity_seconds) = affinity.map_or((0, 0), |affinity| (affinity.id, affinity.seconds));
        ServiceValue { set_id: self.id, base, count, flags, affinity_id, affinity_seconds }
    }
}

/// See the module. `sets` is indexed by [`Role`]; the second is `None` while both roles have the same outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Port {
    /// Frontends and the index of their set, sorted.
    pub(crate) frontends: Vec<(FrontendKey, usize)>,
    pub(crate) sets: [Option<Set>; 2],
    /// The endpoints of both sets, sorted, each once. Mostly the plan's own list: there may be 100,000 endpoints.
    endpoints: Arc<[Endpoint]>,
    /// Their elements of `CONNECTIONS`, in the same order.
    counters: Box<[u32]>,
    pub(crate) affinity: Option<Affinity>,
}

impl Port {
    /// What the frontend leads to.
    pub(crate) fn value(&self, frontend: &FrontendKey) -> Option<ServiceValue> {
        let place = self.frontends.binary_search_by_key(frontend, |(key, _)| *key).ok()?;
        self.sets[self.frontends[place].1].as_ref().map(|set| set.value(self.affinity))
    }

    /// The counter of an endpoint.
    pub(crate) fn counter(&self, endpoint: &Endpoint) -> Option<u32> {
        let place = self.endpoints.binary_search_by_key(&identity(endpoint), identity).ok()?;
        Some(self.counters[place])
    }

    /// Every endpoint with its counter.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (Endpoint, u32)> {
        self.endpoints.iter().copied().zip(self.counters.iter().copied())
    }

    /// Makes these, which are sorted, the endpoints.
    pub(crate) fn count(&mut self, counted: &[(SocketAddr, u32)]) {
        self.endpoints = counted.iter().map(|(address, _)| endpoint(*address)).collect();
        self.counters = counted.iter().map(|(_, counter)| *counter).collect();
    }

    /// Everything it has in array maps.
    pub(crate) fn items(&self, family: IpFamily) -> impl Iterator<Item = Item> {
        let blocks = self.sets.iter().flatten().filter_map(move |set| Some(Item::Block(family, set.block?)));
        let sets = self.sets.iter().flatten().map(|set| Item::Set(set.id));
        let affinity = self.affinity.iter().map(|affinity| Item::Set(affinity.id));
        blocks.chain(sets).chain(affinity).chain(self.counters.iter().copied().map(Item::Counter))
    }

    /// The port as `plan` wants it, keeping of `self` what stays as it is: the ids of its sets and its affinity, blocks with the same endpoints, the
    /// counters of endpoints that remain. What is new is appended to `writes`.
    pub(crate) fn planned(
        &self,
        plan: &ServicePortPlan,
        storage: &mut Storage,
        writes: &mut Writes,
    ) -> Result<Self, Full> {
        let family = plan.key.family;
        let mut next = Self { frontends: indexed_frontends(plan), ..Self::default() };
        let wanted = [Role::Internal, Role::External].map(|role| {
            let used = next.frontends.iter().any(|(_, index)| *index == role as usize);
            used.then_some(outcome(plan, role))
        });

        next.endpoints = united(wanted);
        let mut grant = storage.allocate(family, &self.missing(plan, wanted, &next.endpoints))?;

        writes.counters.extend(&grant.counters);
        writes.turns.extend(&grant.sets);
        let mut counter_of = |endpoint: &Endpoint| {
            let counter = self.counter(endpoint).or_else(|| grant.counters.pop_front());
            counter.expect("as many counters as new endpoints were granted")
        };
        next.counters = next.endpoints.iter().map(&mut counter_of).collect();
        for (index, outcome) in wanted.into_iter().enumerate() {
            let Some(outcome) = outcome else { continue };
            let old = self.sets[index].as_ref();
            let id =
                old.map_or_else(|| grant.sets.pop_front().expect("one was granted for each new set"), |set| set.id);
            let block = match self.unchanged_block(index, outcome) {
                None if !outcome.endpoints().is_empty() => {
                    let block = grant.blocks.pop_front().expect("one was granted for each changed set");
                    next.write_block(block, outcome, writes.slots(family));
                    Some(block)
                }
                unchanged => unchanged,
            };
            next.sets[index] = Some(Set { id, block, outcome: outcome.clone() });
        }
        next.affinity = plan.affinity.map(|timeout| Affinity {
            id: self.affinity.map_or_else(
                || grant.sets.pop_front().expect("one was granted for new affinity"),
                |affinity| affinity.id,
            ),
            seconds: seconds(timeout),
        });
        Ok(next)
    }

    /// What `plan` needs, with these outcomes and endpoints, that `self` has not.
    fn missing(&self, plan: &ServicePortPlan, wanted: [Option<&Outcome>; 2], endpoints: &[Endpoint]) -> Request {
        let mut request = Request {
            counters: endpoints.iter().filter(|endpoint| self.counter(endpoint).is_none()).count(),
            sets: usize::from(plan.affinity.is_some() && self.affinity.is_none()),
            ..Request::default()
        };
        for (index, outcome) in wanted.into_iter().enumerate() {
            let Some(outcome) = outcome else { continue };
            request.sets += usize::from(self.sets[index].is_none());
            if !outcome.endpoints().is_empty() && self.unchanged_block(index, outcome).is_none() {
                request.blocks.push(length(outcome));
            }
        }
        request
    }

    /// The block of a set whose endpoints are already those of `outcome`. Counters need no look: they stay with their endpoints.
    fn unchanged_block(&self, index: usize, outcome: &Outcome) -> Option<Block> {
        let set = self.sets[index].as_ref()?;
        let (old, new) = (set.outcome.endpoints(), outcome.endpoints());
        // Endpoints are compared without `local`, which no program reads.
        old.iter().map(address).eq(new.iter().map(address)).then_some(set.block).flatten()
    }

    fn write_block(&self, block: Block, outcome: &Outcome, slots: &mut Vec<(u32, Slot)>) {
        for (index, endpoint) in (block.base..).zip(outcome.endpoints()) {
            let counter = self.counter(endpoint).expect("every endpoint of the plan has a counter by now");
            slots.push((index, Slot { endpoint: address(endpoint), counter }));
        }
    }
}

/// The frontends with the index of the set each leads to: one set for both roles if their outcomes are equal, so that they take turns
/// together.
fn indexed_frontends(plan: &ServicePortPlan) -> Vec<(FrontendKey, usize)> {
    let shared = plan.internal == plan.external_from_node;
    let index = |role| if shared { Role::Internal as usize } else { role as usize };
    frontends(plan).into_iter().map(|(key, role)| (key, index(role))).collect()
}

fn outcome(plan: &ServicePortPlan, role: Role) -> &Outcome {
    match role {
        Role::Internal => &plan.internal,
        Role::External => &plan.external_from_node,
    }
}

/// The endpoints of both outcomes, sorted, each once; where only one has any, its own list.
fn united(outcomes: [Option<&Outcome>; 2]) -> Arc<[Endpoint]> {
    let list = |outcome: Option<&Outcome>| match outcome {
        Some(Outcome::Endpoints(list)) => Arc::clone(list),
        _ => Arc::default(),
    };
    match outcomes.map(list) {
        [one, other] if other.is_empty() || one == other => one,
        [one, other] if one.is_empty() => other,
        [one, other] => {
            let mut all = [&one[..], &other[..]].concat();
            all.sort_unstable();
            all.dedup_by_key(|endpoint| identity(endpoint));
            all.into()
        }
    }
}

/// What makes it this endpoint, in the order of endpoints.
fn identity(endpoint: &Endpoint) -> (IpAddr, u16) {
    (endpoint.address, endpoint.port)
}

/// 0 would turn affinity off, and the API allows only whole seconds up to a day (7.2).
fn seconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn length(outcome: &Outcome) -> u32 {
    u32::try_from(outcome.endpoints().len()).expect("fewer than 2^32 endpoints fit in memory")
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}

/// An endpoint as the maps have it: whether it is local is not in them.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { address: address.ip(), port: address.port(), local: false }
}
