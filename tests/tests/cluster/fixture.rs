//! A cluster that serves: one web pod and one client pod on each of three nodes, and two Services.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Result, ensure};
use weft_tests::{Answers, Cluster, ClusterBuilder, Pod, Request, Server, SlicePort, eventually, secs};

/// `web`: TCP 80 -> 8080, NodePort 30080. `names`: UDP 53 -> 8080, NodePort 30053. Both dual-stack if asked for.
pub(crate) struct Serving {
    pub(crate) web: Vec<Pod>,
    pub(crate) clients: Vec<Pod>,
    pub(crate) servers: Vec<Server>,
    pub(crate) cluster: Cluster,
}

pub(crate) const WEB_NODE_PORT: u16 = 30080;
pub(crate) const NAMES_NODE_PORT: u16 = 30053;

impl Serving {
    /// IPv4.
    pub(crate) fn start() -> Result<Self> {
        Self::on(Cluster::builder())
    }

    /// On three nodes of a cluster like this.
    pub(crate) fn on(builder: ClusterBuilder) -> Result<Self> {
        Self::with_services(builder, "[IPv4]", "[10.96.0.10]", "[10.96.0.53]")
    }

    /// IPv4 and IPv6.
    pub(crate) fn dual_stack() -> Result<Self> {
        Self::dual_stack_on(Cluster::builder())
    }

    /// The same on three nodes of a cluster like this.
    pub(crate) fn dual_stack_on(builder: ClusterBuilder) -> Result<Self> {
        let (web, names) = ("[10.96.0.10, \"2001:db8:96::10\"]", "[10.96.0.53, \"2001:db8:96::53\"]");
        Self::with_services(builder.dual_stack(), "[IPv4, IPv6]", web, names)
    }

    fn with_services(builder: ClusterBuilder, families: &str, web: &str, names: &str) -> Result<Self> {
        let cluster = builder.nodes(3).build()?;
        let mut serving = Self { web: Vec::new(), clients: Vec::new(), servers: Vec::new(), cluster };
        for (index, node) in serving.cluster.nodes().iter().enumerate() {
            let web = node.pod(&format!("web-{}", index + 1))?;
            serving.servers.push(web.serve()?);
            serving.web.push(web);
            serving.clients.push(node.pod(&format!("client-{}", index + 1))?);
        }
        serving.set_endpoints(&[0, 1, 2])?;
        let manifests = serving.cluster.manifests();
        manifests.apply("web.yaml", &service("web", families, web, "http", "TCP", 80, WEB_NODE_PORT))?;
        manifests.apply("names.yaml", &service("names", families, names, "dns", "UDP", 53, NAMES_NODE_PORT))?;
        for node in serving.cluster.nodes() {
            eventually(secs(5), || {
                let services = node.agent().services()?;
                let complete = services.iter().filter(|port| port.endpoints.len() == 3).count();
                let ports = 2 * families.split(',').count();
                ensure!(complete == ports, "{complete} of {ports} service ports have 3 endpoints: {services:#?}");
                Ok::<_, anyhow::Error>(())
            })?;
        }
        Ok(serving)
    }

    /// Makes these of the web pods the endpoints of both Services.
    pub(crate) fn set_endpoints(&self, pods: &[usize]) -> Result<()> {
        let pods: Vec<&Pod> = pods.iter().map(|&index| &self.web[index]).collect();
        self.cluster.manifests().endpoints("web", &[SlicePort::new("http", "TCP", 8080)], &pods)?;
        self.cluster.manifests().endpoints("names", &[SlicePort::new("dns", "UDP", 8080)], &pods)
    }

    /// Everything goes in order, so that errors of DEL and of the removal are seen.
    pub(crate) fn shutdown(self) -> Result<()> {
        drop(self.servers);
        for pod in self.web.into_iter().chain(self.clients) {
            pod.remove()?;
        }
        self.cluster.shutdown()
    }
}

fn service(name: &str, families: &str, ips: &str, port: &str, protocol: &str, number: u16, node_port: u16) -> String {
    let first = ips.trim_start_matches('[').split([',', ']']).next().unwrap_or_default();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  type: NodePort
  clusterIP: {first}
  clusterIPs: {ips}
  ipFamilies: {families}
  ports:
  - {{name: {port}, protocol: {protocol}, port: {number}, targetPort: 8080, nodePort: {node_port}}}
"
    )
}

pub(crate) fn web_vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 10], 80))
}

pub(crate) fn web_vip_v6() -> SocketAddr {
    "[2001:db8:96::10]:80".parse().expect("an address")
}

pub(crate) fn names_vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 53], 53))
}

pub(crate) fn names_vip_v6() -> SocketAddr {
    "[2001:db8:96::53]:53".parse().expect("an address")
}

/// The share of each of the named pods.
pub(crate) fn shares(pods: &[&str], each: u64) -> BTreeMap<String, u64> {
    pods.iter().map(|&name| (name.to_owned(), each)).collect()
}

/// 600 requests by 4 clients over 3 pods: 200 each.
pub(crate) fn assert_exact(client: &weft_tests::Place, request: &Request) -> Result<Answers> {
    let answers = client.request(&request.clone().count(600).parallel(4))?.all_good()?;
    ensure!(
        answers.by_name == shares(&["web-1", "web-2", "web-3"], 200),
        "{client}, {request:?}: {} instead of 200 each",
        answers.counts()
    );
    Ok(answers)
}
