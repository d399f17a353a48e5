//! What tells of changes outside rtnetlink: nftables' notices, and inotify for `subnet.env`.
//!
//! Both are there so that nothing has to be looked at while nothing happens; a node without one of them is looked at
//! regularly instead.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{io::unix::AsyncFd, sync::Notify};
use tracing::debug;
use weft_netlink::NftWatch;

use crate::packet_filter;

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// What our packet rules are, or are judged by.
    Rules,
    /// `subnet.env`.
    File,
}

pub(crate) struct Notices {
    /// `None`: the kernel has no nftables, or its notices cannot be read any more.
    rules: Option<AsyncFd<NftWatch>>,
    file: PathBuf,
    watcher: Option<RecommendedWatcher>,
    file_changed: Arc<Notify>,
}

impl Notices {
    /// Of the network namespace the calling thread is in; within a tokio runtime.
    pub(crate) fn open(file: &Path) -> Self {
        let rules = NftWatch::open().map_err(|error| error.to_string());
        let rules = rules.and_then(|watch| follow(watch).map_err(|error| error.to_string()));
        let file_changed = Arc::new(Notify::new());
        let (notify, name) = (Arc::clone(&file_changed), file.file_name().map(ToOwned::to_owned));
        let is_ours = move |event: &notify::Event| {
            !event.kind.is_access() && event.paths.iter().any(|path| path.file_name() == name.as_deref())
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_ours(&event)) {
                notify.notify_one();
            }
        });
        let mut new = Self {
            rules: rules.inspect_err(|error| debug!(error, "packet rules are not watched")).ok(),
            file: file.to_owned(),
            watcher: watcher.inspect_err(|error| debug!(%error, "subnet.env is not watched")).ok(),
            file_changed,
        };
        new.watch_file();
        new
    }

    pub(crate) fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Watches the directory of the file that is there now; a no-op if it is that one already.
    pub(crate) fn watch_file(&mut self) {
        if let (Some(watcher), Some(directory)) = (&mut self.watcher, self.file.parent()) {
            // It may not be there yet: the next time.
            let _ = watcher.watch(directory, RecursiveMode::NonRecursive);
        }
    }

    /// Waits for the next notice; it may be of what this agent did.
    pub(crate) async fn next(&mut self) -> Notice {
        let file = Arc::clone(&self.file_changed);
        tokio::select! {
            () = self.rules_changed() => Notice::Rules,
            () = file.notified() => Notice::File,
        }
    }

    async fn rules_changed(&mut self) {
        while let Some(watch) = &self.rules {
            let told = match watch.readable().await {
                Ok(mut ready) => {
                    let told = ready.get_inner().changed(packet_filter::concerns).map_err(|error| error.to_string());
                    ready.clear_ready();
                    told
                }
                Err(error) => Err(error.to_string()),
            };
            match told {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    debug!(error, "no more notices of packet rules; the regular look finds changes");
                    self.rules = None;
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

#[expect(deprecated, reason = "a NftWatch keeps its socket open for its life; what replaces it is an unsafe function")]
fn follow(watch: NftWatch) -> io::Result<AsyncFd<NftWatch>> {
    AsyncFd::new(watch)
}
