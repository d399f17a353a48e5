//! `weft-bench` (`cargo xtask bench`): measurements on a cluster of network namespaces, as ratios within one run.
//!
//! Absolute rates depend on the machine and on who else uses it. So every figure has its reference in the same run,
//! measured in turn with it, and the ratio is the median over the rounds.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod agent;
mod cni;
mod figures;
mod machine;
mod overlay;
mod process;
mod services;

use std::{fmt::Display, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use machine::Machine;
use serde::Serialize;

/// Measure Weft against the same path without it.
#[derive(Parser)]
struct Cli {
    /// What to measure.
    #[command(subcommand)]
    bench: Bench,
    /// Fewer and shorter rounds.
    #[arg(long, global = true)]
    quick: bool,
    /// Write the results to this file too.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

/// The benches.
#[derive(Subcommand)]
enum Bench {
    /// Services by each data plane: connections, round trips, throughput, programming, changes, memory.
    Services(services::Options),
    /// Throughput, round trips and connections from node to node, by Weft and by a hand-made flannel.
    Overlay,
    /// The agent among many Services and Nodes of an API server: start, memory, changes, rest.
    Agent(agent::Options),
    /// ADD and DEL of `weft-cni`, next to the kernel's work alone and to Debian's chain of plugins.
    Cni,
}

/// What is written as JSON.
#[derive(Serialize)]
struct Results<T> {
    bench: &'static str,
    machine: Machine,
    results: T,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let machine = Machine::describe()?;
    println!("{machine}");
    match &cli.bench {
        Bench::Services(options) => show(cli, "services", machine, services::measure(options, cli.quick)?),
        Bench::Overlay => show(cli, "overlay", machine, overlay::measure(cli.quick)?),
        Bench::Agent(options) => show(cli, "agent", machine, agent::measure(options, cli.quick)?),
        Bench::Cni => show(cli, "cni", machine, cni::measure(cli.quick)?),
    }
}

fn show<T: Display + Serialize>(cli: &Cli, bench: &'static str, machine: Machine, results: T) -> Result<()> {
    println!("\n{results}");
    let Some(path) = &cli.json else {
        return Ok(());
    };
    let text = serde_json::to_string_pretty(&Results { bench, machine, results })?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
