//! The paths connections take, measured in short rounds over all of them, so that whatever drifts on the machine meets all alike.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use weft_tests::{Failure, Hold, Load, Place, Request, eventually, secs};

use super::{
    Effort,
    node::Site,
    objects::{Catalogue, IPERF_NODE_PORT, IPERF_PORT},
};
use crate::figures::median;

/// Clients for the rate: enough that one always has something to do.
const CLIENTS: u32 = 4;

/// A client and where it connects to.
struct Path<'a> {
    name: Name,
    client: &'a Place,
    target: SocketAddr,
    /// The same for `iperf3`.
    stream: SocketAddr,
}

/// The paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Pod to pod on the node without rules or conntrack.
    Reference,
    /// Pod to pod on the node with Weft.
    Direct,
    /// To the ClusterIP of the Service that was created first.
    First,
    /// To that of the last one.
    Last,
    /// From outside to a pod of the node without rules or conntrack.
    OutsideReference,
    /// From outside to a pod of the node with Weft.
    OutsideDirect,
    /// From outside to a NodePort, whose endpoints are on the node.
    NodePort,
}

/// Medians over the rounds on one path, and of the rounds' ratios to another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figure {
    pub(super) path: &'static str,
    pub(super) to: &'static str,
    /// Connections a second, by several clients.
    pub(super) rate: f64,
    pub(super) rate_ratio: f64,
    /// Connect, answer and close by one client.
    pub(super) p50_us: f64,
    pub(super) p50_ratio: f64,
    pub(super) p99_us: f64,
    pub(super) p99_ratio: f64,
    /// 64 bytes there and back on an established connection.
    pub(super) round_trip_us: f64,
    pub(super) round_trip_ratio: f64,
    /// One TCP stream; absent where it was not measured.
    pub(super) gbit: Option<f64>,
    pub(super) gbit_ratio: Option<f64>,
    /// Connections that failed, of all rounds.
    pub(super) failed: u64,
    /// Why, of the first of them.
    pub(super) failure: Option<String>,
}

/// All paths.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures(pub(super) Vec<Figure>);

/// What one round measured on a path.
#[derive(Clone, Debug, Default)]
struct Sample {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    round_trip_us: f64,
    failures: Vec<Failure>,
}

/// Each path and what it is compared with.
const COMPARISONS: [(Name, Name); 7] = [
    (Name::Reference, Name::Reference),
    (Name::Direct, Name::Reference),
    (Name::First, Name::Direct),
    (Name::Last, Name::Direct),
    (Name::OutsideReference, Name::OutsideReference),
    (Name::OutsideDirect, Name::OutsideReference),
    (Name::NodePort, Name::OutsideDirect),
];

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::Reference => "ref",
            Self::Direct => "direct",
            Self::First => "ClusterIP, first",
            Self::Last => "ClusterIP, last",
            Self::OutsideReference => "outside, ref",
            Self::OutsideDirect => "outside, direct",
            Self::NodePort => "NodePort",
        }
    }
}

/// Measures all paths of the Services that are programmed now.
pub(super) fn measure(site: &Site, catalogue: &Catalogue, effort: Effort) -> Result<Figures> {
    let paths = paths(site, catalogue);
    // As every pod asks for names: whoever uses a Service in a data plane of packets is tracked from then on, whatever it connects to.
    let uses_services = site.clients.iter().map(|client| (client, catalogue.last()));
    for (client, target) in uses_services.chain(paths.iter().map(|path| (path.client, path.target))) {
        let request = Request::tcp(target).timeout(Duration::from_millis(500));
        eventually(secs(20), || client.request(&request)?.all_good())
            .with_context(|| format!("{client} to {target}"))?;
    }
    let time = Duration::from_millis(effort.milliseconds);
    let mut samples = vec![Vec::with_capacity(effort.rounds); paths.len()];
    for round in 0..effort.rounds {
        for position in 0..paths.len() {
            let number = (position + round) % paths.len();
            samples[number].push(paths[number].measure(time)?);
        }
    }
    let mut streams = vec![Vec::new(); paths.len()];
    for _ in 0..effort.throughput_rounds {
        for (path, stream) in paths.iter().zip(&mut streams) {
            stream.push(path.throughput()?);
        }
    }
    let of = |name: Name| paths.iter().position(|path| path.name == name);
    let figure = |(name, to): (Name, Name)| {
        let (own, reference) = (of(name)?, of(to)?);
        Some(Figure::of(name, to, [&samples[own], &samples[reference]], [&streams[own], &streams[reference]]))
    };
    Ok(Figures(COMPARISONS.into_iter().filter_map(figure).collect()))
}

fn paths<'a>(site: &'a Site, catalogue: &Catalogue) -> Vec<Path<'a>> {
    let path = |name, client, target: SocketAddr, port: u16| {
        let stream = SocketAddr::new(target.ip(), port);
        Path { name, client, target, stream }
    };
    let mut paths = vec![
        path(Name::Reference, &site.reference_client, site.reference_server, IPERF_PORT),
        path(Name::Direct, &site.clients[0], site.direct(), IPERF_PORT),
        path(Name::Last, &site.clients[2], catalogue.last(), IPERF_PORT),
        path(Name::OutsideReference, &site.outside, site.reference_server, IPERF_PORT),
        path(Name::OutsideDirect, &site.outside, site.direct(), IPERF_PORT),
        path(Name::NodePort, &site.outside, site.node_port, IPERF_NODE_PORT),
    ];
    if let Some(first) = catalogue.first() {
        paths.insert(2, path(Name::First, &site.clients[1], first, IPERF_PORT));
    }
    paths
}

impl Path<'_> {
    fn measure(&self, time: Duration) -> Result<Sample> {
        let load = |clients| self.client.load(&Load::new(self.target, 0).parallel(clients).time(time))?.finish();
        let (one, many) = (load(1)?, load(CLIENTS)?);
        let hold = self.client.hold(&Hold::new(self.target).pause(Duration::ZERO))?;
        thread::sleep(time / 2);
        let held = hold.finish()?;
        if let Some(broken) = held.broken {
            bail!("{}: {broken}", self.name.text());
        }
        Ok(Sample {
            rate: many.rate,
            p50_us: one.p50_ns as f64 / 1000.0,
            p99_us: one.p99_ns as f64 / 1000.0,
            round_trip_us: held.p50_ns as f64 / 1000.0,
            failures: [one.failures, many.failures].concat(),
        })
    }

    fn throughput(&self) -> Result<f64> {
        let (address, port) = (self.stream.ip().to_string(), self.stream.port().to_string());
        let arguments = ["--client", &address, "--port", &port, "--time", "1", "--json"];
        let report =
            self.client.run("iperf3", &arguments).with_context(|| format!("{} by iperf3", self.name.text()))?;
        let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        Ok(bits.with_context(|| format!("iperf3 says {report}"))? / 1e9)
    }
}

impl Figure {
    fn of(name: Name, to: Name, samples: [&[Sample]; 2], streams: [&[f64]; 2]) -> Self {
        let [own, reference] = samples;
        let middle = |figure: fn(&Sample) -> f64| median(own.iter().map(figure));
        // Round by round, since the two of a round met the same machine.
        let ratio = |figure: fn(&Sample) -> f64| median(own.iter().zip(reference).map(|(a, b)| figure(a) / figure(b)));
        let streamed = !streams[0].is_empty();
        Self {
            path: name.text(),
            to: to.text(),
            rate: middle(|sample| sample.rate),
            rate_ratio: ratio(|sample| sample.rate),
            p50_us: middle(|sample| sample.p50_us),
            p50_ratio: ratio(|sample| sample.p50_us),
            p99_us: middle(|sample| sample.p99_us),
            p99_ratio: ratio(|sample| sample.p99_us),
            round_trip_us: middle(|sample| sample.round_trip_us),
            round_trip_ratio: ratio(|sample| sample.round_trip_us),
            gbit: streamed.then(|| median(streams[0].iter().copied())),
            gbit_ratio: streamed.then(|| median(streams[0].iter().zip(streams[1]).map(|(a, b)| a / b))),
            failed: own.iter().map(|sample| sample.failures.len() as u64).sum(),
            failure: own.iter().flat_map(|sample| &sample.failures).next().map(ToString::to_string),
        }
    }
}
