//! New connections to a ClusterIP with one endpoint, against the same pod addressed directly.

use std::{fmt, net::SocketAddr, time::Duration};

use anyhow::Result;
use serde::Serialize;
use weft_tests::{Cluster, Load, LoadReport, Place, Pod, Request, SlicePort, eventually, secs};

const NODES: usize = 2;
/// As many clients as the machine has processors to spare in a small one.
const CLIENTS: u32 = 2;
/// To reach (design, section 7).
const TARGET: &str = "to reach: rate >= 0.97, latency <= 1.05";

/// A path with its reference.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Comparison {
    path: String,
    direct: Figures,
    cluster_ip: Figures,
    /// ClusterIP / direct, median over the rounds.
    rate_ratio: f64,
    p10_ratio: f64,
    p50_ratio: f64,
}

/// Medians over the rounds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    rate: f64,
    p10_us: f64,
    p50_us: f64,
}

/// All paths.
#[derive(Serialize)]
pub(crate) struct Comparisons(Vec<Comparison>);

/// Builds a cluster and measures.
pub(crate) fn measure(quick: bool) -> Result<Comparisons> {
    let (rounds, time) = if quick { (3, Duration::from_millis(500)) } else { (9, secs(2)) };
    let cluster = Cluster::builder().nodes(NODES).alone().build()?;
    let client = cluster.node(1).pod("client")?;
    let mut comparisons = Vec::new();
    for (number, path) in [(1, "pod on the same node"), (2, "pod on another node")] {
        let web = cluster.node(number).pod("web")?;
        let _server = web.serve()?;
        let vip = SocketAddr::from(([10, 96, 0, 10], 80));
        publish(&cluster, &client, &web, vip)?;
        println!("{path}: {rounds} rounds of {time:?} each way");
        let mut pairs = Vec::new();
        for round in 0..rounds {
            // Whatever drifts on the machine favours the one as often as the other.
            let pair = if round % 2 == 0 {
                let direct = load(&client, web.socket_v4(8080)?, time)?;
                (direct, load(&client, vip, time)?)
            } else {
                let cluster_ip = load(&client, vip, time)?;
                (load(&client, web.socket_v4(8080)?, time)?, cluster_ip)
            };
            pairs.push(pair);
        }
        comparisons.push(Comparison::of(path, &pairs));
        web.remove()?;
    }
    client.remove()?;
    cluster.shutdown()?;
    Ok(Comparisons(comparisons))
}

/// Makes `web` the one endpoint of the Service, and waits until it is.
fn publish(cluster: &Cluster, client: &Place, web: &Pod, vip: SocketAddr) -> Result<()> {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec:\n  clusterIP: {0}\n  \
         clusterIPs: [{0}]\n  ports: [{{name: http, protocol: TCP, port: {1}, targetPort: 8080}}]\n",
        vip.ip(),
        vip.port()
    );
    cluster.manifests().apply("web.yaml", &service)?;
    cluster.manifests().endpoints("web", &[SlicePort::new("http", "TCP", 8080)], &[web])?;
    let request = Request::tcp(vip).timeout(Duration::from_millis(200));
    eventually(secs(5), || client.request(&request)?.all_good())?;
    Ok(())
}

fn load(client: &Place, target: SocketAddr, time: Duration) -> Result<LoadReport> {
    client.load(&Load::new(target, 0).parallel(CLIENTS).time(time))?.finish()?.all_good()
}

impl Comparison {
    fn of(path: &str, pairs: &[(LoadReport, LoadReport)]) -> Self {
        let ratio = |figure: fn(&LoadReport) -> f64| {
            median(pairs.iter().map(|(direct, cluster_ip)| figure(cluster_ip) / figure(direct)))
        };
        Self {
            path: path.to_owned(),
            direct: Figures::of(pairs.iter().map(|(direct, _)| direct)),
            cluster_ip: Figures::of(pairs.iter().map(|(_, cluster_ip)| cluster_ip)),
            rate_ratio: ratio(|report| report.rate),
            p10_ratio: ratio(|report| report.p10_us as f64),
            p50_ratio: ratio(|report| report.p50_us as f64),
        }
    }
}

impl Figures {
    fn of<'a>(reports: impl Iterator<Item = &'a LoadReport> + Clone) -> Self {
        Self {
            rate: median(reports.clone().map(|report| report.rate)),
            p10_us: median(reports.clone().map(|report| report.p10_us as f64)),
            p50_us: median(reports.map(|report| report.p50_us as f64)),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Comparisons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:>10}{:>8}{:>10}{:>8}{:>10}{:>8}",
            "", "conn/s", "ratio", "p10 us", "ratio", "p50 us", "ratio"
        )?;
        for row in &self.0 {
            let direct = &row.direct;
            writeln!(
                f,
                "{:<34}{:>10.0}{:>8}{:>10.0}{:>8}{:>10.0}{:>8}",
                format!("{}, direct", row.path),
                direct.rate,
                "1",
                direct.p10_us,
                "1",
                direct.p50_us,
                "1"
            )?;
            let vip = &row.cluster_ip;
            writeln!(
                f,
                "{:<34}{:>10.0}{:>8.2}{:>10.0}{:>8.2}{:>10.0}{:>8.2}",
                format!("{}, ClusterIP", row.path),
                vip.rate,
                row.rate_ratio,
                vip.p10_us,
                row.p10_ratio,
                vip.p50_us,
                row.p50_ratio
            )?;
        }
        write!(f, "{TARGET}")
    }
}
