//! Whether the data planes keep up: what health-check node ports and `/livez` tell (kube-proxy.md 11.1).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// Since when something waits to be written; nothing does at first.
#[derive(Debug)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug)]
struct State {
    /// An update that waits as long as this makes the node unhealthy.
    limit: Duration,
    oldest: Option<Instant>,
    updated: Option<Timestamp>,
    ended: bool,
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Whether nothing waits for too long.
    pub(crate) healthy: bool,
    /// When all was written last; `None`: never.
    pub(crate) updated: Option<Timestamp>,
    /// Since when something waits to be written.
    pub(crate) waiting: Option<Duration>,
}

impl Health {
    /// `limit`: kube-proxy's is twice its syncPeriod.
    pub(crate) fn new(limit: Duration) -> Self {
        Self(Mutex::new(State { limit, oldest: None, updated: None, ended: false }))
    }

    /// Something is about to be written, or has to wait for another try. Only the oldest counts.
    pub(crate) fn pending(&self) {
        self.state(|state| _ = state.oldest.get_or_insert_with(Instant::now));
    }

    /// All is written; returns for how long something had waited.
    pub(crate) fn updated(&self) -> Option<Duration> {
        self.state(|state| {
            let waited = state.oldest.take().map(|since| since.elapsed());
            if waited.is_some() || state.updated.is_none() {
                state.updated = Some(Timestamp::now());
            }
            waited
        })
    }

    /// Nobody writes any more: the thread has ended.
    pub(crate) fn ended(&self) {
        self.state(|state| state.ended = true);
    }

    /// Changes the limit.
    pub(crate) fn set_limit(&self, limit: Duration) {
        self.state(|state| state.limit = limit);
    }

    /// Whether nothing waits for too long. It need not be asked by the thread that writes, which may hang.
    pub(crate) fn is_healthy(&self) -> bool {
        self.snapshot().healthy
    }

    /// How things stand.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.state(|state| {
            let waiting = state.oldest.map(|since| since.elapsed());
            let healthy = !state.ended && waiting.is_none_or(|waiting| waiting < state.limit);
            Snapshot { healthy, updated: state.updated, waiting }
        })
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        // The values are right whatever a panicking holder did.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Says that the thread has ended, however it ends.
pub(super) struct UntilEnd(pub(super) std::sync::Arc<Health>);

impl Drop for UntilEnd {
    fn drop(&mut self) {
        self.0.ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_11_1_the_oldest_waiting_update_decides() {
        let limit = Duration::from_secs(60);
        let health = Health::new(limit);
        assert!(health.is_healthy(), "nothing waits");
        let long_ago = Instant::now().checked_sub(limit).unwrap();
        health.state(|state| state.oldest = long_ago.checked_add(Duration::from_secs(1)));
        health.pending();
        assert!(health.is_healthy(), "for less than the limit");
        health.state(|state| state.oldest = Some(long_ago));
        health.pending();
        assert!(!health.is_healthy(), "a newer one does not count");
        health.set_limit(limit * 2);
        assert!(health.is_healthy());
        assert!(health.updated().is_some_and(|waited| waited >= limit));
        assert!(health.is_healthy() && health.snapshot().updated.is_some());
        assert_eq!(health.updated(), None);
        drop(UntilEnd(std::sync::Arc::new(Health::new(limit))));
        health.ended();
        assert!(!health.is_healthy(), "nobody writes any more");
    }
}
