//! `kubectl apply -k` of every overlay at the test API server, twice.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use weft_tests::Binaries;

use crate::render::{OVERLAYS, Tree, objects};

struct ApiServer {
    child: Child,
    address: String,
    home: TempDir,
}

impl ApiServer {
    fn start() -> Result<Self> {
        // It dies with the test's thread, also when the test process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(Binaries::locate()?.beside("weft-test-apiserver")?);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start the API server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("its address")?.to_owned();
        Ok(Self { child, address, home: TempDir::new()? })
    }

    fn apply(&self, directory: &Path) -> Result<String> {
        let mut command = Command::new("kubectl");
        // It keeps what it discovers under its home directory.
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG");
        command.arg(format!("--server=http://{}", self.address));
        // Fields are checked by `types`; older versions want a schema for it, which the test server has none of.
        let output = command.args(["apply", "--validate=false", "-k"]).arg(directory).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl apply -k {}: {errors}", directory.display());
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_overlay_is_applied_and_then_unchanged() -> Result<()> {
    let tree = Tree::copy()?;
    for directory in OVERLAYS.iter().map(|name| tree.overlay(name)).chain([tree.monitoring()]) {
        let server = ApiServer::start()?;
        let count = objects(&directory)?.len();
        for word in ["created", "unchanged"] {
            let answer = server.apply(&directory)?;
            let lines: Vec<&str> = answer.lines().collect();
            ensure!(
                lines.len() == count && lines.iter().all(|line| line.ends_with(word)),
                "{}: {answer}",
                directory.display()
            );
        }
    }
    Ok(())
}
