//! What we have put into the table, so that a change of one Service port costs work for that one only.
//!
//! Elements are not kept: they follow from the plans, the claims and the chains, which are far smaller.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    buckets::Buckets,
    entries::{Entry, PacketScope, entries},
    objects::{Element, Pool, Target, Value},
    plan::{Content, Elements, Plan},
};
use crate::{
    dataplane::Desired,
    plan::{Endpoint, Outcome, PlanKey, ServicePortPlan},
};

/// Our own account of the table; see [`Shadow::load`] for how it starts.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    scope: PacketScope,
    ports: BTreeMap<PlanKey, Arc<ServicePortPlan>>,
    /// Who wants each target. Two Services may name the same externalIP and port; the first in order has it, so that the
    /// outcome does not depend on who came first.
    claims: BTreeMap<Target, BTreeSet<PlanKey>>,
    /// How many entries use each endpoint of this node.
    local_endpoints: BTreeMap<IpAddr, u32>,
    node_port_addresses: BTreeSet<IpAddr>,
    buckets: Buckets,
}

impl Shadow {
    /// Takes over from what is in the kernel (`None`: no table, or not one of our layout), keeping chains in use.
    ///
    /// `chains` limits how many Service ports get a chain of their own.
    pub(crate) fn load(
        scope: PacketScope,
        chains: usize,
        desired: &Desired,
        observed: Option<&Content>,
    ) -> (Self, Plan) {
        let mut shadow = Self {
            scope,
            ports: BTreeMap::new(),
            claims: BTreeMap::new(),
            local_endpoints: BTreeMap::new(),
            node_port_addresses: desired.node_port_addresses.clone(),
            buckets: Buckets::new(chains),
        };
        for (key, plan) in &desired.ports {
            shadow.insert(key, plan);
        }
        // Adopt for all before taking for any: a new Service port must not get the chain an old one has alone.
        if let Some(observed) = observed {
            for key in desired.ports.keys() {
                shadow.adopt(key, &observed.elements);
            }
        }
        for key in desired.ports.keys() {
            shadow.take_chains(key);
        }
        let content = shadow.content();
        let plan = match observed {
            Some(observed) => Plan::between(observed, &content),
            None => Plan::rebuild(&content),
        };
        (shadow, plan)
    }

    /// Follows `desired` for `keys`, and for whoever gains or loses a target through that.
    pub(crate) fn update(&mut self, desired: &Desired, keys: &[PlanKey]) -> Plan {
        let affected = self.affected(desired, keys);
        let addresses = self.local_addresses(desired, keys);
        let before = self.part(&affected, &addresses);
        let pools: BTreeMap<&PlanKey, BTreeSet<Pool>> = affected.iter().map(|key| (key, self.pools(key))).collect();
        for key in keys {
            self.remove(key);
            if let Some(plan) = desired.ports.get(key) {
                self.insert(key, plan);
            }
        }
        for (key, old) in pools {
            for pool in old.difference(&self.pools(key)) {
                self.buckets.release(key, *pool);
            }
            self.take_chains(key);
        }
        Plan::between(&before, &self.part(&affected, &addresses))
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

    /// Every endpoint element of a Service port, with the endpoint it stands for.
    pub(crate) fn endpoint_elements(&self, key: &PlanKey) -> Vec<(Element, Endpoint)> {
        self.won(key).iter().flat_map(|entry| slots(entry).map(|(element, endpoint)| (element, *endpoint))).collect()
    }

    /// Everything the table should hold.
    fn content(&self) -> Content {
        let mut elements = Elements::new();
        elements.extend(self.node_port_addresses.iter().map(|a| (Element::NodePortAddress(*a), Value::Present)));
        elements.extend(self.local_endpoints.keys().map(|a| (Element::Hairpin(*a), Value::Present)));
        for key in self.ports.keys() {
            self.collect_elements(key, &mut elements);
        }
        Content::new(self.buckets.chains(), elements)
    }

    /// The elements of `keys` and the hairpin elements among `addresses`, with all chains.
    fn part(&self, keys: &BTreeSet<PlanKey>, addresses: &BTreeSet<IpAddr>) -> Content {
        let mut elements: Elements = addresses
            .iter()
            .filter(|a| self.local_endpoints.contains_key(a))
            .map(|a| (Element::Hairpin(*a), Value::Present))
            .collect();
        for key in keys {
            self.collect_elements(key, &mut elements);
        }
        Content::new(self.buckets.chains(), elements)
    }

    fn collect_elements(&self, key: &PlanKey, elements: &mut Elements) {
        for entry in self.won(key) {
            let target = entry.target;
            let (element, value) = match (&entry.outcome, entry.pool()) {
                (Outcome::Drop, _) => (Element::Refusal(target), Value::Drop),
                (Outcome::Endpoints(_), Some(pool)) => {
                    let chain = self.buckets.get(key, pool).expect("take_chains ran for this key");
                    (Element::Dispatch(target), Value::Chain(chain))
                }
                (Outcome::Reject, _) | (Outcome::Endpoints(_), None) => (Element::Refusal(target), Value::Reject),
            };
            elements.insert(element, value);
            elements.extend(slots(&entry).map(|(element, endpoint)| {
                (element, Value::Endpoint(SocketAddr::new(endpoint.address, endpoint.port)))
            }));
        }
    }

    /// The entries of `key` whose target it has.
    fn won(&self, key: &PlanKey) -> Vec<Entry> {
        let mut entries = self.ports.get(key).map_or_else(Vec::new, |p| entries(p, self.scope));
        entries.retain(|entry| self.claims.get(&entry.target).and_then(BTreeSet::first) == Some(key));
        entries
    }

    fn pools(&self, key: &PlanKey) -> BTreeSet<Pool> {
        self.won(key).iter().filter_map(Entry::pool).collect()
    }

    fn take_chains(&mut self, key: &PlanKey) {
        for pool in self.pools(key) {
            self.buckets.take(key, pool);
        }
    }

    fn adopt(&mut self, key: &PlanKey, observed: &Elements) {
        for entry in self.won(key) {
            if let Some(Value::Chain(chain)) = observed.get(&Element::Dispatch(entry.target))
                && Some(chain.pool) == entry.pool()
            {
                self.buckets.adopt(key, *chain);
            }
        }
    }

    /// `keys`, and all that claim a target any of them has or will have.
    fn affected(&self, desired: &Desired, keys: &[PlanKey]) -> BTreeSet<PlanKey> {
        let mut affected: BTreeSet<PlanKey> = keys.iter().cloned().collect();
        for entry in self.old_and_new(desired, keys) {
            if let Some(claimants) = self.claims.get(&entry.target) {
                affected.extend(claimants.iter().cloned());
            }
        }
        affected
    }

    fn local_addresses(&self, desired: &Desired, keys: &[PlanKey]) -> BTreeSet<IpAddr> {
        self.old_and_new(desired, keys).flat_map(|entry| local_addresses(&entry).collect::<Vec<_>>()).collect()
    }

    fn old_and_new<'a>(&'a self, desired: &'a Desired, keys: &'a [PlanKey]) -> impl Iterator<Item = Entry> + 'a {
        keys.iter()
            .flat_map(|key| [self.ports.get(key), desired.ports.get(key)])
            .flatten()
            .flat_map(|plan| entries(plan, self.scope))
    }

    fn insert(&mut self, key: &PlanKey, plan: &Arc<ServicePortPlan>) {
        for entry in entries(plan, self.scope) {
            self.claims.entry(entry.target).or_default().insert(key.clone());
            for address in local_addresses(&entry) {
                *self.local_endpoints.entry(address).or_default() += 1;
            }
        }
        self.ports.insert(key.clone(), Arc::clone(plan));
    }

    fn remove(&mut self, key: &PlanKey) {
        let Some(plan) = self.ports.remove(key) else { return };
        for entry in entries(&plan, self.scope) {
            if let Some(claimants) = self.claims.get_mut(&entry.target) {
                claimants.remove(key);
                if claimants.is_empty() {
                    self.claims.remove(&entry.target);
                }
            }
            for address in local_addresses(&entry) {
                if let Some(users) = self.local_endpoints.get_mut(&address) {
                    *users -= 1;
                    if *users == 0 {
                        self.local_endpoints.remove(&address);
                    }
                }
            }
        }
    }
}

/// The endpoint elements of an entry.
fn slots(entry: &Entry) -> impl Iterator<Item = (Element, &Endpoint)> {
    let (target, count) = (entry.target, entry.pool().map_or(0, |pool| pool.map.count));
    (0..count).zip(entry.endpoints()).map(move |(slot, endpoint)| (Element::Endpoint { count, target, slot }, endpoint))
}

fn local_addresses(entry: &Entry) -> impl Iterator<Item = IpAddr> {
    entry.endpoints().iter().filter(|endpoint| endpoint.local).map(|endpoint| endpoint.address)
}
