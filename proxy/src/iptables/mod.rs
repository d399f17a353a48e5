//! The packet path for kernels without nftables or BPF: the plan carried into iptables, with the chains of kube-proxy
//! (kube-proxy.md 12.1 to 12.4), so that tools which look for KUBE-* find what they know.
//!
//! `service` and `shared` say what rules a plan means, `layout` which are always there; `shadow` compares with what the
//! tables hold and makes a `transaction`; `driver` runs it in the `variant` this node uses. `turns` keeps the round robin
//! going where the kernel forgets it.
//!
//! Where kube-proxy's modes differ, this one does what nftables mode does: external addresses without endpoints are refused
//! to this node too (9.2), node ports are refused only at the addresses they are served at (6.7), source ranges hold
//! without endpoints (9.8), and other ports of a ClusterIP are refused (9.10). Only here: accepting what is forwarded (9.13).

mod cleanup;
mod cluster_ips;
mod driver;
mod failure;
mod layout;
mod listing;
mod live;
mod names;
mod pace;
mod packet;
mod service;
mod shadow;
mod shared;
mod transaction;
mod turns;
mod variant;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use cleanup::{kube_proxy_variants, remove_kube_proxy_rules};
pub use live::live;
pub use variant::Variant;

use self::{
    driver::{Commands, Xtables, observe},
    failure::XtablesError,
    layout::Layout,
    listing::Line,
    names::{ServiceChains, Table},
    pace::Pace,
    shadow::Shadow,
    transaction::Transaction,
    turns::Turns,
};
use crate::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections},
    model::IpFamily,
    plan::{PacketSettings, PlanKey},
};

/// The iptables data plane. It works in the network namespace of the thread that calls it, through the programs
/// `iptables-restore` and `iptables-save` and those of IPv6.
pub struct Iptables {
    settings: PacketSettings,
    /// Whether rules of a kube-proxy, which have the names of ours, are to stay as they are.
    spare_kube_proxy: bool,
    /// `None` until the first apply.
    tables: Option<Box<dyn Xtables>>,
    /// A family that is not there is unknown, so the next apply reads the kernel.
    shadows: BTreeMap<IpFamily, Shadow>,
    counters: Mutex<BTreeMap<IpFamily, Counters>>,
    looked: Pace,
    /// How many rules there were when we last looked or wrote, where that is known.
    entries: BTreeMap<IpFamily, u32>,
    /// Somebody may have removed rules since we last looked.
    disturbed: bool,
    kept_turns: BTreeMap<IpFamily, Pace>,
}

/// Packets that went to each endpoint's chain, by its name; those without any are left out.
#[derive(Debug, Default)]
struct Counters {
    read: Pace,
    packets: HashMap<String, u64>,
}

/// The tables that this data plane has rules in, of family `ip` and `ip6`.
pub const TABLE_NAMES: [&str; 2] = ["filter", "nat"];

/// What takes no longer is not worth saving.
const LITTLE: Duration = Duration::from_millis(20);

impl Iptables {
    /// A data plane in the variant that is in use on this node when it first applies something. Touches nothing until then.
    pub fn new(settings: PacketSettings) -> Self {
        Self {
            settings,
            spare_kube_proxy: false,
            tables: None,
            shadows: BTreeMap::new(),
            counters: Mutex::default(),
            looked: Pace::default(),
            entries: BTreeMap::new(),
            disturbed: false,
            kept_turns: BTreeMap::new(),
        }
    }

    /// The same, but as long as rules of a kube-proxy are where ours would be, every apply fails and they stay as they are. Else they are
    /// replaced by the first apply, each table at one stroke.
    pub fn sparing_kube_proxy(self) -> Self {
        Self { spare_kube_proxy: true, ..self }
    }

    /// The same in one variant, whatever is in use.
    ///
    /// # Errors
    /// The variant is not installed.
    pub fn with_variant(settings: PacketSettings, variant: Variant) -> Result<Self, DataPlaneError> {
        let tables = Commands::of(variant).map_err(error("look for iptables"))?;
        Ok(Self::with(settings, Box::new(tables)))
    }

    fn with(settings: PacketSettings, tables: Box<dyn Xtables>) -> Self {
        Self { tables: Some(tables), ..Self::new(settings) }
    }

    fn try_apply(
        &mut self,
        tables: &mut dyn Xtables,
        desired: &Desired,
        changed: &Changed,
    ) -> Result<(), DataPlaneError> {
        let mut result = Ok(());
        for family in tables.families() {
            // One family that cannot be programmed is no reason to leave the other alone.
            result = result.and(self.apply_family(tables, family, desired, changed));
        }
        if *changed == Changed::Everything {
            if self.settings.localhost_node_ports {
                tables.route_localnet().map_err(error("serve NodePorts at 127.0.0.1"))?;
            }
            if result.is_ok() {
                tables.retire_other_variant().map_err(error("remove rules of the other iptables"))?;
            }
        }
        result
    }

    fn apply_family(
        &mut self,
        tables: &mut dyn Xtables,
        family: IpFamily,
        desired: &Desired,
        changed: &Changed,
    ) -> Result<(), DataPlaneError> {
        // The shadow is back in place only after success: an error leaves it unknown, and the next apply reads the kernel.
        let (shadow, mut transaction) = match (self.shadows.remove(&family), changed) {
            (Some(mut shadow), Changed::Ports(keys)) => {
                let transaction = shadow.update(desired, keys);
                (shadow, transaction)
            }
            (Some(mut shadow), Changed::NodePortAddresses) => {
                let transaction = shadow.update_node_port_addresses(desired);
                (shadow, transaction)
            }
            (_, Changed::Everything) | (None, _) => {
                let observed = observe(tables, family).map_err(error("read tables"))?;
                let layout = Layout { family, settings: self.settings.clone(), features: tables.features() };
                Shadow::load(layout, desired, observed)
            }
        };
        self.keep_turns(tables, family, &mut transaction);
        tables.run(family, &transaction).map_err(error("change tables"))?;
        if !transaction.is_empty() {
            self.counters.get_mut().unwrap_or_else(PoisonError::into_inner).remove(&family);
            self.entries.extend(tables.entries(family).map(|entries| (family, entries)));
        }
        self.shadows.insert(family, shadow);
        Ok(())
    }

    /// Reading a large table can take as long as the change itself, so it has at most a tenth of the time.
    fn keep_turns(&mut self, tables: &dyn Xtables, family: IpFamily, transaction: &mut Transaction) {
        let replaced = tables.replaces_tables() && transaction.nat().chains().next().is_some();
        let pace = self.kept_turns.entry(family).or_default();
        if !replaced || !pace.is_due_or_little(10, LITTLE) {
            return;
        }
        let mut turns = Turns::default();
        match pace.measure(|| tables.list(family, Table::Nat, &mut |line| turns.add(line))) {
            Ok(()) => turns.keep(transaction),
            Err(error) => tracing::debug!(%error, "round robin starts again"),
        }
    }

    /// Packets by endpoint chain. Who asks for every Service port in turn gets them from one listing.
    fn counters(&self, tables: &dyn Xtables, key: &PlanKey) -> Result<CountersGuard<'_>, DataPlaneError> {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = all.entry(key.family).or_default();
        if counters.read.is_due(10) {
            let mut packets = HashMap::new();
            let mut add = |line: Line<'_>| match line {
                Line::Rule { chain, rule, packets: count } if count > 0 && rule.contains(" -j DNAT ") => {
                    packets.insert(chain.to_owned(), count);
                }
                _ => {}
            };
            let read = counters.read.measure(|| tables.list(key.family, Table::Nat, &mut add));
            let doing = || format!("count connections of {key}");
            read.map_err(|source| DataPlaneError { plane: NAME, doing: doing(), source: source.into() })?;
            counters.packets = packets;
        }
        Ok(all)
    }
}

type CountersGuard<'a> = MutexGuard<'a, BTreeMap<IpFamily, Counters>>;

impl DataPlane for Iptables {
    fn name(&self) -> &'static str {
        NAME
    }

    fn apply(&mut self, desired: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        let mut tables = match self.tables.take() {
            Some(tables) => tables,
            None => {
                let found = Commands::find().map_err(error("look for iptables"))?;
                if self.spare_kube_proxy {
                    found.in_the_way().map_err(error("take the chains KUBE-*"))?;
                }
                Box::new(found)
            }
        };
        let result = self.try_apply(&mut *tables, desired, changed);
        self.tables = Some(tables);
        result
    }

    /// Looks for every jump, every rule that is always there, and the first rule of each chain all Services share: so it
    /// notices `iptables -F`, `-t nat -F`, a deleted jump, and a flush of one of those chains. One run of `iptables-restore`
    /// a family; a legacy table is read as a whole for that, so it takes 2 % of the time at most: ten thousand Services are looked at
    /// twice a minute, a thousand every second or two. But a legacy table that has fewer rules than before is looked at once, and
    /// those of nft as soon as the kernel says that somebody removed something, with 10 % of the time.
    fn is_intact(&mut self) -> Result<bool, DataPlaneError> {
        let Some(tables) = &mut self.tables else { return Ok(false) };
        self.disturbed |= tables.disturbed();
        let now = tables.families().into_iter().filter_map(|family| Some((family, tables.entries(family)?))).collect();
        let before = std::mem::replace(&mut self.entries, now);
        let is_fewer = |(family, entries): (&IpFamily, &u32)| before.get(family).is_some_and(|before| entries < before);
        let disturbed = self.disturbed && self.looked.is_due(10);
        if !disturbed && !self.looked.is_due(50) && !self.entries.iter().any(is_fewer) {
            return Ok(true);
        }
        self.disturbed = false;
        let shadows = &self.shadows;
        self.looked.measure(|| {
            for family in tables.families() {
                let Some(shadow) = shadows.get(&family) else { return Ok(false) };
                if !tables.holds(family, &shadow.checks()).map_err(error("look after rules"))? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Counts the packets that were translated to each endpoint: the first ones of their connections.
    fn connections(&self, key: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        let plan = self.shadows.get(&key.family).and_then(|shadow| shadow.plan(key));
        let (Some(plan), Some(tables)) = (plan, &self.tables) else { return Ok(Vec::new()) };
        let (names, counters) = (ServiceChains::of(&key.port), self.counters(&**tables, key)?);
        let packets = &counters[&key.family].packets;
        let count = |endpoint| EndpointConnections {
            endpoint,
            connections: packets.get(&names.endpoint(&endpoint)).copied().unwrap_or(0),
        };
        Ok(plan.endpoints().into_iter().map(count).collect())
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        self.shadows.clear();
        cleanup::remove_ours()
    }
}

const NAME: &str = "iptables";

fn error(doing: &'static str) -> impl Fn(XtablesError) -> DataPlaneError {
    move |source| DataPlaneError { plane: NAME, doing: doing.to_owned(), source: source.into() }
}
