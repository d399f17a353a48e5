//! How long changes of endpoints take until new connections go by them: kube-proxy's network programming latency
//! (kube-proxy.md 17).

use std::time::SystemTime;

use weft_proxy::plan::EndpointsChange;

use crate::metrics::Metrics;

/// Most changes that wait: while the kernel takes nothing for hours, the first of them tell how bad it is.
const MOST: usize = 10_000;

/// Changes that are not in the kernel yet.
pub(super) struct Programming {
    /// What changed before is not measured: it was followed by whoever ran here then, or by nobody.
    since: SystemTime,
    waiting: Vec<EndpointsChange>,
}

impl Programming {
    /// Measures what changes after `since`.
    pub(super) fn new(since: SystemTime) -> Self {
        Self { since, waiting: Vec::new() }
    }

    /// Takes changes that are to be written.
    pub(super) fn begun(&mut self, changes: Vec<EndpointsChange>) {
        let (since, room) = (self.since, MOST.saturating_sub(self.waiting.len()));
        self.waiting.extend(changes.into_iter().filter(|change| change.at > since).take(room));
    }

    /// All of them are in force.
    pub(super) fn done(&mut self, metrics: &Metrics) {
        for change in self.waiting.drain(..) {
            // The clocks of two machines differ a little.
            metrics.programmed(change.family, change.at.elapsed().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weft_proxy::model::IpFamily;

    use super::*;
    use crate::metrics::Scraped;

    #[test]
    fn section_17_changes_since_the_start_are_measured_once_when_they_are_in_force() {
        let (metrics, since) = (Metrics::new(), SystemTime::now() - Duration::from_secs(60));
        let mut programming = Programming::new(since);
        let change = |family, at| EndpointsChange { family, at };
        let soon = SystemTime::now() + Duration::from_secs(60);
        programming.begun(vec![change(IpFamily::V4, since), change(IpFamily::V4, since + Duration::from_secs(30))]);
        programming.begun(vec![change(IpFamily::V6, soon)]);
        let count = |expected: [Option<&str>; 2]| {
            let text = metrics.encode(&Scraped::default());
            for (family, expected) in ["IPv4", "IPv6"].into_iter().zip(expected) {
                let name = format!("kubeproxy_network_programming_duration_seconds_count{{ip_family=\"{family}\"}} ");
                assert_eq!(text.lines().find_map(|line| line.strip_prefix(&name)), expected, "{family}");
            }
        };
        count([None, None]);
        programming.done(&metrics);
        programming.done(&metrics);
        count([Some("1"), Some("1")]);
    }
}
