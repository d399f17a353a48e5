//! What an agent and its children cost: processor time and memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use weft_tests::{eventually, secs};

/// `USER_HZ` of every architecture Linux has today: 1/100 s.
const TICKS: f64 = 100.0;
/// Short beside the life of an `nft` or `iptables-restore` with anything to do.
const SAMPLE_EVERY: Duration = Duration::from_millis(3);

/// An agent that has listed all there is comes to rest long before.
const REST_WITHIN: Duration = secs(180);

/// Seconds of processor time of a process and of the children it has waited for (proc_pid_stat(5)).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the agent's CPU time")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in the agent's stat")?;
    // utime is the 14th field, the name the second.
    let times = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok());
    Ok(times.sum::<f64>() / TICKS)
}

/// Memory of a process in MB (10^6 bytes), by its key in proc_pid_status(5).
pub(crate) fn memory_mb(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the agent's memory")?;
    field_mb(&status, key)
}

/// Memory of the kernel that Services can be in, of the whole machine, in MB: slab (elements, rules), vmalloc (BPF arrays, legacy
/// tables) and per-CPU areas.
pub(crate) fn kernel_mb() -> Result<f64> {
    let info = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    ["Slab:", "VmallocUsed:", "Percpu:"].into_iter().map(|key| field_mb(&info, key)).sum()
}

fn field_mb(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    let kib: f64 = line.trim_start_matches(':').split_whitespace().next().context("no value")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Waits until the agent has nothing to do any more.
pub(crate) fn settle(pid: u32) -> Result<()> {
    let mut before = cpu_seconds(pid)?;
    let quiet = || -> Result<()> {
        thread::sleep(Duration::from_millis(300));
        let now = cpu_seconds(pid)?;
        let spent = now - std::mem::replace(&mut before, now);
        ensure!(spent <= 0.01, "{spent:.2} s of processor time in 0.3 s");
        Ok(())
    };
    eventually(REST_WITHIN, quiet).map(drop).context("the agent does not come to rest")
}

/// Watches the largest sum of memory over an agent and the programs it runs: all processes of its cgroup.
pub(crate) struct PeakMemory {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<f64>,
}

impl PeakMemory {
    /// `node`: the cgroup that the agent is about to enter, or one above that.
    pub(crate) fn watch(agent: u32, node: &Path) -> Result<Self> {
        // <root>/<run>/<node>
        let root = node.ancestors().nth(2).context("the root of cgroups")?;
        let own = || -> Result<PathBuf> {
            let cgroup = fs::read_to_string(format!("/proc/{agent}/cgroup")).context("read the agent's cgroup")?;
            let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup2")?;
            let path = root.join(cgroup);
            ensure!(path.starts_with(node), "the agent is in {}", path.display());
            Ok(path)
        };
        let procs = eventually(secs(5), own)?.0.join("cgroup.procs");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sampler = thread::spawn(move || {
            let mut peak = 0.0_f64;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(sum_mb(agent, &procs));
                thread::sleep(SAMPLE_EVERY);
            }
            peak
        });
        Ok(Self { stop, sampler })
    }

    /// The peak in MB.
    pub(crate) fn finish(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sampler.join().unwrap_or(f64::NAN)
    }
}

/// A child that has not called exec yet shares its parent's memory and does not count.
fn sum_mb(agent: u32, procs: &Path) -> f64 {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(agent);
    let processes = fs::read_to_string(procs).unwrap_or_default();
    let others = processes.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| program(*pid) != own);
    others.chain([agent]).map(|pid| memory_mb(pid, "VmRSS").unwrap_or_default()).sum()
}
