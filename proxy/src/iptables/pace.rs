//! Keeps work whose cost grows with the tables from taking more than a share of the time.

use std::time::{Duration, Instant};

/// When something was done last, and how long that took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Whether to do it again, if it is to take at most one part in `share` of the time.
    pub(crate) fn is_due(&self, share: u32) -> bool {
        self.last.is_none_or(|(done, cost)| done.elapsed() >= cost * share)
    }

    /// The same, but whatever takes less than `little` is always due.
    pub(crate) fn is_due_or_little(&self, share: u32, little: Duration) -> bool {
        self.is_due(share) || self.last.is_some_and(|(_, cost)| cost < little)
    }

    /// As if it had just been done and had taken so long.
    #[cfg(test)]
    pub(crate) fn after(cost: Duration) -> Self {
        Self { last: Some((Instant::now(), cost)) }
    }

    /// As if time had passed since.
    #[cfg(test)]
    pub(crate) fn earlier_by(self, time: Duration) -> Self {
        Self {
            last: self.last.map(|(done, cost)| (done.checked_sub(time).expect("the machine is up for longer"), cost)),
        }
    }

    /// Does it.
    pub(crate) fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.last = Some((Instant::now(), started.elapsed()));
        result
    }
}
