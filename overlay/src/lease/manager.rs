//! The seam between the overlay and whoever keeps the leases.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use tokio::sync::watch;

use super::{Lease, LeaseAttributes, Subnets};
use crate::{family::Family, netconf::NetConf};

/// What a [`LeaseManager`] method returns; boxed, because the manager is chosen at run time.
pub type LeaseFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LeaseError>> + Send + 'a>>;

/// Keeps the leases of all nodes: a directory, the Kubernetes API or etcd.
///
/// A manager does no more than this; what a lease means for the kernel is the planner's business.
pub trait LeaseManager: Send + Sync {
    /// `dir:PATH`, `kube`, `etcd`: for status and logs.
    fn describe(&self) -> String;

    /// The lease this node already has, without changing anything; `None` on a new node.
    fn own<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Option<Lease>>;

    /// Makes sure that this node has a lease and that it publishes `request.attributes`.
    ///
    /// Idempotent: called again with other attributes it publishes those; called after the lease was lost it takes the same
    /// subnets if they are still free. Two nodes never get overlapping subnets.
    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Lease>;

    /// Full snapshots of all leases, this node's included: the newest one at once, then one after every change.
    ///
    /// `None` until the first full view, and a failed read leaves the last one in place: what is absent from a snapshot is
    /// really gone. Watching ends when the last receiver is dropped.
    fn watch(&self) -> LeaseFuture<'_, watch::Receiver<Option<Arc<LeaseSnapshot>>>>;

    /// Gives this node's lease back. Only cleanup calls it; absent already = Ok.
    fn release<'a>(&'a self, node_name: &'a str) -> LeaseFuture<'a, ()>;
}

/// What a node asks its lease manager for.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Name of the node in the cluster.
    pub node_name: String,
    /// Families, networks and pools.
    pub net_conf: NetConf,
    /// What to publish.
    pub attributes: LeaseAttributes,
    /// Subnets to take if the manager remembers none for this node and they are free: those of `subnet.env`, so that pods
    /// that still run keep working addresses.
    pub preferred: Option<Subnets>,
}

/// All leases at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseSnapshot {
    /// Every lease that could be read, sorted by subnets.
    pub leases: Vec<Lease>,
    /// Those that could not, sorted by object.
    pub rejected: Vec<RejectedLease>,
}

/// A lease that exists and cannot be read. It is reported and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RejectedLease {
    /// File, key or Node.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its subnets, if its key tells them and no older value of it is known. Kernel entries for these stay as they are,
    /// because nobody knows what they should be.
    pub subnets: Option<Subnets>,
}

/// A lease manager could not do its work. Nothing on the node changes because of it; the caller retries with back-off.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every subnet is taken. Usual when the network is too small for the cluster; a retry helps once a node leaves.
    #[error("no free {family} subnet in {network}: all {taken} leases of /{subnet_len} are taken")]
    NoFreeSubnet {
        /// The family that ran out.
        family: Family,
        /// The pod network.
        network: ipnetwork::IpNetwork,
        /// Prefix length of a subnet.
        subnet_len: u8,
        /// How many leases there are.
        taken: usize,
    },
    /// The configuration was parsed for subnets that are assigned by somebody else.
    #[error("this lease manager allocates subnets and needs a pool for {family}")]
    NoPool {
        /// The family without a pool.
        family: Family,
    },
    /// The node name cannot name a lease.
    #[error("node name {name:?} cannot be used as a file name")]
    NodeName {
        /// The name.
        name: String,
    },
    /// A file of the `dir` manager could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done, such as `write`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has held the lock for too long.
    #[error("{} has been locked by another process for {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long the lock was waited for.
        waited: std::time::Duration,
    },
    /// Failure of a manager outside this crate's `dir`.
    #[error("{doing}: {source}")]
    Backend {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
