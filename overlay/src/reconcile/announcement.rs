//! The publishing of the own lease, beside the passes: it may wait for a server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::lease::{Lease, LeaseAttributes, LeaseError, LeaseManager, LeaseRequest};

/// How soon a lease is looked at again that was published but is not in the snapshots yet.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The lease, and what it was asked for with.
pub(super) type Published = (Lease, LeaseAttributes);

#[derive(Default)]
pub(super) struct Announcement {
    running: Option<JoinHandle<Result<Published, LeaseError>>>,
    finished: Option<Instant>,
    not_before: Option<Instant>,
    delay: Duration,
    /// Why the last one failed.
    pub(super) error: Option<String>,
}

impl Announcement {
    /// Starts to publish, unless that goes on already or was done a moment ago; true if so.
    pub(super) fn start(&mut self, now: Instant, leases: &Arc<dyn LeaseManager>, request: LeaseRequest) -> bool {
        if self.running.is_some() || self.not_before.is_some_and(|time| now < time) {
            return false;
        }
        let leases = Arc::clone(leases);
        self.running = Some(tokio::spawn(async move {
            let lease = leases.acquire(&request).await?;
            Ok((lease, request.attributes))
        }));
        true
    }

    /// Waits for the end of what was started; for ever if nothing was.
    pub(super) async fn finished(&mut self) -> Result<Published, LeaseError> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let result = running.await.unwrap_or_else(|error| {
            Err(LeaseError::Backend { doing: "publish the lease".into(), source: error.into() })
        });
        let now = Instant::now();
        self.running = None;
        self.finished = Some(now);
        self.delay = (self.delay * 2).clamp(AGAIN, LONGEST);
        self.not_before = Some(now + self.delay);
        result
    }

    /// When to try again, if something is left to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.running.is_none())
    }

    /// What happens to the own lease is answered at once, though not faster than somebody else could keep changing it.
    pub(super) fn hurry(&mut self) {
        self.delay = Duration::ZERO;
        self.not_before = self.finished.map(|time| time + AGAIN);
    }

    /// Everyone sees the lease as it should be.
    pub(super) fn settle(&mut self) {
        self.not_before = None;
        self.delay = Duration::ZERO;
        self.error = None;
    }
}
