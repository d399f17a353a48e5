//! `check`: everything that can be said of the sources without running them. All checks run; the failed ones are
//! named at the end.

mod layout;
mod licences;

use std::{process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{setup, step, workspace};

/// Runs all checks.
pub(crate) fn check() -> Result<()> {
    setup::setup()?;
    let mut report = Report::default();
    report.command("format", step::cargo().args(["fmt", "--all", "--check"]));
    report.command(
        "format of the fuzz targets",
        step::cargo().args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]),
    );
    report.check("lints are inherited by every member", layout::lints_are_inherited);
    report.check("no file is longer than 500 lines", layout::files_are_short);
    report.check("licences and banned crates", licences::check);
    // Default members only: the eBPF programs compile for their own target, in the build script of their loader.
    report.command(
        "lints, and the eBPF programs compile",
        step::cargo().args(["clippy", "--all-targets", "--", "-D", "warnings"]),
    );
    report.command("documentation", step::cargo().args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"));
    report.command("fuzz targets compile", &mut fuzz());
    report.finish()
}

/// `fuzz/` is a workspace of its own, since cargo-fuzz builds it with a nightly compiler and sanitizers.
fn fuzz() -> Command {
    let mut cargo = step::cargo();
    cargo.args(["check", "--manifest-path", "fuzz/Cargo.toml"]);
    // Shared, so that what both workspaces depend on is compiled once.
    cargo.env("CARGO_TARGET_DIR", workspace::target());
    cargo
}

/// Results so far.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    failed: usize,
}

impl Report {
    fn command(&mut self, what: &str, command: &mut Command) {
        self.check(what, || {
            let status = command.status()?;
            if status.success() { Ok(()) } else { bail!("{status}") }
        });
    }

    fn check(&mut self, what: &str, check: impl FnOnce() -> Result<()>) {
        println!("==> {what}");
        let start = Instant::now();
        let result = check();
        let seconds = start.elapsed().as_secs_f64();
        let mark = if result.is_ok() { "ok    " } else { "FAILED" };
        self.lines.push(format!("{mark} {seconds:7.1} s  {what}"));
        if let Err(error) = result {
            eprintln!("{error:#}");
            self.failed += 1;
        }
    }

    fn finish(self) -> Result<()> {
        println!("\n{}", self.lines.join("\n"));
        match self.failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} checks failed", self.lines.len()),
        }
    }
}
