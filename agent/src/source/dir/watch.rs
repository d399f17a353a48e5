//! Follows a manifest directory by inotify and sends what changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tracing::{error, info, warn};

use super::{Directory, SourceEvent};

/// How often everything is read again although nothing was reported: inotify has no events for some file systems.
const FULL_READ: Duration = Duration::from_secs(30);

/// Starts following `root` on a thread of its own, which ends when `deliver` says that nobody listens any more.
///
/// The first delivery is a full list of every kind.
///
/// # Errors
/// The directory does not exist or cannot be watched.
pub(crate) fn watch(root: &Path, deliver: impl Fn(SourceEvent) -> bool + Send + 'static) -> Result<(), notify::Error> {
    let (sender, events) = channel();
    let mut watcher = notify::recommended_watcher(sender)?;
    watcher.watch(root, RecursiveMode::NonRecursive)?;
    let directory = Directory::new(root);
    let root = root.to_owned();
    thread::Builder::new()
        .name("source-dir".to_owned())
        .spawn(move || follow(directory, &root, &events, watcher, deliver))
        .map_err(notify::Error::io)?;
    Ok(())
}

fn follow(
    mut directory: Directory,
    root: &Path,
    events: &Receiver<notify::Result<Event>>,
    _watcher: RecommendedWatcher,
    deliver: impl Fn(SourceEvent) -> bool,
) {
    let mut read = directory.read_all();
    let mut unreadable = false;
    loop {
        match read {
            Ok(events) => {
                for event in events {
                    log_unreadable(&event, &mut unreadable);
                    if !deliver(event) {
                        return;
                    }
                }
            }
            Err(error) => {
                error!(directory = %root.display(), %error, "cannot list the manifests; the last state stays")
            }
        }
        let paths = match events.recv_timeout(FULL_READ) {
            Ok(first) => changed_paths(first, events),
            Err(RecvTimeoutError::Timeout) => Some(BTreeSet::new()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        read = match paths {
            Some(paths) => directory.refresh(&paths),
            None => Ok(Vec::new()),
        };
    }
}

/// The files that changed, with all reports that are waiting; an empty set means "read everything"; `None`: nothing of interest.
fn changed_paths(first: notify::Result<Event>, waiting: &Receiver<notify::Result<Event>>) -> Option<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    let mut everything = false;
    for event in std::iter::once(first).chain(waiting.try_iter()) {
        match event {
            Ok(event) if event.need_rescan() => everything = true,
            Ok(event) if is_settled(event.kind) => {
                // A ConfigMap volume changes by renaming its `..data` link: the files' own names are not reported.
                everything |= event.paths.iter().any(|path| path.ends_with("..data"));
                paths.extend(event.paths);
            }
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "watching the manifests");
                everything = true;
            }
        }
    }
    match (everything, paths.is_empty()) {
        (true, _) => Some(BTreeSet::new()),
        (false, true) => None,
        (false, false) => Some(paths),
    }
}

/// Whether a file's content can be read now. A write is waited for until its end, so that no half file is read.
fn is_settled(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
            | EventKind::Create(_)
    )
}

/// `before`: whether the last report named anything; this one's is left there.
fn log_unreadable(event: &SourceEvent, before: &mut bool) {
    let SourceEvent::Unreadable(rejected) = event else { return };
    for rejected in rejected {
        warn!(object = rejected.object, reason = rejected.reason, "skipped; its last good state stays");
    }
    if *before && rejected.is_empty() {
        info!("all manifests are readable again");
    }
    *before = !rejected.is_empty();
}
