//! The seam between the planner and the kernel: what every data plane does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crate::plan::{PlanKey, ServicePortPlan};

/// The whole desired state: every planned Service port, and the addresses NodePorts are accepted at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By key; a key that is absent must not be in the kernel.
    pub ports: BTreeMap<PlanKey, Arc<ServicePortPlan>>,
    /// Addresses of this node at which NodePorts are accepted (section 6), loopback excluded.
    pub node_port_addresses: BTreeSet<IpAddr>,
}

/// What differs from the last successful apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Unknown: read the kernel, then bring all of it to the desired state (start, after an error, after a foreign flush).
    Everything,
    /// Only these keys (added, changed or removed); nothing else was touched since.
    Ports(Vec<PlanKey>),
    /// Only the NodePort addresses.
    NodePortAddresses,
}

/// New connections one endpoint was given, since the Service port was first programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointConnections {
    /// Which endpoint.
    pub endpoint: crate::plan::Endpoint,
    /// New connections (TCP), or sockets and flows (UDP).
    pub connections: u64,
}

/// How full one of a data plane's maps in the kernel is.
///
/// A map the agent writes refuses what is too much, and [`DataPlane::apply`] fails with the map's name. One the data plane itself writes
/// (in `ebpf` mode `AFFINITY`, `UDP_FLOWS`, `UDP_REPLIES`) forgets the oldest instead: full, it is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name; in `ebpf` mode one of [`weft_ebpf_abi::name`].
    pub name: &'static str,
    /// Elements that are taken, including those that rounding to blocks wastes and those to be freed within a second.
    pub used: u32,
    /// Elements there are.
    pub capacity: u32,
    /// The flag that makes it larger, if one does.
    pub flag: Option<&'static str>,
}

/// One way of carrying the plan into the kernel.
///
/// `apply` is idempotent. After an error the caller passes [`Changed::Everything`] next, and traffic that works keeps working meanwhile.
pub trait DataPlane: Send {
    /// `ebpf`, `nftables` or `iptables`: for status and logs.
    fn name(&self) -> &'static str;

    /// Brings the kernel to `desired`, looking only at what `changed` names.
    ///
    /// # Errors
    /// What could not be written, with the object it concerns. Nothing is half applied from a client's view.
    fn apply(&mut self, desired: &Desired, changed: &Changed) -> Result<(), DataPlaneError>;

    /// Whether what was last applied is still in the kernel: a cheap look, called every second, for objects that
    /// another program can remove at one stroke (`nft flush ruleset`). `false`: pass [`Changed::Everything`] next.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn is_intact(&mut self) -> Result<bool, DataPlaneError> {
        Ok(true)
    }

    /// Does some of what may wait until the rest is in sync, if there is any; returns whether it did. To be called again then, as long as
    /// there is nothing better to do. `desired` is what was applied last.
    ///
    /// # Errors
    /// As of [`DataPlane::apply`]; pass [`Changed::Everything`] next.
    fn catch_up(&mut self, _desired: &Desired) -> Result<bool, DataPlaneError> {
        Ok(false)
    }

    /// Connections per endpoint of one Service port, read from the kernel.
    ///
    /// # Errors
    /// The kernel could not be read.
    fn connections(&self, key: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError>;

    /// How full each map is that can be; none where nothing has a size.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn fill(&self) -> Result<Vec<MapFill>, DataPlaneError> {
        Ok(Vec::new())
    }

    /// Removes everything this data plane ever put into the kernel (`weft cleanup`).
    ///
    /// # Errors
    /// All that could not be removed; the rest is gone.
    fn cleanup(&mut self) -> Result<(), DataPlaneError>;
}

/// A data plane could not do its work. Usual under memory pressure or foreign interference; retry with [`Changed::Everything`].
#[derive(Debug, thiserror::Error)]
#[error("{plane}: {doing}: {source}")]
pub struct DataPlaneError {
    /// Which data plane.
    pub plane: &'static str,
    /// What it was doing, naming the Service port or kernel object.
    pub doing: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
