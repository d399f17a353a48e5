//! Prometheus' older text format, for whoever does not ask for OpenMetrics.

use std::fmt::Write;

/// Content type of [`from_open_metrics`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Content type of what the registry writes.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same metrics: here a counter's name ends in `_total` also where it is described, and there is no end mark.
pub(super) fn from_open_metrics(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut older = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let mut words = rest.splitn(3, ' ');
            let (keyword, name, rest) = (words.next()?, words.next()?, words.next()?);
            counters.contains(&name).then_some((keyword, name, rest))
        });
        // Writing into a String does not fail.
        let _ = match described {
            Some((keyword, name, rest)) => writeln!(older, "# {keyword} {name}_total {rest}"),
            None => writeln!(older, "{line}"),
        };
    }
    older
}
