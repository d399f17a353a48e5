//! Percentiles of many latencies.

use std::time::Duration;

/// Latencies of one client, in nanoseconds up to 4.2 s. All of them are kept: 4 bytes each, so a minute at 20,000 a second is 5 MB.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Adds those of another client.
    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Orders them, after which percentiles can be read.
    pub(crate) fn sorted(mut self) -> Sorted {
        self.0.sort_unstable();
        Sorted(self.0)
    }
}

/// Ordered latencies.
pub(crate) struct Sorted(Vec<u32>);

impl Sorted {
    /// Microseconds that `percent` of them do not exceed; 0 without any.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        self.percentile_ns(percent) / 1000
    }

    /// The same in nanoseconds.
    pub(crate) fn percentile_ns(&self, percent: usize) -> u64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().map_or(0, u64::from)
    }
}
