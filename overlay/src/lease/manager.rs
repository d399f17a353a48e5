//! The seam between the overlay and whoever keeps the leases.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
};

use tokio::sync::watch;

use super::{Lease, LeaseAttributes, Mac, Subnets};
use crate::{family::Family, netconf::NetConf};

/// What a [`LeaseManager`] method returns; boxed, because the manager is chosen at run time.
pub type LeaseFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LeaseError>> + Send + 'a>>;

/// Keeps the leases of all nodes: a directory, the Kubernetes API or etcd.
///
/// A manager does no more than this; what a lease means for the kernel is the planner's business.
pub trait LeaseManager: Send + Sync {
    /// `dir:PATH`, `kube`, `etcd`: for status and logs.
    fn describe(&self) -> String;

    /// What the manager's store says about the cluster and this node, read before the overlay starts.
    fn settings<'a>(&'a self, node_name: &'a str) -> LeaseFuture<'a, StoredSettings> {
        let _ = node_name;
        Box::pin(async { Ok(StoredSettings::default()) })
    }

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

    /// Tells the cluster whether this node's pod network works; managers without a place for that do nothing. Idempotent.
    fn report_network<'a>(&'a self, node_name: &'a str, network: &'a NetworkState) -> LeaseFuture<'a, ()> {
        let _ = (node_name, network);
        Box::pin(async { Ok(()) })
    }

    /// Gives the lease of `holder` back. Only cleanup calls it; absent already = Ok.
    fn release<'a>(&'a self, holder: &'a LeaseHolder) -> LeaseFuture<'a, ()>;
}

/// The node whose lease goes, by all that it may be recognised by: not every manager writes names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Its name in the cluster.
    pub node_name: String,
    /// The subnets it held, by `subnet.env`.
    pub subnets: Option<Subnets>,
    /// Addresses of its interfaces.
    pub addresses: Vec<IpAddr>,
    /// MACs of its VTEPs.
    pub macs: Vec<Mac>,
}

impl LeaseHolder {
    /// A node of which only the name is known.
    pub fn named(node_name: impl Into<String>) -> Self {
        Self { node_name: node_name.into(), ..Self::default() }
    }
}

/// What an operator may keep beside the leases. Nothing of it is required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSettings {
    /// The text of `net-conf.json`, for [`NetConf::parse`] (etcd: the key `<prefix>/config`).
    pub net_conf: Option<String>,
    /// Goes before `--public-ip` (kube: annotation `node-public-ip`).
    pub public_ip: Option<Ipv4Addr>,
    /// Goes before `--public-ipv6` (kube: annotation `node-public-ipv6`).
    pub public_ipv6: Option<Ipv6Addr>,
}

/// Whether pods on this node have a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkState {
    /// They have.
    Up,
    /// They have not.
    Down {
        /// What is wrong, for people.
        reason: String,
    },
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
    /// Why there must be more leases than these, as after a restored backup. Kernel entries of nodes that are not among them
    /// stay as they are.
    pub incomplete: Option<String>,
}

impl LeaseSnapshot {
    /// Makes this the newest, unless that says the same.
    pub(crate) fn publish(self, snapshots: &watch::Sender<Option<Arc<Self>>>) {
        snapshots.send_if_modified(|current| {
            let modified = current.as_deref() != Some(&self);
            if modified {
                *current = Some(Arc::new(self));
            }
            modified
        });
    }
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
    /// The Node object does not exist. Usual for a moment when a node is re-created; a retry helps once it is back.
    #[error("there is no Node {node:?}")]
    NoNode {
        /// Its name.
        node: String,
    },
    /// Nobody assigned a subnet to the Node yet. Usual for a moment on a new node.
    #[error("Node {node:?} has no pod CIDR: the controller manager assigns it (--allocate-node-cidrs)")]
    NoPodCidr {
        /// Its name.
        node: String,
    },
    /// The subnet assigned to the Node is no part of the pod network: one of the two is configured wrongly.
    #[error("pod CIDR {subnet} of Node {node:?} is outside the pod network {network}")]
    OutsideNetwork {
        /// Its name.
        node: String,
        /// What was assigned.
        subnet: ipnetwork::IpNetwork,
        /// The pod network.
        network: ipnetwork::IpNetwork,
    },
    /// An administrator's annotation is wrong. A retry helps once it is corrected.
    #[error("annotation {key}: {value:?} is no {family} address")]
    Annotation {
        /// The whole key.
        key: String,
        /// Its value.
        value: String,
        /// What was expected.
        family: Family,
    },
    /// Other nodes were faster, each time. A retry helps.
    #[error("lost {races} races for a subnet")]
    LostRaces {
        /// How many.
        races: usize,
    },
    /// A server did not answer in time. Nothing is known about whether it did what it was asked.
    #[error("{doing}: no answer within {} s", waited.as_secs())]
    NoAnswer {
        /// What was being done, and by whom.
        doing: String,
        /// How long it was waited for.
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
