//! The packet path: the plan carried into our own nftables table, `inet weft-proxy`. Other tables are never touched.
//!
//! `entries` says what to serve, `elements` and `shadow` what that means for the table, `plan` and `transaction` how to get
//! there, `driver` does it; `table` names what it is done to, `ruleset` is the part of the table that never changes, `rules` what comes and goes with numbers of
//! endpoints. `target`, `pool`, `collection` and `element` name the things in it, `wire` and `listing` are how the kernel has
//! them.

mod affinity;
mod buckets;
mod collection;
mod driver;
mod element;
mod elements;
mod entries;
mod listing;
mod live;
mod plan;
mod pool;
mod rules;
mod ruleset;
mod shadow;
mod table;
mod target;
mod transaction;
mod wire;

#[cfg(test)]
mod fake;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub use entries::PacketScope;
pub use live::live;
pub use ruleset::TABLE_NAME;

use self::{
    driver::{Kernel, Nft, NftError},
    plan::Plan,
    shadow::{Observed, Shadow},
    table::Table,
    transaction::Transaction,
};
use crate::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections},
    plan::{Endpoint, PacketSettings, PlanKey},
};

/// The nftables data plane. It works in the network namespace of the thread that calls it; chains are made by the program
/// `nft`, all else goes by netlink.
pub struct Nftables {
    scope: PacketScope,
    settings: Arc<PacketSettings>,
    nft: Box<dyn Nft>,
    /// `None`: unknown, so the next apply reads the kernel.
    shadow: Option<Shadow>,
    /// Removals of chains and maps nobody uses any more, for when there is time.
    idle: Transaction,
}

impl Nftables {
    /// A data plane for the frontends in `scope`. Touches nothing until the first apply.
    ///
    /// Of `settings`, `localhost_node_ports` counts in [`PacketScope::All`] only: beside a socket plane 127.0.0.1 is that
    /// one's, and route_localnet stays as it is (6.6).
    pub fn new(scope: PacketScope, settings: PacketSettings) -> Self {
        let localhost_node_ports = settings.localhost_node_ports && scope == PacketScope::All;
        let settings = Arc::new(PacketSettings { localhost_node_ports, ..settings });
        Self::with(scope, Arc::clone(&settings), Box::new(Kernel::new(settings)))
    }

    fn with(scope: PacketScope, settings: Arc<PacketSettings>, nft: Box<dyn Nft>) -> Self {
        Self { scope, settings, nft, shadow: None, idle: Transaction::default() }
    }

    fn plan(&mut self, desired: &Desired, changed: &Changed) -> Result<(Shadow, Plan), DataPlaneError> {
        match (self.shadow.take(), changed) {
            (Some(mut shadow), Changed::Ports(keys)) => {
                let mut plan = shadow.update(desired, keys);
                plan.postpone(&mut self.idle);
                Ok((shadow, plan))
            }
            (Some(mut shadow), Changed::NodePortAddresses) => {
                let plan = shadow.update_node_port_addresses(desired);
                Ok((shadow, plan))
            }
            (_, Changed::Everything) | (None, _) => {
                // What was postponed is among what is seen.
                self.idle = Transaction::default();
                let seen = self.nft.observe().map_err(error("read table"))?;
                if seen.table == Observed::Foreign {
                    tracing::info!(table = ruleset::TABLE, "it is not as this agent makes it: it is made anew");
                }
                let (shadow, mut plan) =
                    Shadow::load(self.scope, &self.settings, buckets::CHAINS, desired, &seen.table);
                plan.remove_stand_in |= seen.stand_in;
                Ok((shadow, plan))
            }
        }
    }

    /// A counter that cannot be read starts again at 0: no reason to keep traffic from its endpoint.
    fn carry_counters(&self, plan: &mut Plan) {
        let old: Vec<_> = plan.inherited.iter().map(|(_, old)| *old).collect();
        match self.nft.counters(&old) {
            Ok(counted) => plan.carry(&counted),
            Err(error) => tracing::debug!(%error, "connection counters start again"),
        }
    }
}

impl DataPlane for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn apply(&mut self, desired: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        // The shadow is back in place only after success: an error leaves it unknown, and the next apply reads the kernel.
        let (shadow, mut plan) = self.plan(desired, changed)?;
        self.carry_counters(&mut plan);
        for transaction in plan.transactions() {
            self.nft.run(&transaction).map_err(error("change table"))?;
        }
        // Only now that others' packets to 127.0.0.1 are dropped.
        if *changed == Changed::Everything && self.settings.localhost_node_ports {
            self.nft.route_localnet().map_err(error("serve NodePorts at 127.0.0.1 with"))?;
        }
        self.shadow = Some(shadow);
        Ok(())
    }

    fn catch_up(&mut self, desired: &Desired) -> Result<bool, DataPlaneError> {
        let behind = self.shadow.as_ref().map(|shadow| shadow.behind(CATCH_UP_AT_ONCE)).unwrap_or_default();
        if behind.is_empty() {
            return Ok(false);
        }
        self.apply(desired, &Changed::Ports(behind)).map(|()| true)
    }

    /// Looks whether the first chain has its rule: it notices `nft flush ruleset`, `nft flush table` and `nft delete table`;
    /// single elements removed by others it does not. One netlink request, some microseconds, however many Services.
    /// Chains that have fallen out of use meanwhile are removed now.
    fn is_intact(&mut self) -> Result<bool, DataPlaneError> {
        let intact = self.nft.is_present().map_err(error("look after table"))? && self.shadow.is_some();
        let idle = std::mem::take(&mut self.idle);
        if !intact || idle.is_empty() {
            return Ok(intact);
        }
        let removed = self.nft.run(&idle).map_err(error("remove what is not used from table"));
        if removed.is_err() {
            self.shadow = None;
        }
        removed.map(|()| true)
    }

    fn connections(&self, key: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        let Some(shadow) = &self.shadow else { return Ok(Vec::new()) };
        let elements = shadow.endpoint_elements(key);
        let wanted: Vec<_> = elements.iter().map(|(element, _)| *element).collect();
        let counters = self.nft.counters(&wanted).map_err(|source: NftError| DataPlaneError {
            plane: "nftables",
            doing: format!("count connections of {key}"),
            source: source.into(),
        })?;
        let mut sums: BTreeMap<Endpoint, u64> = BTreeMap::new();
        for (element, endpoint) in elements {
            *sums.entry(endpoint).or_default() += counters.get(&element).copied().unwrap_or(0);
        }
        let connections = |(endpoint, connections)| EndpointConnections { endpoint, connections };
        Ok(sums.into_iter().map(connections).collect())
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        self.shadow = None;
        let removals = [Table::StandIn, Table::Ours].map(Transaction::removal);
        match removals.iter().try_for_each(|removal| self.nft.run(removal)) {
            // A node without nft has no table of ours, unless somebody uninstalled it: then say so.
            Err(NftError::Missing) if matches!(self.nft.is_present(), Ok(false)) => Ok(()),
            other => other.map_err(error("remove table")),
        }
    }
}

/// Service ports that get their second line at once: some milliseconds in which a change would have to wait.
const CATCH_UP_AT_ONCE: usize = 128;

fn error(doing: &'static str) -> impl Fn(NftError) -> DataPlaneError {
    move |source| DataPlaneError {
        plane: "nftables",
        doing: format!("{doing} {}", ruleset::TABLE),
        source: source.into(),
    }
}
