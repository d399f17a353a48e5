//! Maps in memory that refuse what a program could stumble over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use weft_ebpf::MapSizes;
use weft_ebpf_abi::{SERVICE_DROP, SERVICE_REJECT, ServiceValue};

use crate::{
    dataplane::{Changed, Desired},
    ebpf::{
        blocks::Block,
        frontend::{FrontendKey, frontends},
        storage::QUARANTINE,
        table::{Planned, Table},
        writes::{Observed, PortRange, Slot, Target},
    },
    model::IpFamily,
    plan::{Outcome, PlanKey, ServicePortPlan},
};

/// The maps, a clock, and everything a program may still be reading.
pub(super) struct FakeMaps {
    pub(super) services: BTreeMap<FrontendKey, ServiceValue>,
    slots: HashMap<(IpFamily, u32), Slot>,
    pub(super) turns: HashMap<u32, u64>,
    pub(super) counters: HashMap<u32, u64>,
    pub(super) node_addresses: BTreeMap<IpAddr, bool>,
    pub(super) node_ports: PortRange,
    pub(super) now: Instant,
    /// Values programs may have read, and until when.
    readers: Vec<(Instant, IpFamily, ServiceValue)>,
    /// Calls until one fails.
    pub(super) fail_in: Option<usize>,
}

/// The failure asked for by `fail_in`.
#[derive(Debug)]
pub(super) struct Injected;

impl FakeMaps {
    pub(super) fn new() -> Self {
        Self {
            services: BTreeMap::new(),
            slots: HashMap::new(),
            turns: HashMap::new(),
            counters: HashMap::new(),
            node_addresses: BTreeMap::new(),
            node_ports: PortRange::default(),
            now: Instant::now(),
            readers: Vec::new(),
            fail_in: None,
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.readers.retain(|(until, ..)| *until > self.now);
    }

    /// Plans, writes, and checks that nothing is left to do.
    pub(super) fn bring_to(&mut self, table: &mut Table, desired: &Desired, changed: &Changed) -> Planned {
        let planned = table.plan(desired, changed, self.now);
        planned.writes.write(self).unwrap();
        assert_eq!(table.plan(desired, changed, self.now).writes, Default::default(), "a second plan is empty");
        planned
    }

    /// The same for a new agent.
    pub(super) fn restart(&mut self, desired: &Desired) -> (Table, Planned) {
        let mut table = Table::new(MapSizes::default());
        let planned = table.take_over(&self.observe().unwrap(), desired, self.now);
        planned.writes.write(self).unwrap();
        (table, planned)
    }

    /// What a client gets at a frontend.
    pub(super) fn lookup(&self, frontend: &FrontendKey) -> Option<Vec<SocketAddr>> {
        let value = self.services.get(frontend)?;
        Some(self.block(frontend.family(), value).iter().map(|slot| slot.endpoint).collect())
    }

    /// Compares every frontend of every Service with what was asked for. Of several claims the first in order of keys counts.
    pub(super) fn assert_is(&self, desired: &Desired) {
        let mut expected: BTreeMap<FrontendKey, Expectation> = BTreeMap::new();
        let mut owners: BTreeMap<FrontendKey, &PlanKey> = BTreeMap::new();
        for plan in desired.ports.values() {
            for (frontend, role) in frontends(plan) {
                expected.entry(frontend).or_insert_with(|| expectation(plan, role as usize));
                owners.entry(frontend).or_insert(&plan.key);
            }
        }
        let found: BTreeMap<_, _> = self
            .services
            .iter()
            .map(|(key, value)| (*key, (self.lookup(key).unwrap(), value.flags, value.affinity_seconds)))
            .collect();
        assert_eq!(found, expected);
        self.assert_affinity_is_shared_by_ports_only(&owners);
        let addresses: BTreeSet<IpAddr> = self.node_addresses.keys().copied().filter(|ip| !ip.is_loopback()).collect();
        assert_eq!(addresses, desired.node_port_addresses);
    }

    /// All frontends of a Service port have one number in `AFFINITY`, and no other port has it; nor is it that of a set.
    fn assert_affinity_is_shared_by_ports_only(&self, owners: &BTreeMap<FrontendKey, &PlanKey>) {
        let mut ids: BTreeMap<u32, &PlanKey> = BTreeMap::new();
        let mut ports: BTreeMap<&PlanKey, u32> = BTreeMap::new();
        for (frontend, value) in self.services.iter().filter(|(_, value)| value.affinity_seconds != 0) {
            let owner = owners[frontend];
            assert_eq!(*ids.entry(value.affinity_id).or_insert(owner), owner, "shared by two ports");
            assert_eq!(*ports.entry(owner).or_insert(value.affinity_id), value.affinity_id, "{owner} has two");
            assert!(self.services.values().all(|other| other.set_id != value.affinity_id));
        }
    }

    fn block(&self, family: IpFamily, value: &ServiceValue) -> Vec<Slot> {
        (value.base..value.base + value.count).map(|index| self.slots[&(family, index)]).collect()
    }

    /// Everything a program can be using now.
    fn in_use(&self) -> impl Iterator<Item = (IpFamily, ServiceValue)> {
        let current = self.services.iter().map(|(key, value)| (key.family(), *value));
        current.chain(self.readers.iter().map(|(_, family, value)| (*family, *value)))
    }

    fn retire(&mut self, frontend: &FrontendKey, value: ServiceValue) {
        self.readers.push((self.now + QUARANTINE, frontend.family(), value));
    }

    fn call(&mut self) -> Result<(), Injected> {
        match &mut self.fail_in {
            Some(0) => Err(Injected),
            Some(calls) => {
                *calls -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Endpoints, flags, and seconds of session affinity.
type Expectation = (Vec<SocketAddr>, u32, u32);

fn expectation(plan: &ServicePortPlan, role: usize) -> Expectation {
    let seconds = plan.affinity.map_or(0, |timeout| timeout.as_secs() as u32);
    match [&plan.internal, &plan.external_from_node][role] {
        Outcome::Endpoints(endpoints) => {
            (endpoints.iter().map(|endpoint| (endpoint.address, endpoint.port).into()).collect(), 0, seconds)
        }
        Outcome::Reject => (Vec::new(), SERVICE_REJECT, seconds),
        Outcome::Drop => (Vec::new(), SERVICE_DROP, seconds),
    }
}

impl Target for FakeMaps {
    type Error = Injected;

    fn observe(&self) -> Result<Observed, Injected> {
        let blocks = self.services.iter().filter(|(_, value)| value.count > 0).map(|(key, value)| {
            let block = Block { base: value.base, count: value.count };
            ((key.family(), block), self.block(key.family(), value))
        });
        Ok(Observed {
            blocks: blocks.collect(),
            services: self.services.clone(),
            node_addresses: self.node_addresses.clone(),
            node_ports: self.node_ports,
        })
    }

    fn connections(&self, counter: u32) -> Result<u64, Injected> {
        Ok(self.counters[&counter])
    }

    fn reset_counters(&mut self, counters: &[u32]) -> Result<(), Injected> {
        for counter in counters {
            self.call()?;
            for (family, value) in self.in_use() {
                assert!(
                    self.block(family, &value).iter().all(|slot| slot.counter != *counter),
                    "counter {counter} in use"
                );
            }
            self.counters.insert(*counter, 0);
        }
        Ok(())
    }

    fn reset_turns(&mut self, sets: &[u32]) -> Result<(), Injected> {
        for set in sets {
            self.call()?;
            assert!(self.in_use().all(|(_, value)| value.set_id != *set), "set {set} in use");
            self.turns.insert(*set, 0);
        }
        Ok(())
    }

    fn write_slots(&mut self, family: IpFamily, slots: &[(u32, Slot)]) -> Result<(), Injected> {
        for (index, slot) in slots {
            self.call()?;
            let reads = |(of, value): (IpFamily, ServiceValue)| {
                of == family && (value.base..value.base + value.count).contains(index)
            };
            assert!(!self.in_use().any(reads), "slot {index} may be being read");
            assert!(self.counters.contains_key(&slot.counter), "counter {} was never reset", slot.counter);
            self.slots.insert((family, *index), *slot);
        }
        Ok(())
    }

    fn set_node_ports(&mut self, range: PortRange) -> Result<(), Injected> {
        self.call()?;
        self.node_ports = range;
        Ok(())
    }

    fn add_node_addresses(&mut self, addresses: &[(IpAddr, bool)]) -> Result<(), Injected> {
        self.call()?;
        self.node_addresses.extend(addresses.iter().copied());
        Ok(())
    }

    fn set_services(&mut self, services: &[(FrontendKey, ServiceValue)]) -> Result<(), Injected> {
        for (frontend, value) in services {
            self.call()?;
            assert!(self.turns.contains_key(&value.set_id), "set {} was never reset", value.set_id);
            assert_eq!(value.count == 0, value.flags != 0, "{value:?}");
            let written = (value.base..value.base + value.count)
                .all(|index| self.slots.contains_key(&(frontend.family(), index)));
            assert!(written, "{frontend} refers to slots never written");
            let PortRange { first, last } = self.node_ports;
            assert!(
                !frontend.node_port || (first..=last).contains(&frontend.address.port()),
                "{frontend} is out of range"
            );
            if let Some(old) = self.services.insert(*frontend, *value) {
                self.retire(frontend, old);
            }
        }
        Ok(())
    }

    fn remove_services(&mut self, services: &[FrontendKey]) -> Result<(), Injected> {
        for frontend in services {
            self.call()?;
            if let Some(old) = self.services.remove(frontend) {
                self.retire(frontend, old);
            }
        }
        Ok(())
    }

    fn remove_node_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Injected> {
        self.call()?;
        self.node_addresses.retain(|ip, _| !addresses.contains(ip));
        Ok(())
    }
}
