//! One node with some web pods and a client pod, for what has to do with one node only.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weft_tests::{Answers, Cluster, ClusterBuilder, Node, Place, Pod, Request, Server, SlicePort, eventually, secs};

/// `web`: TCP 80 -> 8080 at 10.96.0.10.
pub(crate) struct Single {
    pub(crate) web: Vec<Pod>,
    pub(crate) client: Pod,
    _servers: Vec<Server>,
    pub(crate) cluster: Cluster,
}

impl Single {
    /// With `pods` web pods; the Service is still to be applied.
    pub(crate) fn start(builder: ClusterBuilder, pods: usize) -> Result<Self> {
        Self::with(builder, "", pods, &[])
    }

    /// The same, with a Node object from the start, and an agent whose first start has some flags of its own.
    pub(crate) fn with(builder: ClusterBuilder, node: &str, pods: usize, first: &[(&str, &str)]) -> Result<Self> {
        let cluster = builder.without_agents().build()?;
        if !node.is_empty() {
            cluster.manifests().apply("node.yaml", node)?;
        }
        let host = cluster.node(1);
        host.agent().start_with(first)?;
        host.agent().wait_ready(secs(20))?;
        let (mut web, mut servers) = (Vec::new(), Vec::new());
        for number in 1..=pods {
            let pod = host.pod(&format!("web-{number}"))?;
            servers.push(pod.serve()?);
            web.push(pod);
        }
        let client = host.pod("client")?;
        let single = Self { web, client, _servers: servers, cluster };
        single.set_endpoints(single.web.len())?;
        Ok(single)
    }

    pub(crate) fn node(&self) -> &Node {
        self.cluster.node(1)
    }

    /// Makes the first `count` web pods the endpoints.
    pub(crate) fn set_endpoints(&self, count: usize) -> Result<()> {
        let pods: Vec<&Pod> = self.web.iter().take(count).collect();
        self.cluster.manifests().endpoints("web", &[SlicePort::new("http", "TCP", 8080)], &pods)
    }

    /// Applies the Service `web` with more in its spec, such as `type: NodePort`; `{nodePort}` is more in its port.
    pub(crate) fn apply_web(&self, spec: &str, port: &str) -> Result<()> {
        self.cluster.manifests().apply("web.yaml", &web(spec, port))
    }

    /// Restarts the agent with some flags set otherwise, and waits until it has programmed everything.
    pub(crate) fn restart(&self, flags: &[(&str, &str)]) -> Result<()> {
        self.node().agent().stop()?;
        self.node().agent().start_with(flags)?;
        self.node().agent().wait_ready(secs(20))?;
        Ok(())
    }

    /// A route to the ClusterIPs through the node: packets from there were never in a socket of this node, as those of a
    /// virtual machine.
    pub(crate) fn route_outside(&self) -> Result<&Place> {
        let outside = self.cluster.outside();
        outside.run("ip", &["route", "replace", "10.96.0.0/16", "via", &self.node().v4().to_string()])?;
        Ok(outside)
    }

    pub(crate) fn shutdown(self) -> Result<()> {
        drop(self._servers);
        for pod in self.web.into_iter().chain([self.client]) {
            pod.remove()?;
        }
        self.cluster.shutdown()
    }
}

/// The Service `web`.
pub(crate) fn web(spec: &str, port: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default}}
spec:
  clusterIP: 10.96.0.10
  ports: [{{name: http, port: 80, targetPort: 8080{port}}}]
{spec}"
    )
}

/// The Node `n1`.
pub(crate) fn node(addresses: &[String], pod_cidrs: &str) -> String {
    let addresses: Vec<_> =
        addresses.iter().map(|address| format!("{{type: InternalIP, address: \"{address}\"}}")).collect();
    format!(
        "apiVersion: v1
kind: Node
metadata: {{name: n1}}
spec: {{podCIDRs: [{pod_cidrs}]}}
status: {{addresses: [{}]}}
",
        addresses.join(", ")
    )
}

/// Waits until a TCP request is answered; returns what the servers saw.
pub(crate) fn answered(from: &Place, at: SocketAddr) -> Result<Answers> {
    let request = Request::tcp(at).timeout(secs(1));
    let (answers, _) = eventually(secs(10), || from.request(&request)?.all_good())?;
    Ok(answers)
}

/// Waits until a TCP request fails, in one of these ways.
pub(crate) fn fails(from: &Place, at: SocketAddr, how: &[&str]) -> Result<()> {
    let request = Request::tcp(at).timeout(std::time::Duration::from_millis(300));
    eventually(secs(10), || {
        let answers = from.request(&request)?;
        let error = answers.failures.first().map(|failure| failure.error.clone()).unwrap_or_default();
        ensure!(how.iter().any(|kind| error.starts_with(kind)), "{at}: {error:?} instead of {how:?}");
        Ok(())
    })?;
    Ok(())
}
