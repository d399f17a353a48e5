//! Turns changes of the directory into snapshots.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::watch;
use tracing::warn;

use super::store::{Read, Store};
use crate::lease::{LeaseError, LeaseSnapshot};

/// How often the directory is read although nothing was reported: inotify loses events when its queue is full, and says
/// nothing when the directory itself is replaced. Also how soon the thread notices that nobody listens any more.
const SAFETY_INTERVAL: Duration = Duration::from_secs(1);

type Snapshots = watch::Sender<Option<Arc<LeaseSnapshot>>>;

/// Reads the leases once and then after every change, until the last receiver is dropped.
pub(super) fn start(store: Store) -> Result<watch::Receiver<Option<Arc<LeaseSnapshot>>>, LeaseError> {
    store.create()?;
    let directory = store.subnets_dir();
    // One pending note is enough: each reading is a full one.
    let (changed, changes) = mpsc::sync_channel(1);
    let callback = move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_change(&event)) {
            // Full: a reading is due anyway. Disconnected: the thread below has ended.
            let _ = changed.try_send(());
        }
    };
    let failed = |doing: &str, source: notify::Error| LeaseError::Backend {
        doing: format!("{doing} {}", directory.display()),
        source: source.into(),
    };
    let mut watcher = notify::recommended_watcher(callback).map_err(|error| failed("start watching", error))?;
    // Before the first reading, or a change in between would be missed.
    watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(|error| failed("watch", error))?;

    let mut read = Read::new();
    let first = store.list_again(&mut read)?.into_snapshot(None);
    let (snapshots, receiver) = watch::channel(Some(Arc::new(first)));
    let reader = Reader { store, watcher, directory, snapshots, read };
    thread::Builder::new().name("weft-leases".into()).spawn(move || reader.run(&changes)).map_err(|source| {
        LeaseError::Backend { doing: "start the thread that reads leases".into(), source: source.into() }
    })?;
    Ok(receiver)
}

/// Reading a file opens it, which is an event of its own: only what changes names or contents counts.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

struct Reader {
    store: Store,
    watcher: RecommendedWatcher,
    directory: PathBuf,
    snapshots: Snapshots,
    read: Read,
}

impl Reader {
    fn run(mut self, changes: &Receiver<()>) {
        let mut failing = false;
        loop {
            match changes.recv_timeout(SAFETY_INTERVAL) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    // The same directory again is a no-op for inotify; a new one under the old name is watched from now.
                    let _ = self.watcher.watch(&self.directory, RecursiveMode::NonRecursive);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.snapshots.is_closed() {
                return;
            }
            match self.read() {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    warn!(%error, "leases cannot be read; the last ones stay");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    fn read(&mut self) -> Result<(), LeaseError> {
        // A directory that is gone says nothing about the nodes: only a listing of one that exists does.
        let directory = &self.directory;
        std::fs::metadata(directory).map_err(|source| LeaseError::File {
            doing: "look at",
            path: directory.clone(),
            source,
        })?;
        let listing = self.store.list_again(&mut self.read)?;
        self.snapshots.send_if_modified(|current| {
            let next = listing.into_snapshot(current.as_deref());
            let modified = current.as_deref() != Some(&next);
            if modified {
                *current = Some(Arc::new(next));
            }
            modified
        });
        Ok(())
    }
}
