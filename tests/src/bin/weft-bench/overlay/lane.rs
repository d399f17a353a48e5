//! One path between two places, and what is measured on it.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use weft_tests::{Hold, Load, Node, Place, Server, eventually, secs};

const PORT: u16 = 8080;
const IPERF_PORT: &str = "5201";

/// One path between two nodes.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    client: Place,
    server: Place,
    target: IpAddr,
    _serving: (Server, Process),
}

/// A process that is killed when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one round measured on a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) gbit: f64,
    pub(crate) cpu_seconds_per_gb: f64,
    /// Of 64 bytes.
    pub(crate) round_trip_us: f64,
    /// A second, each with one request.
    pub(crate) connections: f64,
}

impl Lane {
    /// From a pod of one node to a pod of the other.
    pub(crate) fn between_pods(name: &'static str, nodes: [&Node; 2], pods: [[u8; 4]; 2], mtu: u32) -> Result<Self> {
        let client = nodes[0].bare_pod("client", pods[0].into(), mtu)?;
        let server = nodes[1].bare_pod("server", pods[1].into(), mtu)?;
        Self::new(name, client, server, pods[1].into())
    }

    /// From a node itself to the other.
    pub(crate) fn between_nodes(name: &'static str, nodes: [&Node; 2]) -> Result<Self> {
        let [client, server] = nodes.map(|node| Place::clone(node));
        Self::new(name, client, server, nodes[1].v4().into())
    }

    fn new(name: &'static str, client: Place, server: Place, target: IpAddr) -> Result<Self> {
        let mut iperf = server.command("iperf3");
        let iperf =
            iperf.args(["--server", "--port", IPERF_PORT]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let serving = (server.serve_as("server", PORT)?, Process(iperf));
        let lane = Self { name, client, server, target, _serving: serving };
        let socket = lane.socket();
        eventually(secs(5), || {
            lane.client.load(&Load::new(socket, 0).parallel(1).time(Duration::from_millis(50)))?.finish()
        })
        .with_context(|| format!("{name}: {} to {socket}", lane.client.label()))?;
        Ok(lane)
    }

    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.target, PORT)
    }

    /// One round.
    pub(crate) fn measure(&self, time: Duration) -> Result<Sample> {
        let (gbit, cpu_seconds_per_gb) = self.throughput(time)?;
        let hold = self.client.hold(&Hold::new(self.socket()).pause(Duration::ZERO))?;
        std::thread::sleep(time);
        let held = hold.finish()?;
        if let Some(broken) = held.broken {
            bail!("{}: {broken}", self.name);
        }
        let load = self.client.load(&Load::new(self.socket(), 0).parallel(2).time(time))?.finish()?.all_good()?;
        Ok(Sample { gbit, cpu_seconds_per_gb, round_trip_us: held.p50_us as f64, connections: load.rate })
    }

    /// One TCP stream; and the time all processors of the machine spent, client and server included.
    fn throughput(&self, time: Duration) -> Result<(f64, f64)> {
        let busy = busy_seconds()?;
        let (target, seconds) = (self.target.to_string(), time.as_secs().to_string());
        let arguments = ["--client", &target, "--port", IPERF_PORT, "--time", &seconds, "--json"];
        let report = self.client.run("iperf3", &arguments).with_context(|| format!("to {}", self.server.label()))?;
        let busy = busy_seconds()? - busy;
        let report: Value = serde_json::from_str(&report).context("iperf3's report")?;
        let sum = &report["end"]["sum_received"];
        let (Some(bits), Some(bytes)) = (sum["bits_per_second"].as_f64(), sum["bytes"].as_f64()) else {
            bail!("iperf3 says {report}");
        };
        Ok((bits / 1e9, busy / (bytes / 1e9)))
    }
}

/// What all processors spent on anything but idling (proc(5), in 1/100 s).
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("empty /proc/stat")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum::<f64>();
    Ok(busy / 100.0)
}
