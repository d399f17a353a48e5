//! The results as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::{
    lane::Sample,
    peers::{Cost, PEERS},
};
use crate::figures::{Limit, median, millis};

/// A figure's median, and its ratio to the same figure of the flannel-style path, round by round: the two of a round met
/// the same machine.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    median: f64,
    ratio: f64,
    /// The middle half of the ratios lies between these: what differs less is noise.
    ratio_low: f64,
    ratio_high: f64,
}

impl Figure {
    fn of(own: &[Sample], reference: &[Sample], figure: fn(&Sample) -> f64) -> Self {
        let mut ratios: Vec<f64> = own.iter().zip(reference).map(|(a, b)| figure(a) / figure(b)).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |quarter: usize| ratios.get((ratios.len() - 1) * quarter / 4).copied().unwrap_or(f64::NAN);
        Self { median: median(own.iter().map(figure)), ratio: at(2), ratio_low: at(1), ratio_high: at(3) }
    }
}

/// One path.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    path: &'static str,
    gbit_per_second: Figure,
    cpu_seconds_per_gb: Figure,
    round_trip_us: Figure,
    connections_per_second: Figure,
}

impl Row {
    pub(crate) fn of(path: &'static str, own: &[Sample], reference: &[Sample]) -> Self {
        let figure = |figure| Figure::of(own, reference, figure);
        Self {
            path,
            gbit_per_second: figure(|sample| sample.gbit),
            cpu_seconds_per_gb: figure(|sample| sample.cpu_seconds_per_gb),
            round_trip_us: figure(|sample| sample.round_trip_us),
            connections_per_second: figure(|sample| sample.connections),
        }
    }
}

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) limits: Vec<Limit>,
}

/// Start to ready, by lease manager, and what the peers cost.
pub(crate) fn limits(ready_dir: f64, ready_etcd: f64, cost: &Cost) -> Vec<Limit> {
    let changes = cost.changes.iter().copied().map(millis);
    let worst = cost.changes.iter().copied().max().map_or(f64::NAN, millis);
    vec![
        Limit::new("agent start to ready, dir, median", ready_dir, 150.0, "ms"),
        Limit::new("agent start to ready, etcd, median", ready_etcd, 150.0, "ms"),
        Limit::new(format!("the same among {PEERS} peers"), millis(cost.ready), 150.0 + 250.0, "ms"),
        Limit::new(format!("{PEERS} peers, first entry to last"), millis(cost.programmed), 250.0, "ms"),
        Limit::new("one peer changed, lease to kernel, median", median(changes), 5.0, "ms"),
        Limit::new(format!("the same, worst of {}", cost.changes.len()), worst, 5.0, "ms"),
        Limit::new(format!("RSS with {PEERS} peers"), cost.rss_mb, 25.0, "MB"),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20}", "")?;
        for head in ["Gbit/s", "CPU s/GB", "64 B us", "conn/s"] {
            write!(f, "{head:>9} {:<18}", "ratio")?;
        }
        for row in &self.rows {
            write!(f, "\n{:<20}", row.path)?;
            let figures = [
                (&row.gbit_per_second, 2),
                (&row.cpu_seconds_per_gb, 3),
                (&row.round_trip_us, 0),
                (&row.connections_per_second, 0),
            ];
            for (figure, digits) in figures {
                let ratio = format!("{:.2} ({:.2}-{:.2})", figure.ratio, figure.ratio_low, figure.ratio_high);
                write!(f, "{:>9.digits$} {ratio:<18}", figure.median)?;
            }
        }
        write!(f, "\nratios are to the flannel-style path, with the range of their middle half")?;
        write!(f, "\nto reach: Weft vxlan >= 1.00 within that range (CPU and round trip: <= 1.00)\n")?;
        for limit in &self.limits {
            write!(f, "\n{limit}")?;
        }
        Ok(())
    }
}
