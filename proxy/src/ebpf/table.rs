//! Shadow of the maps, and the difference between it and the plan. Pure: no clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use weft_ebpf::{Full, MapSizes};
use weft_ebpf_abi::{ServiceValue, name};

use super::{
    claims::Claims,
    frontend::{FrontendKey, Role, frontends},
    port::Port,
    storage::{Item, Storage},
    takeover::Takeover,
    writes::{Observed, PortRange, Writes},
};
use crate::{
    dataplane::{Changed, Desired},
    packed::pack,
    plan::{PlanKey, ServicePortPlan},
};

/// A Service port that found no room. It stays as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) key: PlanKey,
    pub(crate) reason: Full,
}

/// Outcome of planning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) writes: Writes,
    pub(crate) refused: Vec<Refused>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    ports: BTreeMap<PlanKey, Port>,
    claims: Claims,
    /// `SERVICES4` and `SERVICES6`.
    written: HashMap<FrontendKey, ServiceValue>,
    /// How many of them, by family.
    elements: [usize; 2],
    /// `NODE_ADDRESSES4` and `NODE_ADDRESSES6`: whether only for the host's network namespace.
    node_addresses: BTreeMap<IpAddr, bool>,
    node_ports: PortRange,
    storage: Storage,
    localhost_node_ports: bool,
}

/// What has been found out so far in one planning.
#[derive(Default)]
struct Work {
    planned: Planned,
    /// Frontends whose element may have to change.
    affected: BTreeSet<FrontendKey>,
    /// Elements `SERVICES4` and `SERVICES6` get at most before the first is removed.
    added: [usize; 2],
}

impl Table {
    pub(crate) fn new(sizes: MapSizes) -> Self {
        Self {
            ports: BTreeMap::new(),
            claims: Claims::default(),
            written: HashMap::new(),
            elements: [0; 2],
            node_addresses: BTreeMap::new(),
            node_ports: PortRange::default(),
            storage: Storage::new(sizes),
            localhost_node_ports: true,
        }
    }

    /// Whether NodePorts are at the host's loopback addresses too, as from the start (6.6).
    pub(crate) fn serve_node_ports_at_localhost(&mut self, serve: bool) {
        self.localhost_node_ports = serve;
    }

    /// The Service port as last planned.
    pub(crate) fn port(&self, key: &PlanKey) -> Option<&Port> {
        self.ports.get(key)
    }

    /// How many elements each map has that only the agent writes.
    pub(crate) fn used(&self) -> Vec<(&'static str, u32)> {
        let [services4, services6] = self.elements;
        let v4 = self.node_addresses.keys().filter(|ip| ip.is_ipv4()).count();
        let hashes = [
            (name::SERVICES4, services4),
            (name::SERVICES6, services6),
            (name::NODE_ADDRESSES4, v4),
            (name::NODE_ADDRESSES6, self.node_addresses.len() - v4),
        ];
        let hashes = hashes.map(|(map, used)| (map, u32::try_from(used).unwrap_or(u32::MAX)));
        hashes.into_iter().chain(self.storage.taken()).collect()
    }

    /// Whether nothing is programmed or in quarantine.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.elements == [0; 2] && self.written.is_empty() && self.storage.is_empty()
    }

    /// What brings maps that hold `observed` to `desired`. Whatever the shadow said before is forgotten, except what may still be read by
    /// a program that is running.
    pub(crate) fn take_over(&mut self, observed: &Observed, desired: &Desired, now: Instant) -> Planned {
        let sizes = self.storage.sizes();
        let mut storage = Storage::new(sizes);
        let mut takeover = Takeover::new(observed, &mut storage);
        let known = self.ports.iter().flat_map(|(key, port)| port.items(key.family)).chain(self.storage.quarantined());
        for item in known {
            if storage.reserve(item) {
                storage.retire(item, now);
            }
        }
        *self = Self {
            storage,
            written: observed.services.iter().map(|(key, value)| (*key, *value)).collect(),
            node_addresses: observed.node_addresses.clone(),
            node_ports: observed.node_ports,
            localhost_node_ports: self.localhost_node_ports,
            ..Self::new(sizes)
        };
        for frontend in observed.services.keys() {
            self.elements[frontend.family() as usize] += 1;
        }
        for (key, plan) in &desired.ports {
            let port = takeover.adopt(plan);
            for (frontend, _) in &port.frontends {
                self.claims.claim(*frontend, key);
            }
            self.ports.insert(key.clone(), port);
        }
        for item in takeover.leftovers() {
            self.storage.retire(item, now);
        }

        let mut work = Work { affected: observed.services.keys().copied().collect(), ..Work::default() };
        for (key, plan) in &desired.ports {
            self.update(key, Some(plan), now, &mut work);
        }
        pack(&mut self.ports);
        self.plan_node_addresses(desired, &mut work);
        self.finish(work)
    }

    /// What brings maps that hold what was last planned to `desired`, looking only at `changed`.
    ///
    /// [`Changed::Everything`] is [`Table::take_over`]'s; here it means all keys.
    pub(crate) fn plan(&mut self, desired: &Desired, changed: &Changed, now: Instant) -> Planned {
        self.storage.expire(now);
        let mut work = Work::default();
        let keys: BTreeSet<PlanKey> = match changed {
            Changed::Ports(keys) => keys.iter().cloned().collect(),
            Changed::NodePortAddresses => BTreeSet::new(),
            Changed::Everything => self.ports.keys().chain(desired.ports.keys()).cloned().collect(),
        };
        for key in &keys {
            self.update(key, desired.ports.get(key).map(AsRef::as_ref), now, &mut work);
        }
        if !matches!(changed, Changed::Ports(_)) {
            self.plan_node_addresses(desired, &mut work);
        }
        self.finish(work)
    }

    fn update(&mut self, key: &PlanKey, plan: Option<&ServicePortPlan>, now: Instant, work: &mut Work) {
        let old = self.ports.remove(key).unwrap_or_default();
        let next = match plan.map(|plan| self.replacement(&old, plan, work)) {
            None => Port::default(),
            Some(Ok(next)) => next,
            Some(Err(reason)) => {
                work.planned.refused.push(Refused { key: key.clone(), reason });
                self.ports.insert(key.clone(), old);
                return;
            }
        };
        let kept: BTreeSet<Item> = next.items(key.family).collect();
        for item in old.items(key.family).filter(|item| !kept.contains(item)) {
            self.storage.retire(item, now);
        }
        for (frontend, _) in &old.frontends {
            if next.frontends.binary_search_by_key(frontend, |(key, _)| *key).is_err() {
                self.claims.release(frontend, key);
            }
            work.affected.insert(*frontend);
        }
        for (frontend, _) in &next.frontends {
            self.claims.claim(*frontend, key);
            work.affected.insert(*frontend);
        }
        if plan.is_some() {
            self.ports.insert(key.clone(), next);
        }
    }

    /// `old` as `plan` wants it, if there is room.
    fn replacement(&mut self, old: &Port, plan: &ServicePortPlan, work: &mut Work) -> Result<Port, Full> {
        let is_new = |(frontend, _): &(FrontendKey, Role)| !self.written.contains_key(frontend);
        let new = frontends(plan).into_iter().filter(is_new).count();
        let family = plan.key.family as usize;
        let elements = self.elements[family] + work.added[family] + new;
        let map = [name::SERVICES4, name::SERVICES6][family];
        let capacity = self.storage.sizes().of(map);
        if elements > capacity as usize {
            return Err(Full { map, capacity });
        }
        let next = old.planned(plan, &mut self.storage, &mut work.planned.writes)?;
        work.added[family] += new;
        Ok(next)
    }

    fn plan_node_addresses(&mut self, desired: &Desired, work: &mut Work) {
        // Every network namespace has loopback addresses of its own; only the host's lead to the node's ports.
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let loopback = loopback.into_iter().filter(|_| self.localhost_node_ports);
        let wanted: BTreeMap<IpAddr, bool> =
            desired.node_port_addresses.iter().copied().chain(loopback).map(|ip| (ip, ip.is_loopback())).collect();
        let changed = |(ip, host_only): &(&IpAddr, &bool)| self.node_addresses.get(ip) != Some(host_only);
        let writes = &mut work.planned.writes;
        writes.node_addresses = wanted.iter().filter(changed).map(|(ip, host_only)| (*ip, *host_only)).collect();
        writes.removed_node_addresses =
            self.node_addresses.keys().filter(|ip| !wanted.contains_key(ip)).copied().collect();
        self.node_addresses = wanted;
    }

    /// Compares what the affected frontends should lead to with what they do.
    fn finish(&mut self, work: Work) -> Planned {
        let Work { mut planned, affected, .. } = work;
        let mut node_ports = self.node_ports;
        for frontend in affected {
            let owner = self.claims.owner(&frontend).and_then(|key| self.ports.get(key));
            match owner.and_then(|port| port.value(&frontend)) {
                Some(value) => {
                    if frontend.node_port {
                        node_ports = node_ports.with(frontend.address.port());
                    }
                    let before = self.written.insert(frontend, value);
                    self.elements[frontend.family() as usize] += usize::from(before.is_none());
                    if before != Some(value) {
                        planned.writes.services.push((frontend, value));
                    }
                }
                None => {
                    if self.written.remove(&frontend).is_some() {
                        self.elements[frontend.family() as usize] -= 1;
                        planned.writes.removed_services.push(frontend);
                    }
                }
            }
        }
        if node_ports != self.node_ports {
            self.node_ports = node_ports;
            planned.writes.node_ports = Some(node_ports);
        }
        planned
    }
}
