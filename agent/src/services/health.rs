//! Whether the data planes keep up: what health-check node ports and `/livez` tell (kube-proxy.md 11.1).

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An update that waits as long as this makes the node unhealthy: twice kube-proxy's syncPeriod.
const LIMIT: Duration = Duration::from_secs(60);

/// Since when something waits to be written; nothing does at first.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<Instant>>);

impl Health {
    /// Something is about to be written, or has to wait for another try. Only the oldest counts.
    pub(crate) fn pending(&self) {
        self.oldest(|oldest| _ = oldest.get_or_insert_with(Instant::now));
    }

    /// All is written.
    pub(crate) fn updated(&self) {
        self.oldest(|oldest| *oldest = None);
    }

    /// Whether nothing waits for too long. It need not be asked by the thread that writes, which may hang.
    pub(crate) fn is_healthy(&self) -> bool {
        self.oldest(|oldest| oldest.is_none_or(|since| since.elapsed() < LIMIT))
    }

    fn oldest<T>(&self, with: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        // The value is right whatever a panicking holder did.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_11_1_the_oldest_waiting_update_decides() {
        let health = Health::default();
        assert!(health.is_healthy(), "nothing waits");
        let long_ago = Instant::now().checked_sub(LIMIT).unwrap();
        *health.0.lock().unwrap() = long_ago.checked_add(Duration::from_secs(1));
        health.pending();
        assert!(health.is_healthy(), "for less than the limit");
        *health.0.lock().unwrap() = Some(long_ago);
        health.pending();
        assert!(!health.is_healthy(), "a newer one does not count");
        health.updated();
        assert!(health.is_healthy());
    }
}
