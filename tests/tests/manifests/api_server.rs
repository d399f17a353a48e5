//! A test API server for the real `kubectl`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use weft_tests::Binaries;

/// Goes with the value.
pub(crate) struct ApiServer {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
    home: TempDir,
}

impl ApiServer {
    /// Without any object.
    pub(crate) fn start() -> Result<Self> {
        // It dies with the test's thread, also when the test process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(Binaries::locate()?.beside("weft-test-apiserver")?);
        let mut child = command.stdout(Stdio::piped()).spawn().context("start the API server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").context("its address")?.to_owned();
        Ok(Self { child, address, home: TempDir::new()? })
    }

    /// `kubectl`, which asks this server.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        // It keeps what it discovers under its home directory.
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG");
        command.arg(format!("--server=http://{}", self.address));
        command
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
