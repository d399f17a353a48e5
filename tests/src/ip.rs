//! iproute2, in batches. The kit does not use our own netlink crate: that is under test.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs the lines of `script` as `ip` commands in one process, in the namespace `netns` (a name).
pub(crate) fn batch(netns: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = netns {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip (package iproute2)")?;
    let mut stdin = child.stdin.take().context("stdin of ip")?;
    stdin.write_all(script.as_bytes()).context("write to ip")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for ip")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("ip -batch in {}: {}\n{script}", netns.unwrap_or("the host"), String::from_utf8_lossy(&output.stderr).trim())
}
