//! What it takes to bring Services into the kernel and to keep them right.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;
use weft_tests::{Cluster, Request, eventually, secs, unix_us};

use super::{Effort, Mode, node::Site, objects::Catalogue};
use crate::{
    figures::{median, percentile},
    process::{PeakMemory, cpu_seconds, kernel_mb, memory_mb, settle},
};

/// Longer than the slowest data plane needs for the most Services.
const PATIENCE: Duration = secs(180);
/// Between connections of the client that watches for a change.
const LOOK_EVERY: Duration = Duration::from_micros(300);
/// Ten a second.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// From nothing. Times are medians over the starts, memory is of the last one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    /// From the start of the agent until the last Service works, inside and from outside, with the list from the API server.
    ready_ms: f64,
    /// Of agent and children until then, and a little after.
    cpu_seconds: f64,
    /// Of the agent, settled, MB.
    rss_mb: f64,
    /// Largest sum of agent and children, MB.
    peak_mb: f64,
    /// What the kernel's memory grew by, MB. Of the whole machine, so worth something only on a quiet one.
    kernel_mb: f64,
}

/// Changes of one EndpointSlice with ten endpoints.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changed {
    changes: usize,
    /// From before the request to the API server to the begin of the first connection that follows.
    p50_ms: f64,
    p99_ms: f64,
    /// Share of one processor that agent and children take at ten changes a second, percent.
    cpu_percent: f64,
    /// Of the agent afterwards, MB.
    rss_mb: f64,
}

impl Started {
    pub(super) fn cells(&self) -> [f64; 5] {
        [self.ready_ms, self.cpu_seconds * 1000.0, self.rss_mb, self.peak_mb, self.kernel_mb]
    }
}

impl Changed {
    pub(super) fn cells(&self) -> [f64; 4] {
        [self.p50_ms, self.p99_ms, self.cpu_percent, self.rss_mb]
    }
}

/// Starts the agent on a node that has nothing of it; the last start stays.
pub(super) fn from_nothing(
    cluster: &Cluster,
    site: &Site,
    catalogue: &Catalogue,
    mode: Mode,
    effort: Effort,
) -> Result<Started> {
    let (mut ready, mut cpu) = (Vec::new(), Vec::new());
    // One is enough where it takes so long that noise is none.
    let starts = if mode == Mode::Iptables && catalogue.services() > 1_000 { 1 } else { effort.starts };
    for start in 1.. {
        let kernel_before = kernel_mb()?;
        let begin = Instant::now();
        let pid = site.start(cluster, mode)?;
        let peak = PeakMemory::watch(pid, cluster.node(1).cgroup())?;
        wait_for_services(site, catalogue, PATIENCE).with_context(|| cluster.node(1).agent().log_tail())?;
        ready.push(begin.elapsed().as_secs_f64() * 1000.0);
        settle(pid)?;
        cpu.push(cpu_seconds(pid)?);
        let peak_mb = peak.finish();
        if start == starts {
            let grown = kernel_mb()? - kernel_before;
            return Ok(Started {
                ready_ms: median(ready.into_iter()),
                cpu_seconds: median(cpu.into_iter()),
                rss_mb: memory_mb(pid, "VmRSS")?,
                peak_mb,
                kernel_mb: grown,
            });
        }
        site.clean_up(cluster)?;
    }
    unreachable!("the loop has no other end")
}

/// Whether the last Service works inside and from outside.
fn wait_for_services(site: &Site, catalogue: &Catalogue, patience: Duration) -> Result<()> {
    for (client, target) in [(&site.prober, catalogue.last()), (&site.outside, site.node_port)] {
        let request = Request::tcp(target).timeout(Duration::from_millis(100));
        eventually(patience, || client.request(&request)?.all_good()).with_context(|| format!("{target}"))?;
    }
    Ok(())
}

/// Changes the endpoints of the last Service, one change after the other has arrived, then ten a second.
pub(super) fn changes(cluster: &Cluster, site: &Site, catalogue: &Catalogue, effort: Effort) -> Result<Changed> {
    let pid = cluster.node(1).agent().id()?;
    let mut follower = site.clients[2].follow(catalogue.last(), LOOK_EVERY)?;
    let (mut took, begin) = (Vec::new(), Instant::now());
    while took.len() < effort.changes && begin.elapsed() < Duration::from_secs(effort.change_seconds) {
        let number = took.len();
        let asked = unix_us();
        catalogue.change(cluster, (number + 1) % 2)?;
        let followed = follower.wait()?;
        took.push(followed.at_us.saturating_sub(asked) as f64 / 1000.0);
        // Not in step with anything of the agent.
        thread::sleep(Duration::from_millis(10 + (number as u64 * 7) % 20));
    }
    drop(follower);

    let (cpu, begin) = (cpu_seconds(pid)?, Instant::now());
    for number in 1_u32.. {
        catalogue.change(cluster, number as usize % 2)?;
        let next = CHANGE_EVERY * number;
        if next > Duration::from_secs(effort.steady_seconds) {
            break;
        }
        thread::sleep(next.saturating_sub(begin.elapsed()));
    }
    let cpu_percent = (cpu_seconds(pid)? - cpu) / begin.elapsed().as_secs_f64() * 100.0;
    catalogue.change(cluster, 0)?;
    settle(pid)?;
    Ok(Changed {
        changes: took.len(),
        p50_ms: percentile(took.iter().copied(), 50),
        p99_ms: percentile(took.iter().copied(), 99),
        cpu_percent,
        rss_mb: memory_mb(pid, "VmRSS")?,
    })
}

/// Removes all rules as a foreign program would; returns how long Services do not work.
pub(super) fn repair(cluster: &Cluster, site: &Site, catalogue: &Catalogue, mode: Mode) -> Result<f64> {
    let node = cluster.node(1);
    let begin = Instant::now();
    match mode {
        Mode::Ebpf | Mode::Nftables => node.run("nft", &["flush", "ruleset"])?,
        Mode::Iptables => node.run("sh", &["-c", "iptables-legacy -F; iptables-legacy -t nat -F"])?,
    };
    wait_for_services(site, catalogue, PATIENCE)?;
    Ok(begin.elapsed().as_secs_f64() * 1000.0)
}
