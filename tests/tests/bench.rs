//! The bench programs at their shortest: that they still measure, not what.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn services_with_ebpf() -> Result<()> {
    services("ebpf")
}

#[test]
fn services_with_nftables() -> Result<()> {
    services("nftables")
}

#[test]
fn services_with_iptables() -> Result<()> {
    services("iptables")
}

fn services(mode: &str) -> Result<()> {
    let (shown, results) = run(&["services", "--sizes=3", "--modes", mode])?;
    ensure!(shown.contains("| direct / ref |"), "no table: {shown}");
    ensure!(results["machine"]["kernel"].is_string(), "{results:#}");
    let row = &results["results"]["rows"][0];
    ensure!(row["mode"] == mode && row["services"] == 3, "{row:#}");
    let paths = row["paths"].as_array().context("no paths")?;
    ensure!(paths.len() == 7, "{row:#}");
    for path in paths {
        ensure!(path["failed"] == 0 && is_positive(&path["rateRatio"]) && is_positive(&path["p50Us"]), "{path:#}");
    }
    for figure in [&row["started"]["readyMs"], &row["started"]["peakMb"], &row["changed"]["p50Ms"], &row["repairMs"]] {
        ensure!(is_positive(figure), "{row:#}");
    }
    Ok(())
}

#[test]
fn cni() -> Result<()> {
    let (shown, results) = run(&["cni"])?;
    ensure!(shown.contains("to reach: <= 4"), "no table: {shown}");
    let rows = results["results"]["rows"].as_array().context("no rows")?;
    ensure!(rows.len() == 10, "{results:#}");
    for row in rows {
        // One program, but for the chain.
        let is_chain = row["name"].as_str().is_some_and(|name| name.starts_with("chain"));
        ensure!((row["execs"] == 1) != is_chain, "{row:#}");
        for call in ["add", "del", "addTogether", "delTogether"] {
            ensure!(is_positive(&row[call]["p50Ms"]) && is_positive(&row[call]["ratio"]), "{row:#}");
        }
    }
    ensure!(is_positive(&results["results"]["removal"]["oneRequestMs"]), "{results:#}");
    Ok(())
}

#[test]
fn agent() -> Result<()> {
    let (shown, results) = run(&["agent"])?;
    ensure!(shown.contains("to reach: <= 60 MB"), "no table: {shown}");
    let report = &results["results"];
    let limits = report["limits"].as_array().context("no limits")?;
    ensure!(limits.len() == 9 && is_positive(&report["listsMs"]), "{report:#}");
    for limit in limits {
        // At rest there may be nothing at all.
        ensure!(limit["unit"] == "%" || is_positive(&limit["value"]), "{limit:#}");
    }
    Ok(())
}

/// What it shows and what it writes.
fn run(arguments: &[&str]) -> Result<(String, Value)> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("results.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
    let output = bench.args(arguments).args(["--quick", "--json"]).arg(&json).output().context("run weft-bench")?;
    let shown = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "{shown}");
    Ok((shown, serde_json::from_slice(&std::fs::read(&json)?)?))
}

fn is_positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}
