//! What the soaked agent says of itself, and what the kernel says of its process.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use weft_tests::Node;

use crate::objects::NAMESPACE;

/// Sorts after all other files, so that an agent that has read it has read them.
pub(crate) const MARKER_FILE: &str = "zz-marker.json";
const MARKER: &str = "zz-marker";

/// Versions of the marker are ports, so they begin again at some time.
const VERSIONS: u64 = 60_000;

/// The agent of a node, seen from outside.
pub(crate) struct Watched<'a> {
    node: &'a Node,
    socket: PathBuf,
}

/// What `weft status` says of Services.
pub(crate) struct Proxy {
    pub(crate) synced: bool,
    pub(crate) error: String,
    pub(crate) repairs: u64,
}

/// Size of the agent's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Size {
    /// Resident memory, KiB.
    pub(crate) rss_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
}

impl Proxy {
    pub(crate) fn in_sync(&self) -> Result<()> {
        ensure!(self.synced, "the agent is not in sync: {}", self.error);
        Ok(())
    }
}

impl<'a> Watched<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self { node, socket: node.directory().join("run/agent.sock") }
    }

    /// Whether it has put everything up to version `version` of the marker into the kernel.
    pub(crate) fn has_applied(&self, version: u64) -> Result<()> {
        let services = self.get(&format!("/services?service={NAMESPACE}/{MARKER}"))?;
        let port = services.pointer("/0/endpoints/0/port").and_then(Value::as_u64);
        ensure!(port == Some(marker_port(version)), "the agent is at {port:?}, not {}", marker_port(version));
        // After that: a failure of the same turn shows here.
        self.proxy()?.in_sync()
    }

    pub(crate) fn proxy(&self) -> Result<Proxy> {
        let status = self.get("/status")?;
        let proxy = status.get("proxy").context("status without proxy")?;
        Ok(Proxy {
            synced: proxy["synced"] == true,
            error: proxy["lastError"].as_str().unwrap_or_default().to_owned(),
            repairs: proxy["repairs"].as_u64().unwrap_or(0),
        })
    }

    /// `None` while it does not run.
    pub(crate) fn size(&self) -> Option<Size> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Size { rss_kib: field("VmRSS:")?, descriptors, threads: field("Threads:")? })
    }

    fn pid(&self) -> Option<u32> {
        // By its arguments: the agent may have moved to a cgroup of its own.
        let run_dir = format!("--run-dir={}", self.node.directory().join("run").display());
        let is_agent = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            words.next().is_some_and(|program| program.ends_with(b"/weft"))
                && words.any(|word| word == run_dir.as_bytes())
        };
        let entries = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_agent)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut stream = UnixStream::connect(&self.socket).context("the agent does not answer")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: weft\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("answer of the agent: {answer:?}") };
        ensure!(head.contains(" 200 "), "{path}: {head}");
        serde_json::from_str(body).with_context(|| format!("answer of the agent: {body}"))
    }
}

fn marker_port(version: u64) -> u64 {
    1 + version % VERSIONS
}

/// A Service whose only endpoint's port says how much has been written.
pub(crate) fn marker(version: u64) -> String {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": MARKER, "namespace": NAMESPACE},
        "spec": {"clusterIP": "10.96.255.254", "clusterIPs": ["10.96.255.254"], "ports": [{"port": 80}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": MARKER, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": MARKER},
        },
        "addressType": "IPv4",
        "ports": [{"port": marker_port(version)}],
        "endpoints": [{"addresses": ["10.200.0.1"]}],
    });
    format!("{service}\n---\n{slice}\n")
}

/// Ends of a log, for reports.
pub(crate) fn log_of(directory: &Path) -> PathBuf {
    directory.join("agent.log")
}
