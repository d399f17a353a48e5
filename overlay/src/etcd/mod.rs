//! Leases in etcd v3, in flannel's keys and values and with its lifetimes (flannel.md 5.2).
//!
//! A node recognises its lease by what it wrote last, by the MAC of its VTEP, or by its public address: the values have no
//! name in them. No call but the first needs etcd for traffic to go on: it may be away for as long as a lease lives.

mod acquire;
mod config;
mod connection;
mod store;
mod watch;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch as channel;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

pub use self::config::{ClientCertificate, EtcdConfig, EtcdUser};
use self::store::{Record, Store};
use crate::lease::{
    Lease, LeaseFuture, LeaseHolder, LeaseManager, LeaseRequest, LeaseSnapshot, StoredSettings, Subnets,
};

/// How soon a renewal that failed is tried again, as in flannel.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// The `etcd` lease manager. It connects when it is first used.
pub struct EtcdLeases {
    store: Arc<Store>,
    held: Arc<Mutex<Option<Held>>>,
    /// One acquisition at a time, and the renewal of what it got.
    renewal: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What this node wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    subnets: Subnets,
    /// Revision of that write: any other value of the key is somebody else's.
    mod_revision: i64,
    /// A reservation, which needs no renewal.
    permanent: bool,
}

impl EtcdLeases {
    /// Leases at `config.endpoints`.
    pub fn new(config: EtcdConfig) -> Self {
        Self { store: Arc::new(Store::new(config)), held: Arc::default(), renewal: Default::default() }
    }

    fn held(&self) -> Option<Held> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseManager for EtcdLeases {
    fn describe(&self) -> String {
        format!("etcd:{}", self.store.config().endpoints.join(","))
    }

    fn settings<'a>(&'a self, _node_name: &'a str) -> LeaseFuture<'a, StoredSettings> {
        Box::pin(async {
            let net_conf = self.store.net_conf().await?;
            Ok(StoredSettings { net_conf, ..StoredSettings::default() })
        })
    }

    fn own<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Option<Lease>> {
        Box::pin(async {
            let listing = self.store.list().await?;
            let own = acquire::own(&listing, &request.attributes, self.held().as_ref());
            Ok(own.and_then(|record| record.read.clone().ok()))
        })
    }

    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Lease> {
        Box::pin(async {
            let mut renewal = self.renewal.lock().await;
            // It would write the old value.
            renewal.take();
            let (lease, held) = acquire::acquire(&self.store, request, self.held().as_ref()).await?;
            set(&self.held, held);
            if !held.permanent {
                let renew = renew(Arc::clone(&self.store), Arc::clone(&self.held), held);
                *renewal = Some(AbortOnDropHandle::new(tokio::spawn(renew)));
            }
            Ok(lease)
        })
    }

    fn watch(&self) -> LeaseFuture<'_, channel::Receiver<Option<Arc<LeaseSnapshot>>>> {
        Box::pin(watch::start(Arc::clone(&self.store)))
    }

    /// What this process acquired, or else the lease that says enough of the node: flannel's values do not name it. A
    /// reservation is the operator's and stays.
    fn release<'a>(&'a self, holder: &'a LeaseHolder) -> LeaseFuture<'a, ()> {
        Box::pin(async {
            self.renewal.lock().await.take();
            let listing = self.store.list().await?;
            let held = self.held();
            let is_mine = |record: &&Record| match &held {
                Some(held) => record.mod_revision == held.mod_revision,
                None => acquire::is_of(record, holder),
            };
            match listing.records.iter().filter(|record| !record.is_permanent()).find(is_mine) {
                Some(record) => self.store.remove(record).await,
                None => Ok(()),
            }
        })
    }
}

fn set(held: &Mutex<Option<Held>>, new: Held) {
    *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
}

/// Renews a lease for as long as it is this node's. That it is not is seen in the snapshots, and answered there.
async fn renew(store: Arc<Store>, current: Arc<Mutex<Option<Held>>>, mut held: Held) {
    let every = EtcdConfig::LEASE_TTL.saturating_sub(store.config().renew_margin);
    let mut pause = every;
    loop {
        tokio::time::sleep(pause).await;
        pause = match acquire::renew(&store, &held).await {
            Ok(Some(renewed)) => {
                debug!(subnets = %held.subnets, "renewed the lease");
                held = renewed;
                set(&current, held);
                every
            }
            Ok(None) => {
                info!(subnets = %held.subnets, "the lease is not this node's any more");
                return;
            }
            Err(error) => {
                warn!(%error, "the lease is not renewed yet");
                RENEW_AGAIN
            }
        };
    }
}
