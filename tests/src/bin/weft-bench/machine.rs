//! What the figures were measured on.

use std::{fmt, fs, process::Command, thread};

use anyhow::{Context, Result};
use serde::Serialize;
use weft_tests::Binaries;

/// Kernel, processor and versions.
#[derive(Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    weft: String,
}

impl Machine {
    pub(crate) fn describe() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel version")?;
        let info = fs::read_to_string("/proc/cpuinfo").context("processor")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let agent = Binaries::locate()?.agent;
        let version = Command::new(&agent).arg("--version").output().context("weft --version")?;
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            cpu: model.map_or("unknown CPU", |(_, name)| name).to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            weft: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; Linux {}; {} x {}", self.weft, self.kernel, self.cpus, self.cpu)
    }
}
