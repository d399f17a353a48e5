//! Trouble on demand: what networks and busy API servers do to their clients. `PUT /faults` sets it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What goes wrong from now on; all zero is a server in good health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Faults {
    /// Every request is answered 503.
    pub(crate) refuse: bool,
    /// Every watch that starts is told that its version is too old (410).
    pub(crate) expire: bool,
    /// Streaming lists are refused (422), as by a server without the feature.
    pub(crate) no_streaming_lists: bool,
    /// Milliseconds that each answer, and each batch of watch events, comes late.
    pub(crate) delay_ms: u64,
    /// The n-th event of a watch is sent twice.
    pub(crate) duplicate_every: u64,
    /// After the n-th event of a watch the connection is closed.
    pub(crate) drop_every: u64,
    /// Of the n-th event of a watch half is sent, and the connection closed.
    pub(crate) truncate_every: u64,
    /// Lists stop after n objects with a broken connection.
    pub(crate) truncate_lists_after: usize,
}

/// What happens to one event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Whole,
    /// It arrives twice.
    Twice,
    /// It arrives, then the connection ends.
    Last,
    /// Half of it arrives, then the connection ends.
    Half,
}

impl Faults {
    /// Lets pass as much time as things are late.
    pub(crate) async fn wait(&self) {
        // A timer of no time takes a millisecond.
        if self.delay_ms != 0 {
            tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        }
    }

    /// What happens to the `number`-th event of a watch, counted from 1.
    pub(crate) fn fate(&self, number: u64) -> Fate {
        let hits = |every: u64| every != 0 && number.is_multiple_of(every);
        if hits(self.truncate_every) {
            Fate::Half
        } else if hits(self.drop_every) {
            Fate::Last
        } else if hits(self.duplicate_every) {
            Fate::Twice
        } else {
            Fate::Whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Faults};

    #[test]
    fn the_nth_event_is_hit() {
        assert_eq!(Faults::default().fate(1), Fate::Whole);
        let faults = Faults { duplicate_every: 2, drop_every: 3, truncate_every: 4, ..Faults::default() };
        let fates: Vec<Fate> = (1..=4).map(|number| faults.fate(number)).collect();
        assert_eq!(fates, [Fate::Whole, Fate::Twice, Fate::Last, Fate::Half]);
    }
}
