//! Back-off of things that failed, each on its own, so that one that keeps failing delays no other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// When to try `K` again. Time is passed in.
#[derive(Debug)]
pub(crate) struct Retries<K> {
    pending: BTreeMap<K, Retry>,
}

#[derive(Clone, Debug)]
struct Retry {
    at: Instant,
    delay: Duration,
    error: String,
}

impl<K> Default for Retries<K> {
    fn default() -> Self {
        Self { pending: BTreeMap::new() }
    }
}

impl<K: Ord> Retries<K> {
    /// Notes a failure: 250 ms until the next try, then twice as long each time, 30 s at most.
    pub(crate) fn failed(&mut self, key: K, now: Instant, error: String) {
        let delay = self.pending.get(&key).map_or(FIRST, |retry| (retry.delay * 2).min(LONGEST));
        self.pending.insert(key, Retry { at: now + delay, delay, error });
    }

    /// Forgets a failure: it succeeded, or circumstances changed.
    pub(crate) fn forget(&mut self, key: &K) {
        self.pending.remove(key);
    }

    /// Keeps only those failures.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.pending.retain(|key, _| keep(key));
    }

    /// Whether it failed and its time has not come.
    pub(crate) fn is_waiting(&self, key: &K, now: Instant) -> bool {
        self.pending.get(key).is_some_and(|retry| retry.at > now)
    }

    pub(crate) fn has_failed(&self, key: &K) -> bool {
        self.pending.contains_key(key)
    }

    /// What failed, and how.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&K, &str)> {
        self.pending.iter().map(|(key, retry)| (key, retry.error.as_str()))
    }

    /// When the next try is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.pending.values().map(|retry| retry.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_for_each_key_alone() {
        let mut retries = Retries::default();
        let mut now = Instant::now();
        for millis in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            retries.failed("a", now, "x".into());
            let at = retries.next().unwrap();
            assert_eq!(at - now, Duration::from_millis(millis));
            assert!(retries.is_waiting(&"a", now) && !retries.is_waiting(&"a", at));
            assert!(!retries.is_waiting(&"b", now));
            now = at;
        }
        retries.forget(&"a");
        assert_eq!(retries.next(), None);
        retries.failed("a", now, "x".into());
        assert_eq!(retries.next().unwrap() - now, FIRST);
    }
}
