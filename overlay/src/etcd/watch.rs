//! Turns etcd's events into snapshots: a list, then the changes since; whenever the stream ends, for whatever reason
//! (compaction, no leader, etcd away), a list again. Until that succeeds the last snapshot stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcd_client::EventType;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::store::Store;
use crate::lease::{LeaseError, LeaseSnapshot, LeaseTable};

/// Pauses between lists, as flannel's.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that lived this long was a good one: the next pause is short again.
const GOOD_STREAM: Duration = Duration::from_secs(10);

type Snapshots = watch::Sender<Option<Arc<LeaseSnapshot>>>;

/// Lists once, then follows until the last receiver is dropped.
pub(super) async fn start(store: Arc<Store>) -> Result<watch::Receiver<Option<Arc<LeaseSnapshot>>>, LeaseError> {
    let mut table = LeaseTable::default();
    let revision = fill(&store, &mut table).await?;
    let (snapshots, receiver) = watch::channel(Some(Arc::new(table.snapshot())));
    tokio::spawn(async move {
        let mut follower = Follower { store, table, revision };
        tokio::select! {
            () = snapshots.closed() => {}
            () = follower.run(&snapshots) => {}
        }
    });
    Ok(receiver)
}

/// Reads everything; the revision it was read at.
async fn fill(store: &Store, table: &mut LeaseTable) -> Result<i64, LeaseError> {
    let listing = store.list().await?;
    table.replace(listing.records.into_iter().map(|record| (record.name, record.read)));
    Ok(listing.revision)
}

struct Follower {
    store: Arc<Store>,
    table: LeaseTable,
    /// Everything up to this is in the table.
    revision: i64,
}

impl Follower {
    async fn run(&mut self, snapshots: &Snapshots) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let end = self.stream(snapshots).await;
            if started.elapsed() >= GOOD_STREAM {
                pause = FIRST_PAUSE;
            }
            debug!(end, "the watch ended, listing again");
            let mut failing = false;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                match fill(&self.store, &mut self.table).await {
                    Ok(revision) => {
                        self.revision = revision;
                        self.table.snapshot().publish(snapshots);
                        break;
                    }
                    Err(error) if !failing => {
                        warn!(%error, "leases cannot be read; the last ones stay");
                        failing = true;
                    }
                    Err(_) => {}
                }
            }
            if failing {
                info!("leases can be read again");
            }
        }
    }

    /// Takes events until the stream ends; returns why it did.
    async fn stream(&mut self, snapshots: &Snapshots) -> String {
        let mut stream = match self.store.watch(self.revision + 1).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return "closed by etcd".into(),
                Err(error) => return error.to_string(),
            };
            if response.canceled() {
                return format!("{} (compacted at {})", response.cancel_reason(), response.compact_revision());
            }
            let mut changed = false;
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                let record = self.store.record(kv);
                changed |= match event.event_type() {
                    EventType::Put => self.table.set(&record.name, record.read),
                    EventType::Delete => self.table.remove(&record.name),
                };
            }
            if changed {
                self.table.snapshot().publish(snapshots);
            }
        }
    }
}
