//! What we have put into the table, so that a change of one Service port costs work for that one only.
//!
//! Elements are not kept: they follow from the plans, the chains and the numbers, which are far smaller.

mod adoption;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    affinity::Numbers,
    buckets::Buckets,
    element::{Element, Value},
    elements::{Writer, at},
    entries::{Entry, PacketScope, entries},
    plan::{Content, Elements, Plan},
    pool::{List, Pool},
};
use crate::{
    dataplane::Desired,
    packed::pack,
    plan::{Endpoint, Frontend, PacketSettings, PlanKey, ServicePortPlan},
};

/// Our own account of the table; see [`Shadow::load`] for how it starts.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    scope: PacketScope,
    /// Service ports of which only what cannot wait is in the table: their second line is not.
    behind: BTreeSet<PlanKey>,
    settings: Arc<PacketSettings>,
    ports: BTreeMap<PlanKey, Arc<ServicePortPlan>>,
    /// How many Service ports need each of the elements that are not theirs alone.
    shared: BTreeMap<Element, u32>,
    node_port_addresses: BTreeSet<IpAddr>,
    buckets: Buckets,
    numbers: Numbers,
}

/// What the kernel's table turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// There is no table.
    Nothing,
    /// It has another layout, or somebody changed it in a way we do not undo piecemeal.
    Foreign,
    /// It is of our layout.
    Ours(Content),
}

impl Shadow {
    /// Takes over from what is in the kernel, keeping chains and numbers in use.
    ///
    /// Second lines that are there stay, others are left to [`Shadow::behind`].
    ///
    /// `chains` limits how many Service ports get a chain of their own.
    pub(crate) fn load(
        scope: PacketScope,
        settings: &Arc<PacketSettings>,
        chains: usize,
        desired: &Desired,
        observed: &Observed,
    ) -> (Self, Plan) {
        let mut shadow = Self {
            scope,
            behind: BTreeSet::new(),
            settings: Arc::clone(settings),
            ports: BTreeMap::new(),
            shared: BTreeMap::new(),
            node_port_addresses: desired.node_port_addresses.clone(),
            buckets: Buckets::new(chains),
            numbers: Numbers::default(),
        };
        shadow.fall_behind(desired, observed);
        // Adopt for all before taking for any: a new Service port must not get what an old one has alone.
        if let Observed::Ours(observed) = observed {
            for (key, plan) in &desired.ports {
                shadow.adopt(key, plan, &observed.elements);
            }
        }
        for (key, plan) in &desired.ports {
            shadow.insert(key, plan);
            shadow.take_chains(key);
        }
        shadow.pack_when_complete();
        let content = shadow.content();
        let plan = match observed {
            Observed::Ours(observed) => Plan::between(observed, &content),
            Observed::Foreign => Plan::rebuild(&content),
            Observed::Nothing => Plan::build(&content),
        };
        (shadow, plan)
    }

    /// Follows `desired` for `keys`.
    pub(crate) fn update(&mut self, desired: &Desired, keys: &[PlanKey]) -> Plan {
        let was_behind = !self.behind.is_empty();
        let keys: BTreeSet<&PlanKey> = keys.iter().collect();
        let old_and_new = keys.iter().flat_map(|key| [self.ports.get(*key), desired.ports.get(*key)]).flatten();
        let shared: BTreeSet<Element> = old_and_new.flat_map(|plan| self.shared_elements(plan, self.scope)).collect();
        let before = self.part(&keys, &shared);
        let pools: BTreeMap<&PlanKey, BTreeSet<Pool>> = keys.iter().map(|key| (*key, self.pools(key))).collect();
        for key in &keys {
            self.remove(key);
            self.behind.remove(*key);
            match desired.ports.get(*key) {
                Some(plan) => self.insert(key, plan),
                None => self.numbers.release(key),
            }
        }
        for (key, old) in pools {
            for pool in old.difference(&self.pools(key)) {
                self.buckets.release(key, *pool);
            }
            self.take_chains(key);
        }
        if was_behind {
            self.pack_when_complete();
        }
        Plan::between(&before, &self.part(&keys, &shared))
    }

    /// After everything was put in, in the order of keys, packs what it went into.
    fn pack_when_complete(&mut self) {
        if self.behind.is_empty() {
            pack(&mut self.ports);
            pack(&mut self.shared);
            self.buckets.pack();
        }
    }

    /// Some Service ports, at most `limit`, that have no second line yet: [`Shadow::update`] gives it to them.
    pub(crate) fn behind(&self, limit: usize) -> Vec<PlanKey> {
        self.behind.iter().take(limit).cloned().collect()
    }

    /// Follows `desired` for the NodePort addresses.
    pub(crate) fn update_node_port_addresses(&mut self, desired: &Desired) -> Plan {
        let content = |addresses: &BTreeSet<IpAddr>| {
            let elements = addresses.iter().map(|a| (Element::NodePortAddress(*a), Value::Present));
            Content { elements: elements.collect(), ..Content::default() }
        };
        let before = content(&self.node_port_addresses);
        self.node_port_addresses.clone_from(&desired.node_port_addresses);
        Plan::between(&before, &content(&self.node_port_addresses))
    }

    /// Every element that leads to an endpoint of a Service port, with the endpoint.
    pub(crate) fn endpoint_elements(&self, key: &PlanKey) -> Vec<(Element, Endpoint)> {
        let Some(plan) = self.ports.get(key) else { return Vec::new() };
        let writer = self.writer(key, plan);
        let mut elements = Vec::new();
        for entry in self.entries(key, plan) {
            for (pool, endpoints) in [List::Main, List::Node].into_iter().filter_map(|list| entry.balanced(list)) {
                elements.extend(writer.endpoints(&entry, pool, endpoints).map(|(element, e)| (element, *e)));
            }
        }
        elements
    }

    /// Everything the table should hold.
    fn content(&self) -> Content {
        let mut elements = Elements::new();
        elements.extend(self.node_port_addresses.iter().map(|a| (Element::NodePortAddress(*a), Value::Present)));
        elements.extend(self.shared.keys().map(|element| (*element, Value::Present)));
        for key in self.ports.keys() {
            self.collect_elements(key, &mut elements);
        }
        Content::new(self.buckets.chains(), elements)
    }

    /// The elements of `keys` and those of `shared` that are there, with all chains.
    fn part(&self, keys: &BTreeSet<&PlanKey>, shared: &BTreeSet<Element>) -> Content {
        let present = shared.iter().filter(|element| self.shared.contains_key(element));
        let mut elements: Elements = present.map(|element| (*element, Value::Present)).collect();
        for key in keys {
            self.collect_elements(key, &mut elements);
        }
        Content::new(self.buckets.chains(), elements)
    }

    fn collect_elements(&self, key: &PlanKey, elements: &mut Elements) {
        let Some(plan) = self.ports.get(key) else { return };
        let writer = self.writer(key, plan);
        for entry in self.entries(key, plan) {
            writer.collect(&entry, elements);
        }
    }

    fn writer<'a>(&'a self, key: &'a PlanKey, plan: &'a ServicePortPlan) -> Writer<'a> {
        Writer { key, buckets: &self.buckets, numbers: &self.numbers, source_ranges: &plan.source_ranges }
    }

    /// Without affinity where no number is left for it.
    fn entries(&self, key: &PlanKey, plan: &ServicePortPlan) -> Vec<Entry> {
        let mut entries = entries(plan, self.scope_of(key), &self.settings);
        if self.numbers.of_port(key).is_none() {
            entries.iter_mut().for_each(Entry::forget_affinity);
        }
        entries
    }

    fn scope_of(&self, key: &PlanKey) -> PacketScope {
        if self.behind.contains(key) { self.scope.without_second_line() } else { self.scope }
    }

    fn pools(&self, key: &PlanKey) -> BTreeSet<Pool> {
        let entries = self.ports.get(key).map_or_else(Vec::new, |plan| self.entries(key, plan));
        entries.iter().flat_map(Entry::pools).collect()
    }

    fn take_chains(&mut self, key: &PlanKey) {
        for pool in self.pools(key) {
            self.buckets.take(key, pool);
        }
    }

    fn shared_elements(&self, plan: &ServicePortPlan, scope: PacketScope) -> BTreeSet<Element> {
        let mut shared: BTreeSet<Element> =
            entries(plan, scope, &self.settings).iter().flat_map(Entry::shared_elements).collect();
        shared.extend(plan.frontends.iter().filter_map(|frontend| match frontend {
            Frontend::ClusterIp(at) => Some(Element::ClusterIp(at.ip())),
            _ => None,
        }));
        shared
    }

    fn insert(&mut self, key: &PlanKey, plan: &Arc<ServicePortPlan>) {
        for element in self.shared_elements(plan, self.scope_of(key)) {
            *self.shared.entry(element).or_default() += 1;
        }
        match plan.affinity {
            Some(_) => {
                let endpoints = plan.endpoints().iter().map(at).collect();
                if !self.numbers.set(key, &endpoints) {
                    tracing::warn!(service_port = %key, "too many endpoints or ports with session affinity: it has none");
                }
            }
            None => self.numbers.release(key),
        }
        self.ports.insert(key.clone(), Arc::clone(plan));
    }

    fn remove(&mut self, key: &PlanKey) {
        let Some(plan) = self.ports.remove(key) else { return };
        for element in self.shared_elements(&plan, self.scope_of(key)) {
            if let Some(users) = self.shared.get_mut(&element) {
                *users -= 1;
                if *users == 0 {
                    self.shared.remove(&element);
                }
            }
        }
    }
}
