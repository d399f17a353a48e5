//! `soak`: build and become the soak program of `tests/`.

use std::path::{self, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    build::{self, Profile},
    step,
};

/// Change Services for two days in some minutes, and look for anything wrong; see docs/soak.md.
#[derive(Args)]
pub(crate) struct Soak {
    /// Data plane.
    #[arg(long, default_value = "ebpf", value_parser = ["ebpf", "nftables", "iptables"])]
    mode: String,
    /// Changes of objects; default: 50,000, with iptables 5,000.
    #[arg(long, value_name = "N")]
    changes: Option<u64>,
    /// Services, at most 2,760.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    services: u32,
    /// The same seed makes the same changes; default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write every attempt of a client to this file, and the compared states of the kernel beside it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Build as for tests: quicker to build, slower to run.
    #[arg(long)]
    debug: bool,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        let directory = build::programs(if self.debug { Profile::Dev } else { Profile::Release })?;
        let mut arguments = vec![format!("--mode={}", self.mode), format!("--services={}", self.services)];
        arguments.extend(self.changes.map(|changes| format!("--changes={changes}")));
        arguments.extend(self.seed.map(|seed| format!("--seed={seed}")));
        for (flag, file) in [("--json", self.json), ("--trace", self.trace)] {
            let Some(file) = file else { continue };
            let file = path::absolute(&file).with_context(|| format!("path {}", file.display()))?;
            arguments.push(format!("{flag}={}", file.display()));
        }
        step::become_root(directory.join("weft-soak").as_os_str(), &arguments)
    }
}
