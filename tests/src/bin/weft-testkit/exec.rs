//! `exec`: become another program inside a cgroup and a network namespace.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context, Result};
use clap::Args;
use nix::sched::{CloneFlags, setns};

/// Enter a cgroup and a network namespace, and become another program.
#[derive(Args)]
pub(crate) struct Exec {
    /// Directory of the cgroup.
    #[arg(long)]
    cgroup: PathBuf,
    /// File of the network namespace.
    #[arg(long)]
    netns: PathBuf,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Exec {
    pub(crate) fn run(self) -> Result<()> {
        // The cgroup first: a process that fails later is then found and killed with its run.
        let procs = self.cgroup.join("cgroup.procs");
        fs::write(&procs, process::id().to_string()).with_context(|| format!("enter cgroup {}", procs.display()))?;
        let netns = File::open(&self.netns).with_context(|| format!("open namespace {}", self.netns.display()))?;
        setns(&netns, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter namespace {}", self.netns.display()))?;
        let (program, arguments) = self.command.split_first().context("a program")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("run {}", program.display()))
    }
}
