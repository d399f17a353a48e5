//! The small API server of `tests/api-server`, over plain HTTP.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use weft_netlink::Netns;

use crate::{Binaries, Place};

const PORT: u16 = 8080;

/// The small API server of `tests/api-server`, on a host of the underlay.
#[derive(Debug)]
pub(crate) struct Small {
    place: Place,
    address: SocketAddr,
    program: PathBuf,
    child: Child,
}

impl Small {
    /// Starts it and waits until it listens.
    pub(crate) fn start(place: &Place, address: Ipv4Addr, binaries: &Binaries) -> Result<Self> {
        let address = SocketAddr::from((address, PORT));
        let program = binaries.beside("weft-test-apiserver")?;
        let child = launch(place, &program, address, &[])?;
        Ok(Self { place: place.clone(), address, program, child })
    }

    /// For agents.
    pub(crate) fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "weft", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "weft"}}],
            "current-context": "test",
        })
    }

    /// Kills it; agents keep what they have.
    ///
    /// # Errors
    /// It is not running.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the API server")?;
        self.child.wait().context("wait for the API server")?;
        Ok(())
    }

    /// Starts it again, with these flags.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn restart(&mut self, flags: &[&str]) -> Result<()> {
        self.child = launch(&self.place, &self.program, self.address, flags)?;
        Ok(())
    }

    /// Makes it misbehave; `{}` ends that.
    pub(crate) fn set_faults(&self, faults: &Value) -> Result<()> {
        self.send("PUT", "/faults", &faults.to_string()).map(drop)
    }

    /// Creates or replaces an object by server-side apply.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let path = format!("{}?fieldManager=weft-tests&force=true", path(object)?);
        self.send("PATCH", &path, &object.to_string()).map(drop)
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, object: &Value) -> Result<()> {
        self.send("DELETE", &path(object)?, "").map(drop)
    }

    /// An object as the server has it.
    pub(crate) fn get(&self, object: &Value) -> Result<Value> {
        let body = self.send("GET", &path(object)?, "")?;
        serde_json::from_str(&body).with_context(|| body)
    }

    /// One request on a connection of its own, made inside the server's network; returns the body of the answer.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let exchange = || -> Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
                 Content-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
                self.address,
                if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" },
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let netns = Netns::open(self.place.netns())?;
        let answer = netns.run(exchange)?.with_context(|| format!("{method} {path} at {}", self.address))?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without end of its head")?;
        Ok(body.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(place: &Place, program: &Path, address: SocketAddr, flags: &[&str]) -> Result<Child> {
    let mut command = place.command(program);
    command.args(["--listen", &address.to_string()]).args(flags).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
    let stdout = child.stdout.take().context("standard output of the API server")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("read the ready line of the API server")?;
    if !line.starts_with("listening") {
        let _ = child.kill();
        bail!("{} does not listen on {address}: {line:?}", program.display());
    }
    Ok(child)
}

/// Path of an object in the API, from its apiVersion, kind and metadata.
fn path(object: &Value) -> Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").with_context(|| format!("no apiVersion: {object}"))?;
    let kind = text("/kind").with_context(|| format!("no kind: {object}"))?;
    let name = text("/metadata/name").with_context(|| format!("no name: {object}"))?;
    let prefix = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let plural = format!("{}s", kind.to_lowercase());
    Ok(match kind {
        "Node" => format!("{prefix}/{plural}/{name}"),
        _ => format!("{prefix}/namespaces/{}/{plural}/{name}", text("/metadata/namespace").unwrap_or("default")),
    })
}
