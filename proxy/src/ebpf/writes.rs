//! What is to be written, and in which order, so that a program at any moment finds an old set or a new one and never a mix.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use weft_ebpf_abi::ServiceValue;

use super::{blocks::Block, frontend::FrontendKey};
use crate::model::IpFamily;

/// One element of `BACKENDS4` or `BACKENDS6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The endpoint.
    pub(crate) endpoint: SocketAddr,
    /// Its element of `CONNECTIONS`.
    pub(crate) counter: u32,
}

/// Lowest and highest port any NodePort uses; `(0, 0)` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    /// The smallest range with `port` in it too.
    pub(crate) fn with(self, port: u16) -> Self {
        if self.last == 0 {
            return Self { first: port, last: port };
        }
        Self { first: self.first.min(port), last: self.last.max(port) }
    }
}

/// Difference between the maps and the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes {
    /// New endpoints' elements of `CONNECTIONS`, to be 0.
    pub(crate) counters: Vec<u32>,
    /// New sets' elements of `ROUND_ROBIN`, to be 0.
    pub(crate) turns: Vec<u32>,
    /// Elements of fresh blocks.
    pub(crate) slots4: Vec<(u32, Slot)>,
    /// The same of `BACKENDS6`.
    pub(crate) slots6: Vec<(u32, Slot)>,
    /// New bounds for the NodePorts, never narrower than what was there.
    pub(crate) node_ports: Option<PortRange>,
    /// Addresses NodePorts are accepted at; whether only from the host's network namespace.
    pub(crate) node_addresses: Vec<(IpAddr, bool)>,
    /// Frontends to add, or to turn to another set.
    pub(crate) services: Vec<(FrontendKey, ServiceValue)>,
    /// Frontends to remove.
    pub(crate) removed_services: Vec<FrontendKey>,
    /// Addresses to remove.
    pub(crate) removed_node_addresses: Vec<IpAddr>,
}

impl Writes {
    pub(crate) fn slots(&mut self, family: IpFamily) -> &mut Vec<(u32, Slot)> {
        match family {
            IpFamily::V4 => &mut self.slots4,
            IpFamily::V6 => &mut self.slots6,
        }
    }

    /// Carries the difference out, stopping at the first failure; whatever prefix was written, no frontend refers to anything unwritten.
    pub(crate) fn write<T: Target>(&self, target: &mut T) -> Result<(), T::Error> {
        target.reset_counters(&self.counters)?;
        target.reset_turns(&self.turns)?;
        target.write_slots(IpFamily::V4, &self.slots4)?;
        target.write_slots(IpFamily::V6, &self.slots6)?;
        if let Some(range) = self.node_ports {
            target.set_node_ports(range)?;
        }
        target.set_services(&self.services)?;
        target.remove_services(&self.removed_services)?;
        target.add_node_addresses(&self.node_addresses)?;
        target.remove_node_addresses(&self.removed_node_addresses)
    }
}

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) services: BTreeMap<FrontendKey, ServiceValue>,
    /// Every block some element of `services` refers to, as far as it lies within the array.
    pub(crate) blocks: BTreeMap<(IpFamily, Block), Vec<Slot>>,
    pub(crate) node_addresses: BTreeMap<IpAddr, bool>,
    pub(crate) node_ports: PortRange,
}

/// The maps, as narrow as can be: the kernel's, or a fake that checks every reference.
pub(crate) trait Target {
    type Error;

    fn observe(&self) -> Result<Observed, Self::Error>;
    fn connections(&self, counter: u32) -> Result<u64, Self::Error>;
    fn reset_counters(&mut self, counters: &[u32]) -> Result<(), Self::Error>;
    fn reset_turns(&mut self, sets: &[u32]) -> Result<(), Self::Error>;
    fn write_slots(&mut self, family: IpFamily, slots: &[(u32, Slot)]) -> Result<(), Self::Error>;
    fn set_node_ports(&mut self, range: PortRange) -> Result<(), Self::Error>;
    fn add_node_addresses(&mut self, addresses: &[(IpAddr, bool)]) -> Result<(), Self::Error>;
    fn set_services(&mut self, services: &[(FrontendKey, ServiceValue)]) -> Result<(), Self::Error>;
    fn remove_services(&mut self, services: &[FrontendKey]) -> Result<(), Self::Error>;
    fn remove_node_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Self::Error>;
}
