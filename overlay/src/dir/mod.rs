//! Leases in a directory shared by the agents of one machine.
//!
//! ```text
//! DIR/lock                  flock'ed for every change
//! DIR/subnets/10.5.34.0-24  one file a lease: flannel's etcd key and value (flannel.md 5.2)
//! DIR/nodes/NAME            the key of that node's lease
//! ```
//! A node recognises its lease by its name: addresses change and may be shared. If there is no such file, a lease that
//! publishes the node's public address and belongs to no other name is taken over (one written by hand, or by a node that
//! was renamed); then the subnets the caller prefers, if free; then the lowest free ones.

mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch as channel;

use self::store::{Listing, Store};
use crate::{
    allocate,
    family::Family,
    lease::{Lease, LeaseError, LeaseFuture, LeaseHolder, LeaseManager, LeaseRequest, LeaseSnapshot, Subnets},
    pool::SubnetPool,
};

/// The `dir` lease manager.
#[derive(Clone, Debug)]
pub struct DirLeases {
    store: Store,
}

impl DirLeases {
    /// Leases in `directory`, which is made when the first lease is taken.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { store: Store::new(directory.into()) }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.store.root()
    }
}

impl LeaseManager for DirLeases {
    fn describe(&self) -> String {
        format!("dir:{}", self.directory().display())
    }

    fn own<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Option<Lease>> {
        let (store, request) = (self.store.clone(), request.clone());
        blocking(move || {
            let listing = store.list()?;
            let own = own_subnets(&store, &listing, &request)?;
            Ok(own.and_then(|subnets| listing.lease(subnets)).cloned())
        })
    }

    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Lease> {
        let (store, request) = (self.store.clone(), request.clone());
        blocking(move || acquire(&store, &request))
    }

    fn watch(&self) -> LeaseFuture<'_, channel::Receiver<Option<Arc<LeaseSnapshot>>>> {
        let store = self.store.clone();
        blocking(move || watch::start(store))
    }

    fn release<'a>(&'a self, holder: &'a LeaseHolder) -> LeaseFuture<'a, ()> {
        let (store, node_name) = (self.store.clone(), holder.node_name.clone());
        blocking(move || {
            if !store.exists() {
                return Ok(());
            }
            let _lock = store.lock()?;
            if let Some(subnets) = store.node(&node_name)? {
                store.remove(subnets)?;
            }
            store.forget_node(&node_name)
        })
    }
}

/// Files block; the caller's thread has netlink events to wait for.
fn blocking<'a, T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LeaseError> + Send + 'static,
) -> LeaseFuture<'a, T> {
    Box::pin(async move {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only a runtime that is shutting down cancels blocking work.
            Err(error) => Err(LeaseError::Backend { doing: "run blocking work".into(), source: error.into() }),
        }
    })
}

fn acquire(store: &Store, request: &LeaseRequest) -> Result<Lease, LeaseError> {
    store::check_node_name(&request.node_name)?;
    store.create()?;
    let _lock = store.lock()?;
    let listing = store.list()?;
    let own = own_subnets(store, &listing, request)?;
    let taken: Vec<Subnets> = listing.keys().filter(|subnets| Some(*subnets) != own).collect();
    let known: Vec<Subnets> = own.into_iter().chain(request.preferred).collect();
    let subnets = allocate::choose(&request.net_conf, &taken, &known, SubnetPool::free)?;
    let lease = Lease { subnets, attributes: request.attributes.clone() };

    // The new file is there before the old one goes: at no moment is this node without a lease.
    store.write(&lease)?;
    store.name_node(&request.node_name, subnets)?;
    forget_former_owners(store, &request.node_name, subnets)?;
    if let Some(old) = own.filter(|old| *old != subnets) {
        store.remove(old)?;
    }
    Ok(lease)
}

/// A node whose lease file was deleted by hand may still be noted as the owner; back again, it must not take them back.
fn forget_former_owners(store: &Store, name: &str, subnets: Subnets) -> Result<(), LeaseError> {
    let nodes = store.nodes()?;
    nodes
        .iter()
        .filter(|(other, noted)| *other != name && noted.overlaps(&subnets))
        .try_for_each(|(other, _)| store.forget_node(other))
}

/// The subnets this node holds, by name or else by public address.
fn own_subnets(store: &Store, listing: &Listing, request: &LeaseRequest) -> Result<Option<Subnets>, LeaseError> {
    store::check_node_name(&request.node_name)?;
    if let Some(subnets) = store.node(&request.node_name)? {
        return Ok(Some(subnets));
    }
    let named: BTreeSet<Subnets> = store.nodes()?.into_values().collect();
    let same_address = |lease: &Lease| {
        Family::ALL.into_iter().any(|family| {
            let ours = request.attributes.public_address(family);
            ours.is_some() && ours == lease.attributes.public_address(family)
        })
    };
    Ok(listing.leases().find(|lease| same_address(lease) && !named.contains(&lease.subnets)).map(|lease| lease.subnets))
}
