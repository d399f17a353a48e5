//! `fuzz`: build the fuzz targets with coverage counters and run each for a while. No nightly compiler and no cargo-fuzz: the
//! code is safe Rust, so libFuzzer's counters are all that is wanted, and no sanitizer.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{setup, step, workspace};

/// What cargo-fuzz gives the compiler too.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Longest time for one input, in seconds: the planner is meant to be quick.
const TIMEOUT: u32 = 10;

/// Feed random input to planner and parsers: all targets, or one.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only this target of fuzz/fuzz_targets.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Begin with this random number; default: another one each time.
    #[arg(long)]
    seed: Option<u32>,
}

impl Fuzz {
    pub(crate) fn run(self) -> Result<()> {
        setup::setup()?;
        let mut targets = targets()?;
        if let Some(wanted) = &self.target {
            targets.retain(|target| target == wanted);
            ensure!(!targets.is_empty(), "there is no fuzz/fuzz_targets/{wanted}.rs");
        }
        let directory = build()?;
        let mut failed = Vec::new();
        for target in targets {
            if let Err(error) = self.fuzz(&directory, &target) {
                eprintln!("{error:#}");
                failed.push(target);
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("found by {}: the input is in fuzz/artifacts (above); make it a test of the crate", failed.join(", "))
    }

    /// Runs one target: first over what is known, then on.
    fn fuzz(&self, directory: &std::path::Path, target: &str) -> Result<()> {
        let root = workspace::root().join("fuzz");
        let (corpus, artifacts) = (root.join("corpus").join(target), root.join("artifacts").join(target));
        for path in [&corpus, &artifacts] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let mut command = step::command(directory.join(target));
        command.arg(format!("-max_total_time={}", self.seconds)).arg(format!("-timeout={TIMEOUT}"));
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args(self.seed.map(|seed| format!("-seed={seed}")));
        command.arg(corpus);
        let seeds = root.join("seeds").join(target);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        step::run(&format!("fuzz {target} for {} s", self.seconds), &mut command)
    }
}

/// Names of the targets, as fuzz/Cargo.toml has them.
fn targets() -> Result<Vec<String>> {
    let manifest = workspace::read_toml("fuzz/Cargo.toml")?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array).context("[[bin]] in fuzz/Cargo.toml")?;
    Ok(bins.iter().filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned())).collect())
}

/// Builds all targets, and returns their directory.
fn build() -> Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut cargo = step::cargo();
    // Named, so that the flags are for the targets only and not for build scripts, one of which compiles eBPF.
    cargo.args(["build", "--manifest-path", "fuzz/Cargo.toml", "--bins", "--target", &host]);
    cargo.env("CARGO_TARGET_DIR", workspace::target());
    cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", host.replace('-', "_").to_uppercase()), FLAGS);
    step::run("build the fuzz targets", &mut cargo)?;
    Ok(workspace::target().join(host).join("debug"))
}
