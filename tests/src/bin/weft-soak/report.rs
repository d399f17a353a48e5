//! What came out.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    agent::Size,
    judge::{Tally, Verdicts},
};

/// Growth of the agent's memory that is no leak: allocators round up, and 2,000 Services are never twice the same.
const GROWTH: f64 = 1.10;
/// The same, for a small agent.
const GROWTH_KIB: u64 = 3 * 1024;

/// Size of the agent after so many changes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) changes: u64,
    #[serde(flatten)]
    pub(crate) size: Size,
}

/// The summary.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) mode: &'static str,
    pub(crate) seed: u64,
    pub(crate) services: u32,
    pub(crate) changes: u64,
    pub(crate) seconds: f64,
    /// From the start of the agent until all Services were in the kernel.
    pub(crate) cold_start_seconds: f64,
    /// The longest the agent took to follow up to 120 changes, restarts included.
    pub(crate) slowest_batch_ms: u64,
    pub(crate) restarts: u64,
    pub(crate) kills: u64,
    pub(crate) damages: u64,
    /// The longest until rules that somebody removed were back.
    pub(crate) slowest_repair_ms: u64,
    pub(crate) clients: BTreeMap<&'static str, Tally>,
    pub(crate) samples: Vec<Sample>,
    /// Facts about the kernel that were compared with a plan from scratch.
    pub(crate) facts_compared: usize,
    /// Lines of level ERROR in the agent's log.
    pub(crate) log_errors: usize,
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(mode: &'static str, seed: u64, services: u32) -> Self {
        Self { mode, seed, services, ..Self::default() }
    }

    pub(crate) fn take_verdicts(&mut self, verdicts: &Verdicts) {
        self.clients = verdicts.tallies.iter().map(|(client, tally)| (client.name(), *tally)).collect();
        self.failures.extend(verdicts.wrong.iter().map(|wrong| format!("wrong answer: {wrong}")));
    }

    /// Compares the last quarter of the samples with the first.
    pub(crate) fn judge_growth(&mut self) {
        let quarter = (self.samples.len() / 4).max(1);
        let (Some(first), Some(last)) =
            (self.samples.get(..quarter), self.samples.len().checked_sub(quarter).and_then(|n| self.samples.get(n..)))
        else {
            return;
        };
        let most = |samples: &[Sample], of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
        let (before, after) = (most(first, |s| s.size.rss_kib), most(last, |s| s.size.rss_kib));
        if after > before + GROWTH_KIB && after as f64 > before as f64 * GROWTH {
            self.failures.push(format!("the agent grows: from {before} to {after} KiB"));
        }
        let (before, after) = (most(first, |s| s.size.descriptors as u64), most(last, |s| s.size.descriptors as u64));
        // A look at its socket at that moment is one descriptor or two.
        if after > before + 8 {
            self.failures.push(format!("the agent keeps descriptors: {after} instead of {before}"));
        }
    }

    pub(crate) fn log_panics(&mut self, log: &str) {
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        self.failures.extend(panics.map(|line| format!("the agent's log: {line}")));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.changes as f64 / self.seconds.max(0.001);
        writeln!(f, "mode                 {}, {} Services, seed {}", self.mode, self.services, self.seed)?;
        writeln!(f, "changes              {} in {:.0} s, {rate:.0} a second", self.changes, self.seconds)?;
        writeln!(f, "slowest batch        {} ms", self.slowest_batch_ms)?;
        writeln!(f, "agent                {} restarts, {} kill -9", self.restarts, self.kills)?;
        writeln!(f, "rules removed        {} times, back after at most {} ms", self.damages, self.slowest_repair_ms)?;
        for (client, tally) in &self.clients {
            let Tally { reached, failed_rightly, excused, wrong } = tally;
            let label = format!("from {client}");
            writeln!(
                f,
                "{label:<20} {reached} reached, {failed_rightly} failed as they should, {excused} excused, {wrong} wrong"
            )?;
        }
        if let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) {
            let (a, b) = (first.size, last.size);
            writeln!(f, "agent's memory       {} KiB, at the end {} KiB", a.rss_kib, b.rss_kib)?;
            writeln!(f, "agent's descriptors  {}, at the end {}", a.descriptors, b.descriptors)?;
        }
        writeln!(f, "kernel state         {} facts equal to a plan from scratch", self.facts_compared)?;
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        Ok(())
    }
}
