//! Agents with the overlay alone, how soon they are ready, and how much memory they take.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use weft_tests::{Cluster, Node, OUTSIDE_V4, eventually, secs};

use super::lane::Process;

/// Who keeps the leases.
#[derive(Clone, Debug)]
pub(crate) enum Leases {
    /// A directory.
    Dir(PathBuf),
    /// The etcd of the outside host.
    Etcd,
}

impl Leases {
    fn flags(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Dir(path) => vec![("--subnet-manager", format!("dir:{}", path.display()))],
            Self::Etcd => {
                vec![("--subnet-manager", "etcd".to_owned()), ("--etcd-endpoints", format!("http://{OUTSIDE_V4}:2379"))]
            }
        }
    }
}

/// A Weft agent, killed when dropped.
pub(crate) struct Overlay {
    process: Process,
    subnet_file: PathBuf,
    /// From the start of the process to the `subnet.env` that says that the network is up.
    pub(crate) ready: Duration,
}

impl Overlay {
    /// Starts it; its files go to `directory`.
    pub(crate) fn start(node: &Node, net_conf: &str, leases: &Leases, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        if let Leases::Dir(path) = leases {
            fs::create_dir_all(path)?;
        }
        let file = directory.join("net-conf.json");
        fs::write(&file, net_conf)?;
        let mut flags = leases.flags();
        flags.extend([("--net-conf", file.display().to_string()), ("--components", "overlay".to_owned())]);
        let flags: Vec<(&str, &str)> = flags.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let arguments = node.agent().arguments_with(&flags);
        let subnet_file = arguments.iter().find_map(|argument| argument.strip_prefix("--subnet-file="));
        let subnet_file = PathBuf::from(subnet_file.context("no --subnet-file among the agent's flags")?);
        let _ = fs::remove_file(&subnet_file);
        let log = fs::File::create(directory.join(format!("{}.log", node.name())))?;
        let mut command = node.agent().command("agent");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begin = Instant::now();
        let process = Process(command.spawn()?);
        while !subnet_file.exists() {
            if begin.elapsed() > secs(10) {
                bail!("{} is not ready; its log is in {}", node.name(), directory.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { process, subnet_file, ready: begin.elapsed() })
    }

    /// An address of the node's subnet.
    pub(crate) fn pod(&self) -> Result<[u8; 4]> {
        let text = fs::read_to_string(&self.subnet_file)?;
        let gateway = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")?.split('/').next());
        let gateway: Ipv4Addr = gateway.context("no FLANNEL_SUBNET")?.parse()?;
        Ok(Ipv4Addr::from(u32::from(gateway) + 4).octets())
    }

    /// In MB, as the target is.
    pub(crate) fn rss_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
    }
}

/// An etcd of one member on the outside host.
pub(crate) fn start_etcd(cluster: &Cluster) -> Result<Process> {
    let url = format!("http://{OUTSIDE_V4}:2379");
    let mut command = cluster.outside().command("etcd");
    command.arg("--data-dir").arg(cluster.run().directory().join("etcd"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    // A single member need not wait long before it elects itself.
    command.args([
        "--heartbeat-interval",
        "20",
        "--election-timeout",
        "100",
        "--logger",
        "zap",
        "--log-level",
        "panic",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let etcd = Process(command.spawn().context("start etcd")?);
    eventually(secs(10), || cluster.outside().run("curl", &["-sf", "-m", "1", &format!("{url}/health")]))?;
    Ok(etcd)
}
