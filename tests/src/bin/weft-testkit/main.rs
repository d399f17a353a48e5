//! `weft-testkit`: the small programs that a test cluster runs in its namespaces.

#![expect(clippy::print_stdout, reason = "reports for the test kit go to standard output")]

mod ask;
mod client;
mod exec;
mod follow;
mod hold;
mod latency;
mod load;
mod request;
mod serve;

use std::{
    io::{self, Read},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Programs that the test kit runs in namespaces.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Enter a cgroup and a network namespace, and become another program.
    Exec(exec::Exec),
    /// Answer every connection and datagram with a name.
    Serve(serve::Serve),
    /// Make requests, and report who answered.
    Request(request::Request),
    /// Make requests as told on standard input.
    Ask(ask::Ask),
    /// Open new connections at a steady rate until standard input closes.
    Load(load::Load),
    /// Keep one connection busy until standard input closes.
    Hold(hold::Hold),
    /// Connect again and again, and tell when another server answers.
    Follow(follow::Follow),
    /// Build two nodes without agents, print the run's name, and wait. For tests of the kit itself.
    Cluster,
    /// Wait for the owner of a run to end, and remove the run.
    Janitor {
        /// Name of the run.
        run: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Exec(exec) => exec.run(),
        Verb::Serve(serve) => serve.run(),
        Verb::Request(request) => request.run(),
        Verb::Ask(ask) => ask.run(),
        Verb::Load(load) => load.run(),
        Verb::Hold(hold) => hold.run(),
        Verb::Follow(follow) => follow.run(),
        Verb::Cluster => cluster(),
        Verb::Janitor { run } => janitor(&run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-testkit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The owner says `end` or `keep`; if it ends without a word, it was killed or interrupted.
fn janitor(run: &str) -> Result<()> {
    let mut word = String::new();
    io::stdin().read_to_string(&mut word).context("read the owner's word")?;
    if word.trim() == "keep" {
        return Ok(());
    }
    weft_tests::remove(run)?;
    if word.is_empty() {
        eprintln!("weft-testkit: cluster {run} was interrupted and is removed");
    }
    Ok(())
}

fn cluster() -> Result<()> {
    let cluster = weft_tests::Cluster::builder().nodes(2).without_agents().build()?;
    println!("{}", cluster.run().name());
    load::wait_for_end_of_stdin();
    cluster.shutdown()
}

/// Tells the test kit that the work has begun.
fn say_ready() {
    println!("ready");
}

/// Prints a report as one line of JSON.
fn report(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value).context("write the report")?);
    Ok(())
}
