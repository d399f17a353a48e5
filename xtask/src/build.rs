//! Building the programs that demo, tests and benches run.

use std::path::PathBuf;

use anyhow::Result;

use crate::{setup, step, workspace};

/// How to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build: tests.
    Dev,
    /// As shipped: demo and benches.
    Release,
}

/// Installs what is missing and builds agent, CNI plugin and the programs of the test kit. Returns their directory.
pub(crate) fn programs(profile: Profile) -> Result<PathBuf> {
    setup::setup()?;
    let mut cargo = step::cargo();
    cargo.args(["build", "--bins", "-p", "weft", "-p", "weft-cni", "-p", "weft-tests", "-p", "weft-test-apiserver"]);
    let directory = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            cargo.arg("--release");
            "release"
        }
    };
    step::run(&format!("build the programs ({directory})"), &mut cargo)?;
    Ok(workspace::target().join(directory))
}
