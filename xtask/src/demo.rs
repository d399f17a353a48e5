//! `demo`: build and become the demo program of `tests/`.

use anyhow::Result;
use clap::Args;

use crate::{
    build::{self, Profile},
    step,
};

/// Bring up a three-node cluster on this machine and show that it works.
#[derive(Args)]
pub(crate) struct Demo {
    /// Leave the cluster up afterwards, and print commands to look around in it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Remove clusters left by --keep, and what interrupted runs left.
    #[arg(long)]
    down: bool,
    /// Print the steps as JSON.
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(crate) fn run(self) -> Result<()> {
        let directory = build::programs(Profile::Release)?;
        let arguments: Vec<String> = [("--keep", self.keep), ("--down", self.down), ("--json", self.json)]
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(flag, _)| flag.to_owned())
            .collect();
        step::become_root(directory.join("weft-demo").as_os_str(), &arguments)
    }
}
