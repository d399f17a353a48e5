//! The demo itself, as a newcomer runs it.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One test, since `--down` removes every kept cluster of the machine.
#[test]
fn the_demo_shows_every_step_keeps_its_cluster_if_asked_and_removes_it() -> Result<()> {
    let output = demo(&["--json", "--keep"])?;
    let steps: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    ensure!(output.status.success() && steps["ok"] == true, "{}", text(&output));
    ensure!(steps["steps"].as_array().is_some_and(|steps| steps.len() >= 10), "{steps:#}");
    let run = steps["steps"][0]["data"]["run"].as_str().context("the run's name")?.to_owned();
    ensure!(weft_tests::leftovers(&run)?.len() > 8, "--keep did not keep it");

    let output = demo(&["--down"])?;
    ensure!(output.status.success() && text(&output).contains(&run), "{}", text(&output));
    let left = weft_tests::leftovers(&run)?;
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

#[test]
fn its_lines_fit_a_terminal_and_nothing_stays() -> Result<()> {
    let output = demo(&[])?;
    let shown = text(&output);
    ensure!(output.status.success(), "{shown}");
    let long: Vec<&str> = shown.lines().filter(|line| line.chars().count() > 100).collect();
    ensure!(long.is_empty(), "longer than 100 columns: {long:#?}");
    ensure!(shown.contains("no namespace, cgroup, mount, process or file is left"), "{shown}");
    Ok(())
}

fn demo(arguments: &[&str]) -> Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_weft-demo")).args(arguments).output().context("run weft-demo")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
