//! `weft-demo` (`cargo xtask demo`): a three-node cluster on this machine, step by step.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod cluster;
mod farewell;
mod network;
mod resilience;
mod services;
mod transcript;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use transcript::Transcript;

/// Bring up three nodes and six pods in network namespaces, and show that Weft carries their packets.
#[derive(Parser)]
#[command(name = "weft-demo")]
struct Cli {
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = if cli.down { down() } else { Ok(show(&cli)) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn down() -> Result<bool> {
    let removed = weft_tests::down()?;
    match removed.as_slice() {
        [] => println!("There is no cluster of a demo on this machine."),
        runs => println!("Removed: {}", runs.join(", ")),
    }
    Ok(true)
}

/// Runs all steps; false if one was not as it should be.
fn show(cli: &Cli) -> bool {
    let mut transcript = Transcript::new(cli.json);
    transcript.title("Weft demo: three nodes, six pods and a host outside, all on this machine");
    if let Some(scene) = cluster::set_up(&mut transcript) {
        // Each of these shows something else; one that fails does not hide the others.
        network::pods_reach_each_other(&mut transcript, &scene);
        services::show(&mut transcript, &scene);
        resilience::show(&mut transcript, &scene);
        farewell::part(&mut transcript, scene, cli.keep);
    }
    transcript.finish()
}
