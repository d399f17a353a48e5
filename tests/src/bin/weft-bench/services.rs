//! Services: each data plane at several numbers of Services, against the same paths through a node without rules or conntrack.
//!
//! One node carries Weft, as an operator would run it: pod network and Services, fed by an API server. The other, `ref`, routes and does
//! nothing else. Pods are made by hand and alike on both. Every Service has ten endpoints; those of the Services that are measured are
//! ten addresses of one pod, so that a ClusterIP leads to the same server on the same path as the address it is compared with.

pub(crate) mod node;
pub(crate) mod objects;
mod paths;
mod programming;
mod table;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use weft_tests::Cluster;

use self::{
    node::Site,
    objects::Catalogue,
    paths::Figures,
    programming::{Changed, Started},
};

/// Endpoints of a Service.
pub(crate) const ENDPOINTS: usize = 10;

/// What `services` measures.
#[derive(Args)]
pub(crate) struct Options {
    /// Data planes, a comma list; iptables is the legacy variant.
    #[arg(long, value_delimiter = ',', default_values_t = Mode::ALL)]
    modes: Vec<Mode>,
    /// Numbers of Services, a comma list.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sizes: Vec<u32>,
    /// Let other clusters of this machine run meanwhile (with --quick always so).
    #[arg(long)]
    share: bool,
}

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Ebpf,
    Nftables,
    Iptables,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Ebpf, Self::Nftables, Self::Iptables];

    const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How long and how often.
#[derive(Clone, Copy)]
struct Effort {
    /// Rounds over all paths.
    rounds: usize,
    /// Time on one path in a round, for each figure.
    milliseconds: u64,
    /// Rounds of throughput, of a second a path.
    throughput_rounds: usize,
    /// Starts from nothing.
    starts: usize,
    /// Changes of an EndpointSlice that are timed, and the seconds they may take.
    changes: usize,
    change_seconds: u64,
    /// Seconds of ten changes a second.
    steady_seconds: u64,
}

const FULL: Effort = Effort {
    rounds: 21,
    milliseconds: 180,
    throughput_rounds: 2,
    starts: 3,
    changes: 200,
    change_seconds: 45,
    steady_seconds: 8,
};
const QUICK: Effort = Effort {
    rounds: 2,
    milliseconds: 60,
    throughput_rounds: 0,
    starts: 1,
    changes: 10,
    change_seconds: 5,
    steady_seconds: 1,
};

/// One data plane at one number of Services.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    mode: Mode,
    services: u32,
    paths: Figures,
    started: Started,
    changed: Changed,
    /// From `nft flush ruleset` (`iptables -F` of the tables filter and nat) until Services work again.
    repair_ms: f64,
}

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    endpoints_per_service: usize,
    rows: Vec<Row>,
}

/// Builds the nodes and measures.
pub(crate) fn measure(options: &Options, quick: bool) -> Result<Report> {
    let mut rows = Vec::new();
    for &mode in &options.modes {
        // Nodes of its own for each: tables of iptables-legacy stay for as long as their network namespace, and cost every packet.
        let mut builder = Cluster::builder().nodes(2).without_agents().small_api_server();
        if !quick && !options.share {
            builder = builder.alone();
        }
        let mut cluster = builder.build()?;
        let site = Site::build(&cluster, mode)?;
        for &services in &options.sizes {
            let catalogue = Catalogue::new(services, site.endpoints());
            catalogue.publish(&mut cluster).context("publish the Services")?;
            let row = measure_size(&cluster, &site, &catalogue, mode, if quick { QUICK } else { FULL });
            rows.push(row.with_context(|| format!("{mode}, {services} Services"))?);
        }
        drop(site);
        cluster.shutdown()?;
    }
    Ok(Report { endpoints_per_service: ENDPOINTS, rows })
}

fn measure_size(cluster: &Cluster, site: &Site, catalogue: &Catalogue, mode: Mode, effort: Effort) -> Result<Row> {
    let services = catalogue.services();
    let say = |what: &str| eprintln!("{mode}, {services} Services: {what}");
    say("from nothing");
    let started = programming::from_nothing(cluster, site, catalogue, mode, effort)?;
    say("paths");
    let paths = paths::measure(site, catalogue, effort)?;
    say("changes");
    let changed = programming::changes(cluster, site, catalogue, effort)?;
    say("repair");
    let repair_ms = programming::repair(cluster, site, catalogue, mode)?;
    site.clean_up(cluster)?;
    Ok(Row { mode, services, paths, started, changed, repair_ms })
}
