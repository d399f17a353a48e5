//! `test`: all tests of the workspace, as root, with one closing line over all of them.

use std::{
    env,
    io::{BufRead, BufReader, IsTerminal, stdout},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    build::{self, Profile},
    image::Image,
    step,
};

/// Run all tests, with real packets between network namespaces.
#[derive(Args)]
pub(crate) struct Test {
    /// Leave out the cluster suites of tests/: under a minute, for the edit loop.
    #[arg(long)]
    quick: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        build::programs(Profile::Dev)?;
        if !self.quick {
            build::static_programs()?;
            Image::for_tests().run()?;
        }
        let mut cargo = step::cargo();
        cargo.args(["test", "--no-fail-fast"]);
        if self.quick {
            println!("==> --quick: the cluster suites of tests/ are left out");
            cargo.args(["--workspace", "--exclude", "weft-ebpf-programs", "--exclude", "weft-tests"]);
        }
        if stdout().is_terminal() {
            cargo.args(["--color", "always"]);
        }
        cargo.arg("--").args(&self.filter);
        // A failed assertion says enough; the backtrace of an error in a test only hides it.
        cargo.env("RUST_LIB_BACKTRACE", "0");
        if !step::is_root() {
            if !step::has_sudo() {
                bail!("the tests make network namespaces: run them as root (there is no sudo)");
            }
            // Only the tests run as root; what cargo writes stays the user's.
            let runner = format!("CARGO_TARGET_{}_LINUX_GNU_RUNNER", host_cpu());
            cargo.env(runner, "sudo --preserve-env");
        }
        let start = Instant::now();
        println!("==> run the tests");
        let mut child = cargo.stdout(Stdio::piped()).spawn().context("start cargo test")?;
        let output = child.stdout.take().context("output of cargo test")?;
        let mut total = Total::default();
        for line in BufReader::new(output).lines() {
            let line = line.context("read the output of cargo test")?;
            println!("{line}");
            total.count(&line);
        }
        let status = child.wait().context("wait for cargo test")?;
        println!("{} passed, {} failed in {:.0} s", total.passed, total.failed, start.elapsed().as_secs_f64());
        if !status.success() || total.failed > 0 {
            bail!("not all tests passed ({status})");
        }
        if total.passed == 0 {
            bail!("no test ran: nothing matches {:?}", self.filter.unwrap_or_default());
        }
        Ok(())
    }
}

/// `X86_64_UNKNOWN`, as the name of cargo's runner variable has it.
fn host_cpu() -> String {
    format!("{}_UNKNOWN", env::consts::ARCH.to_uppercase())
}

/// Sum over all test programs.
#[derive(Default)]
struct Total {
    passed: u64,
    failed: u64,
}

impl Total {
    /// Adds a line such as `test result: ok. 5 passed; 0 failed; 0 ignored; ...` (ok may be coloured).
    fn count(&mut self, line: &str) {
        if !line.starts_with("test result: ") {
            return;
        }
        let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn results_are_summed_over_programs() {
        let mut total = Total::default();
        total.count("running 5 tests");
        total.count("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        total.count("test result: \x1b[31mFAILED\x1b[m. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((total.passed, total.failed), (7, 3));
    }
}
