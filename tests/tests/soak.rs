//! A short form of `cargo xtask soak`, of each data plane; see docs/soak.md.

use std::process::Command;

use anyhow::{Context, Result, ensure};

#[test]
fn ebpf() -> Result<()> {
    soak("ebpf", 2_000)
}

#[test]
fn nftables() -> Result<()> {
    soak("nftables", 800)
}

#[test]
fn iptables() -> Result<()> {
    soak("iptables", 250)
}

/// Another seed each time: the failure names it.
fn soak(mode: &str, changes: u32) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-soak"))
        .args([format!("--mode={mode}"), format!("--changes={changes}"), "--services=100".to_owned()])
        .output()
        .context("run weft-soak")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}
