//! The results as tables and as JSON.

use std::fmt;

use serde::Serialize;

use super::{
    grouped::Removal,
    lane::{CHAIN_HOST_PORT, WEFT, WEFT_HOST_PORT},
};
use crate::figures::{median, percentile};

/// Some calls of one kind.
pub(super) struct Batch {
    /// Milliseconds of each call.
    pub(super) times: Vec<f64>,
    /// Calls a second, all threads together.
    pub(super) rate: f64,
    /// Processor time of a call in milliseconds, with that of the programs it ran.
    pub(super) cpu_ms: f64,
}

/// What one round measured of a lane.
pub(super) struct Round {
    pub(super) add: Batch,
    pub(super) del: Batch,
    pub(super) add_together: Batch,
    pub(super) del_together: Batch,
}

/// One kind of call over all rounds.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figure {
    p50_ms: f64,
    p99_ms: f64,
    /// Median over the rounds of the median to that of the kernel alone: the two of a round met the same machine.
    ratio: f64,
    per_second: f64,
    cpu_ms: f64,
}

impl Figure {
    fn of(own: &[Round], reference: &[Round], which: fn(&Round) -> &Batch) -> Self {
        let at = |percent| percentile(own.iter().flat_map(|round| &which(round).times).copied(), percent);
        Self {
            p50_ms: at(50),
            p99_ms: at(99),
            ratio: ratio(own, reference, which),
            per_second: median(own.iter().map(|round| which(round).rate)),
            cpu_ms: median(own.iter().map(|round| which(round).cpu_ms)),
        }
    }
}

fn ratio(own: &[Round], reference: &[Round], which: fn(&Round) -> &Batch) -> f64 {
    let p50 = |round: &Round| median(which(round).times.iter().copied());
    median(own.iter().zip(reference).map(|(own, reference)| p50(own) / p50(reference)))
}

/// One lane.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    name: &'static str,
    /// Programs that one ADD runs.
    execs: usize,
    add: Figure,
    del: Figure,
    add_together: Figure,
    del_together: Figure,
}

impl Row {
    pub(super) fn of(name: &'static str, execs: usize, own: &[Round], reference: &[Round]) -> Self {
        let figure = |which| Figure::of(own, reference, which);
        Self {
            name,
            execs,
            add: figure(|round| &round.add),
            del: figure(|round| &round.del),
            add_together: figure(|round| &round.add_together),
            del_together: figure(|round| &round.del_together),
        }
    }
}

/// A figure to reach (issue 5).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    name: &'static str,
    value: f64,
    #[serde(flatten)]
    bound: Bound,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    rows: Vec<Row>,
    targets: Vec<Target>,
    /// Eight pods of `weft-cni`.
    removal: Removal,
}

impl Report {
    pub(super) fn new(rows: Vec<Row>, removal: Removal, samples: &[Vec<Round>]) -> Self {
        let (weft, host_port) = (&rows[WEFT], &rows[WEFT_HOST_PORT]);
        let chain = ratio(&samples[CHAIN_HOST_PORT], &samples[WEFT_HOST_PORT], |round| &round.add);
        let target = |name, value, bound| Target { name, value, bound };
        let targets = vec![
            target("ADD, to the kernel alone", weft.add.ratio, Bound::AtMost(2.0)),
            target("ADD with hostPort, to the kernel alone", host_port.add.ratio, Bound::AtMost(4.0)),
            target("DEL, to the kernel alone", weft.del.ratio, Bound::AtMost(1.25)),
            target("ADD a second, 8 at a time", weft.add_together.per_second, Bound::AtLeast(600.0)),
            target("processor time of an ADD, ms", weft.add.cpu_ms, Bound::AtMost(2.0)),
            target("ADD with hostPort, the chain's to ours", chain, Bound::AtLeast(10.0)),
        ];
        Self { rows, targets, removal }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, "One by one", &self.rows, |row| [&row.add, &row.del])?;
        table(f, "8 at a time", &self.rows, |row| [&row.add_together, &row.del_together])?;
        writeln!(f, "Ratios are of medians, to the kernel's work alone for the same address families.\n")?;
        for Target { name, value, bound } in &self.targets {
            let (sign, bound) = match bound {
                Bound::AtMost(bound) => ("<=", bound),
                Bound::AtLeast(bound) => (">=", bound),
            };
            writeln!(f, "{name:<42}{value:>8.2}   to reach: {sign} {bound}")?;
        }
        let Removal { one_by_one_ms, at_once_ms, one_request_ms } = self.removal;
        write!(
            f,
            "\nRemoval of 8 pods: DEL one by one {one_by_one_ms:.0} ms, at once {at_once_ms:.0} ms; their interfaces by \
             one request {one_request_ms:.0} ms"
        )
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, rows: &[Row], figures: fn(&Row) -> [&Figure; 2]) -> fmt::Result {
    writeln!(f, "### {title}\n")?;
    let head = ["p50 ms", "ratio", "p99 ms", "CPU ms", "per s"];
    let heads: Vec<String> = ["ADD", "DEL"].iter().flat_map(|verb| head.map(|head| format!("{verb} {head}"))).collect();
    writeln!(f, "| pod by | execs | {} |", heads.join(" | "))?;
    writeln!(f, "|---|{}", "---:|".repeat(heads.len() + 1))?;
    for row in rows {
        let cells: Vec<String> = figures(row).into_iter().flat_map(cells).collect();
        writeln!(f, "| {} | {} | {} |", row.name, row.execs, cells.join(" | "))?;
    }
    writeln!(f)
}

fn cells(figure: &Figure) -> [String; 5] {
    [
        format!("{:.2}", figure.p50_ms),
        format!("{:.2}", figure.ratio),
        format!("{:.2}", figure.p99_ms),
        format!("{:.2}", figure.cpu_ms),
        format!("{:.0}", figure.per_second),
    ]
}
