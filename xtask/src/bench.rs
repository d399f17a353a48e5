//! `bench`: build and become the bench program of `tests/`.

use std::path::{self, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    build::{self, Profile},
    step,
};

/// Measure, always as a ratio to the same path without Weft.
#[derive(Args)]
pub(crate) struct Bench {
    /// What to measure: services, overlay, agent, cni.
    #[arg(default_value = "services", value_parser = ["services", "overlay", "agent", "cni"])]
    name: String,
    /// Fewer and shorter rounds, which other clusters of this machine may disturb.
    #[arg(long)]
    quick: bool,
    /// Write the results, with kernel, CPU and versions, to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Of `services`: the data planes, a comma list.
    #[arg(long, value_name = "LIST")]
    modes: Option<String>,
    /// Of `services`: numbers of Services, a comma list.
    #[arg(long, value_name = "LIST")]
    sizes: Option<String>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let directory = build::programs(Profile::Release)?;
        let mut arguments = vec![self.name];
        if self.quick {
            arguments.push("--quick".to_owned());
        }
        if let Some(file) = self.json {
            let file = path::absolute(&file).with_context(|| format!("path {}", file.display()))?;
            arguments.push(format!("--json={}", file.display()));
        }
        let lists = [("--modes", self.modes), ("--sizes", self.sizes)];
        arguments.extend(lists.into_iter().filter_map(|(flag, list)| Some(format!("{flag}={}", list?))));
        step::become_root(directory.join("weft-bench").as_os_str(), &arguments)
    }
}
