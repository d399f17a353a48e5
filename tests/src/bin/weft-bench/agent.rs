//! The agent as a whole, fed by an API server over TCP alone: Services and Nodes of a large cluster from nothing to all programmed,
//! then changes, then rest; and a small cluster.
//!
//! The objects are dressed as a real cluster's are, with the managed fields, references and statuses that no node agent needs.

mod objects;
mod site;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use weft_tests::{Cluster, OUTSIDE_V4, eventually, secs, unix_us};

use self::{objects::Objects, site::Site};
use crate::{
    figures::{Limit, median, millis, percentile},
    process::{PeakMemory, cpu_seconds, memory_mb, settle},
    services::ENDPOINTS,
};

/// What `agent` measures.
#[derive(Args)]
pub(crate) struct Options {
    /// Let other clusters of this machine run meanwhile (with --quick always so).
    #[arg(long)]
    share: bool,
}

/// How much and how often.
#[derive(Clone, Copy)]
struct Effort {
    services: u32,
    nodes: u32,
    starts: usize,
    changes: usize,
    /// Seconds of rest that are looked at.
    rest: Duration,
}

const FULL: Effort = Effort { services: 10_000, nodes: 1_000, starts: 3, changes: 200, rest: secs(20) };
const QUICK: Effort = Effort { services: 30, nodes: 10, starts: 1, changes: 10, rest: secs(2) };
/// Of the small cluster.
const SMALL: (u32, u32) = (3, 3);
/// Between connections of the client that watches for a change.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    services: u32,
    endpoints_per_service: usize,
    nodes: u32,
    /// How long `curl` takes for the same lists, one after the other: the server and the wire alone.
    lists_ms: f64,
    limits: Vec<Limit>,
}

/// Builds the node and measures.
pub(crate) fn measure(options: &Options, quick: bool) -> Result<Report> {
    let effort = if quick { QUICK } else { FULL };
    let mut builder = Cluster::builder().without_agents().small_api_server();
    if !quick && !options.share {
        builder = builder.alone();
    }
    let mut cluster = builder.build()?;
    let site = Site::build(&cluster)?;
    let large = Objects::new(effort.services, effort.nodes, site.servers());
    large.publish(&mut cluster)?;
    let lists_ms = millis(fetch_lists(&cluster)?);
    let mut limits = starts(&cluster, &site, &large, effort)?;
    limits.extend(changes(&cluster, &site, &large, effort)?);
    limits.extend(rest(&cluster, effort)?);
    site.clean_up(&cluster)?;

    let (services, nodes) = SMALL;
    let small = Objects::new(services, nodes, site.servers());
    small.publish(&mut cluster)?;
    let started = start(&cluster, &site, &small)?;
    limits.push(Limit::new(format!("{services} Services, {nodes} Nodes: RSS"), started.rss_mb, 15.0, "MB"));
    cluster.shutdown()?;
    Ok(Report { services: effort.services, endpoints_per_service: ENDPOINTS, nodes: effort.nodes, lists_ms, limits })
}

/// One start from nothing.
struct Started {
    ready: Duration,
    cpu_seconds: f64,
    peak_mb: f64,
    /// Settled.
    rss_mb: f64,
}

/// Starts the agent on a node that has nothing of it.
fn start(cluster: &Cluster, site: &Site, objects: &Objects) -> Result<Started> {
    let node = cluster.node(1);
    let notices = site.notices()?;
    let begin = Instant::now();
    let pid = site.start(cluster)?;
    let peak = PeakMemory::watch(pid, node.cgroup())?;
    let programmed = || -> Result<Duration> {
        site.wait_for_services(objects)?;
        let services = begin.elapsed();
        let [_, last_route] = notices.until_all_routes(objects.peers())?;
        Ok(services.max(last_route - begin))
    };
    let ready = programmed().with_context(|| node.agent().log_tail())?;
    // What works is all there is.
    eventually(secs(10), || {
        let status = node.agent().status()?;
        let (proxy, overlay) = (status.proxy.context("no proxy")?, status.overlay.context("no overlay")?);
        let has = (proxy.services, overlay.peers_up());
        ensure!(status.ready && proxy.synced && has == objects.counts(), "{has:?} instead of {:?}", objects.counts());
        Ok::<_, anyhow::Error>(())
    })?;
    settle(pid)?;
    let cpu_seconds = cpu_seconds(pid)?;
    Ok(Started { ready, cpu_seconds, peak_mb: peak.finish(), rss_mb: memory_mb(pid, "VmRSS")? })
}

/// Starts from nothing, of which the last stays.
fn starts(cluster: &Cluster, site: &Site, objects: &Objects, effort: Effort) -> Result<Vec<Limit>> {
    let mut all = vec![start(cluster, site, objects)?];
    while all.len() < effort.starts {
        site.clean_up(cluster)?;
        all.push(start(cluster, site, objects)?);
    }
    let middle = |figure: fn(&Started) -> f64| median(all.iter().map(figure));
    let worst = |figure: fn(&Started) -> f64| all.iter().map(figure).fold(0.0, f64::max);
    Ok(vec![
        Limit::new("start to all Services and peers, median", middle(|start| millis(start.ready)), 2000.0, "ms"),
        Limit::new("CPU time of a start, median", middle(|start| start.cpu_seconds * 1000.0), 2000.0, "ms"),
        Limit::new("memory during a start, worst", worst(|start| start.peak_mb), 120.0, "MB"),
        Limit::new("RSS after a start, worst", worst(|start| start.rss_mb), 60.0, "MB"),
    ])
}

/// Changes of the last Service's endpoints, one after the other has arrived.
fn changes(cluster: &Cluster, site: &Site, objects: &Objects, effort: Effort) -> Result<Vec<Limit>> {
    let mut follower = site.client().follow(objects.last(), LOOK_EVERY)?;
    let mut took = Vec::new();
    for number in 0..effort.changes {
        let slice = objects.last_slice((number + 1) % 2);
        let asked = unix_us();
        cluster.manifests().apply_object(&slice)?;
        took.push(follower.wait()?.at_us.saturating_sub(asked) as f64 / 1000.0);
        // Not in step with anything of the agent.
        thread::sleep(Duration::from_millis(10 + (number as u64 * 7) % 20));
    }
    drop(follower);
    cluster.manifests().apply_object(&objects.last_slice(0))?;
    let at = |percent| percentile(took.iter().copied(), percent);
    Ok(vec![
        Limit::new("endpoint change, API to new connections, p50", at(50), 5.0, "ms"),
        Limit::new(format!("the same, p99 of {}", took.len()), at(99), 20.0, "ms"),
    ])
}

/// Nothing happens.
fn rest(cluster: &Cluster, effort: Effort) -> Result<Vec<Limit>> {
    let pid = cluster.node(1).agent().id()?;
    settle(pid)?;
    let (before, begin) = (cpu_seconds(pid)?, Instant::now());
    thread::sleep(effort.rest);
    let percent = (cpu_seconds(pid)? - before) / begin.elapsed().as_secs_f64() * 100.0;
    Ok(vec![
        Limit::new(format!("CPU at rest, over {:?}", effort.rest), percent, 0.5, "%"),
        Limit::new("RSS after all changes", memory_mb(pid, "VmRSS")?, 60.0, "MB"),
    ])
}

/// What the agent asks for, by `curl` from its node.
fn fetch_lists(cluster: &Cluster) -> Result<Duration> {
    let begin = Instant::now();
    for path in ["api/v1/services", "apis/discovery.k8s.io/v1/endpointslices", "api/v1/nodes"] {
        let url = format!("http://{OUTSIDE_V4}:8080/{path}");
        cluster.node(1).run("curl", &["-sf", "-o", "/dev/null", &url])?;
    }
    Ok(begin.elapsed())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, endpoints_per_service, nodes, lists_ms, .. } = self;
        writeln!(
            f,
            "{services} Services x {endpoints_per_service} endpoints, {nodes} Nodes; curl takes {lists_ms:.0} ms for the lists\n"
        )?;
        self.limits.iter().try_for_each(|limit| writeln!(f, "{limit}"))
    }
}
