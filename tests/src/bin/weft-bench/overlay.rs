//! The pod network: Weft's VXLAN and host-gw against the bare underlay and against a device made by hand as flannel makes it.
//!
//! All from pod to pod, with pods made by hand and alike. Each path has two nodes of its own, which carry what such nodes carry:
//! Weft's rules, flannel's iptables rules, nothing but routes.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use weft_tests::{Cluster, Hold, Load, Node, Place, Server, eventually, secs};

const PORT: u16 = 8080;
const IPERF_PORT: &str = "5201";
/// Peers of the agent whose memory is measured.
const PEERS: usize = 1000;
/// To reach (issue 4).
const TARGET: &str = "to reach: Weft vxlan / flannel-style >= 1.0 within noise; RSS <= 25 MB; ready <= 150 ms";

const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const HOST_GW: &str = r#"{"Network":"10.245.0.0/16","Backend":{"Type":"host-gw"}}"#;
/// Room for the peers of other nodes, and a subnet for its own.
const LARGE: &str = r#"{"Network":"10.0.0.0/8","SubnetMin":"10.200.0.0","Backend":{"Type":"vxlan"}}"#;

/// One path between two nodes.
struct Lane {
    name: &'static str,
    client: Place,
    server: Place,
    target: IpAddr,
    _serving: (Server, Process),
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one round measured on a path.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    gbit: f64,
    cpu_seconds_per_gb: f64,
    round_trip_us: f64,
    connections: f64,
}

/// A path's medians, and their ratios to the flannel-style path.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    path: &'static str,
    gbit_per_second: f64,
    gbit_ratio: f64,
    cpu_seconds_per_gb: f64,
    round_trip_us: f64,
    round_trip_ratio: f64,
    connections_per_second: f64,
    connections_ratio: f64,
}

/// All that was measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    rows: Vec<Row>,
    peers: usize,
    rss_mib_with_peers: f64,
    ready_ms_with_peers: f64,
    /// Median.
    ready_ms: f64,
}

/// Builds the nodes and measures.
pub(crate) fn measure(quick: bool) -> Result<Report> {
    let (rounds, time) = if quick { (3, secs(1)) } else { (7, secs(4)) };
    let cluster = Cluster::builder().nodes(9).alone().without_agents().build()?;
    let directory = cluster.node(1).directory().join("bench");
    let agents = [(1, VXLAN, "vxlan"), (2, VXLAN, "vxlan"), (3, HOST_GW, "host-gw"), (4, HOST_GW, "host-gw")]
        .map(|(number, conf, name)| Overlay::start(cluster.node(number), conf, &directory.join(name)));
    let agents = agents.into_iter().collect::<Result<Vec<_>>>()?;
    flannel_style(cluster.node(5), 5, cluster.node(6), 6)?;
    flannel_style(cluster.node(6), 6, cluster.node(5), 5)?;
    routes_alone(cluster.node(7), cluster.node(8), 8)?;
    routes_alone(cluster.node(8), cluster.node(7), 7)?;
    // One MTU for all: the larger packets of plain routes would hide what the tunnel costs a packet.
    let lanes = [
        Lane::new("routes alone", [cluster.node(7), cluster.node(8)], [[10, 244, 7, 5], [10, 244, 8, 5]], 1450)?,
        Lane::new("flannel-style vxlan", [cluster.node(5), cluster.node(6)], [[10, 244, 5, 5], [10, 244, 6, 5]], 1450)?,
        Lane::new("Weft vxlan", [cluster.node(1), cluster.node(2)], [agents[0].pod()?, agents[1].pod()?], 1450)?,
        Lane::new("Weft host-gw", [cluster.node(3), cluster.node(4)], [agents[2].pod()?, agents[3].pod()?], 1450)?,
    ];
    let mut samples = vec![Vec::new(); lanes.len()];
    println!("{rounds} rounds of {time:?} for each figure and path");
    for round in 0..rounds {
        // Whatever drifts on the machine favours each as often as the others.
        for position in 0..lanes.len() {
            let lane = (position + round) % lanes.len();
            samples[lane].push(lanes[lane].measure(time)?);
        }
    }
    let rows = lanes.iter().zip(&samples).map(|(lane, own)| Row::of(lane.name, own, &samples[1])).collect();
    drop((lanes, agents));

    let last = cluster.node(9);
    let large = directory.join("large");
    write_peers(&large.join("subnets"))?;
    let with_peers = Overlay::start(last, LARGE, &large)?;
    let (rss_mib_with_peers, ready_ms_with_peers) = (with_peers.rss_mib()?, millis(with_peers.ready));
    drop(with_peers);
    let starts = (0..rounds).map(|_| Ok(millis(Overlay::start(cluster.node(8), VXLAN, &directory.join("few"))?.ready)));
    let ready_ms = median(starts.collect::<Result<Vec<_>>>()?.into_iter());
    cluster.shutdown()?;
    Ok(Report { rows, peers: PEERS, rss_mib_with_peers, ready_ms_with_peers, ready_ms })
}

impl Lane {
    fn new(name: &'static str, nodes: [&Node; 2], pods: [[u8; 4]; 2], mtu: u32) -> Result<Self> {
        let client = nodes[0].bare_pod("client", pods[0].into(), mtu)?;
        let server = nodes[1].bare_pod("server", pods[1].into(), mtu)?;
        let target = IpAddr::from(pods[1]);
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

    fn measure(&self, time: Duration) -> Result<Sample> {
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

/// A Weft agent with the overlay alone, killed when dropped.
struct Overlay {
    process: Process,
    subnet_file: PathBuf,
    /// From its start to the `subnet.env` that says that the network is up.
    ready: Duration,
}

impl Overlay {
    fn start(node: &Node, net_conf: &str, leases: &Path) -> Result<Self> {
        fs::create_dir_all(leases)?;
        let file = leases.join("net-conf.json");
        fs::write(&file, net_conf)?;
        let (file, manager) = (file.display().to_string(), format!("dir:{}", leases.display()));
        let flags = [("--net-conf", file.as_str()), ("--subnet-manager", &manager), ("--components", "overlay")];
        let arguments = node.agent().arguments_with(&flags);
        let subnet_file = arguments.iter().find_map(|argument| argument.strip_prefix("--subnet-file="));
        let subnet_file = PathBuf::from(subnet_file.context("no --subnet-file among the agent's flags")?);
        let _ = fs::remove_file(&subnet_file);
        let log = fs::File::create(leases.join(format!("{}.log", node.name())))?;
        let begin = Instant::now();
        let mut command = node.agent().command("agent");
        let process = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let mut agent = Self { process: Process(process), subnet_file, ready: Duration::ZERO };
        while !agent.subnet_file.exists() {
            if begin.elapsed() > secs(10) {
                bail!("{} is not ready; its log is in {}", node.name(), leases.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        agent.ready = begin.elapsed();
        Ok(agent)
    }

    /// An address of the node's subnet.
    fn pod(&self) -> Result<[u8; 4]> {
        let text = fs::read_to_string(&self.subnet_file)?;
        let gateway = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")?.split('/').next());
        let gateway: Ipv4Addr = gateway.context("no FLANNEL_SUBNET")?.parse()?;
        Ok(Ipv4Addr::from(u32::from(gateway) + 4).octets())
    }

    fn rss_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

/// Neither tunnel nor rules: what the machine can do.
fn routes_alone(node: &Node, peer: &Node, other: u8) -> Result<()> {
    let script = format!("sysctl -qw net.ipv4.ip_forward=1; ip route add 10.244.{other}.0/24 via {}", peer.v4());
    node.run("sh", &["-c", &script]).map(drop)
}

/// Device, entries and rules of a flannel node, as measured (flannel.md 4.1, 4.2 and 8).
fn flannel_style(node: &Node, own: u8, peer: &Node, other: u8) -> Result<()> {
    let mac = |number: u8| format!("02:00:00:00:0f:{number:02x}");
    let masq = "iptables -t nat -A FLANNEL-POSTRTG -m comment --comment 'flanneld masq'";
    let script = format!(
        "set -e
ip link add flannel.1 mtu 1450 address {own_mac} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning udpcsum
ip address add 10.244.{own}.0/32 dev flannel.1
ip link set flannel.1 up
sysctl -qw net.ipv4.ip_forward=1
ip neigh replace 10.244.{other}.0 lladdr {other_mac} dev flannel.1 nud permanent
bridge fdb replace {other_mac} dev flannel.1 dst {remote} self permanent
ip route replace 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
iptables -N FLANNEL-FWD; iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT; iptables -A FLANNEL-FWD -d 10.244.0.0/16 -j ACCEPT
iptables -t nat -N FLANNEL-POSTRTG
iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
{masq} -m mark --mark 0x4000/0x4000 -j RETURN
{masq} -s 10.244.{own}.0/24 -d 10.244.0.0/16 -j RETURN
{masq} -s 10.244.0.0/16 -d 10.244.{own}.0/24 -j RETURN
{masq} ! -s 10.244.0.0/16 -d 10.244.{own}.0/24 -j RETURN
{masq} -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
{masq} ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
        own_mac = mac(own),
        other_mac = mac(other),
        local = node.v4(),
        remote = peer.v4(),
    );
    node.run("sh", &["-c", &script]).map(drop)
}

fn write_peers(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for number in 0..PEERS {
        let (a, b) = (number / 250, number % 250);
        let value = format!(
            r#"{{"PublicIP":"172.31.{a}.{b}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{a:02x}:{b:02x}"}}}}"#
        );
        fs::write(directory.join(format!("10.{}.{b}.0-24", 1 + a)), value)?;
    }
    Ok(())
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

impl Row {
    fn of(path: &'static str, own: &[Sample], reference: &[Sample]) -> Self {
        let middle = |figure: fn(&Sample) -> f64| median(own.iter().map(figure));
        // Round by round, since the two of a round met the same machine.
        let ratio = |figure: fn(&Sample) -> f64| median(own.iter().zip(reference).map(|(a, b)| figure(a) / figure(b)));
        Self {
            path,
            gbit_per_second: middle(|sample| sample.gbit),
            gbit_ratio: ratio(|sample| sample.gbit),
            cpu_seconds_per_gb: middle(|sample| sample.cpu_seconds_per_gb),
            round_trip_us: middle(|sample| sample.round_trip_us),
            round_trip_ratio: ratio(|sample| sample.round_trip_us),
            connections_per_second: middle(|sample| sample.connections),
            connections_ratio: ratio(|sample| sample.connections),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "Gbit/s", "ratio", "CPU s/GB", "64 B us", "ratio", "conn/s", "ratio"];
        for (position, word) in head.iter().enumerate() {
            if position == 0 { write!(f, "{word:<22}")? } else { write!(f, "{word:>10}")? }
        }
        for row in &self.rows {
            write!(f, "\n{:<22}{:>10.2}{:>10.2}", row.path, row.gbit_per_second, row.gbit_ratio)?;
            write!(f, "{:>10.3}{:>10.0}{:>10.2}", row.cpu_seconds_per_gb, row.round_trip_us, row.round_trip_ratio)?;
            write!(f, "{:>10.0}{:>10.2}", row.connections_per_second, row.connections_ratio)?;
        }
        write!(
            f,
            "\nratios are to the flannel-style path\n\
             agent with {} peers: {:.1} MiB RSS, ready after {:.0} ms; alone: ready after {:.0} ms\n{TARGET}",
            self.peers, self.rss_mib_with_peers, self.ready_ms_with_peers, self.ready_ms
        )
    }
}
