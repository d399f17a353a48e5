//! `weft-soak` (`cargo xtask soak`): two days' worth of changes of Services in a few minutes, on one node, while clients
//! connect from everywhere, the agent is killed now and then, and somebody removes its rules.
//!
//! Nothing a client meets may be wrong; nothing may grow; and in the end the kernel must hold what an agent puts there that
//! has seen the last state only. `docs/soak.md` says more.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod addresses;
mod agent;
mod backend;
mod client;
mod history;
mod judge;
mod kernel;
mod objects;
mod report;
mod soak;
mod stage;
#[cfg(test)]
mod tests;
mod truth;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Change Services for a long time in a short time, and look for anything wrong.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    soak: soak::Soak,
}

/// What the soak starts in its namespaces.
#[derive(Subcommand)]
enum Verb {
    /// Open new connections to Services at random.
    #[command(hide = true)]
    Client(client::Client),
    /// Be every endpoint.
    #[command(hide = true)]
    Backend,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result: Result<()> = match cli.verb {
        Some(Verb::Client(client)) => client.run(),
        Some(Verb::Backend) => backend::run(),
        None => cli.soak.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells who started us that the work has begun.
fn say_ready() {
    println!("ready");
}
