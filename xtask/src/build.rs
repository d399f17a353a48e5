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

/// Builds the programs that tests put into container images: without libraries, so for musl. Unoptimised.
pub(crate) fn static_programs() -> Result<()> {
    let mut cargo = step::cargo();
    cargo.args(["build", "--target", &setup::static_target()]);
    for (package, program) in [("weft", "weft"), ("weft-cni", "weft-cni"), ("weft-tests", "weft-testkit")] {
        cargo.args(["-p", package, "--bin", program]);
    }
    step::run("build the programs of the tests' container images", &mut cargo)
}
