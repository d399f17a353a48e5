//! `cargo xtask`: set up, demonstrate, test, check and measure Weft.

#![expect(clippy::print_stdout, reason = "a command-line tool talks on standard output")]

mod bench;
mod build;
mod check;
mod demo;
mod fuzz;
mod image;
mod setup;
mod soak;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Weft repository. One verb is one step of CI.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need; does nothing when all is there.
    Setup,
    /// Build, then bring up a three-node cluster on this machine and show that it works.
    Demo(demo::Demo),
    /// Build, then run all tests, with real packets between network namespaces.
    Test(test::Test),
    /// Check format, lints, documentation, eBPF and fuzz builds, licences and layout.
    Check,
    /// Measure, always as a ratio to the same path without Weft.
    Bench(bench::Bench),
    /// Feed random input to planner and parsers.
    Fuzz(fuzz::Fuzz),
    /// Change Services at random under traffic, as in two days, and look for anything wrong.
    Soak(soak::Soak),
    /// Build the container image, as an archive; no daemon is needed.
    Image(image::Image),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup => setup::setup().map(|()| println!("All that Weft needs is installed.")),
        Verb::Demo(demo) => demo.run(),
        Verb::Test(test) => test.run(),
        Verb::Check => check::check(),
        Verb::Bench(bench) => bench.run(),
        Verb::Fuzz(fuzz) => fuzz.run(),
        Verb::Soak(soak) => soak.run(),
        Verb::Image(image) => image.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
