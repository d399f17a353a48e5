//! The first steps: nodes, leases, pods, Services.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Pod, Request, Server, SlicePort, eventually, secs};

use crate::transcript::{Details, Transcript};

const NODES: usize = 3;

/// The cluster with its pods: on each node a server `web-N` and a client `client-N`.
pub(crate) struct Scene {
    pub(crate) web: Vec<Pod>,
    pub(crate) clients: Vec<Pod>,
    pub(crate) servers: Vec<Server>,
    pub(crate) cluster: Cluster,
}

impl Scene {
    /// ClusterIP of the Service `web`, TCP.
    pub(crate) fn web_vip() -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 10], 80))
    }

    /// ClusterIP of the Service `names`, UDP.
    pub(crate) fn names_vip() -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 53], 53))
    }

    /// ClusterIP of the Service `nobody`, without endpoints.
    pub(crate) fn nobody_vip() -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 99], 80))
    }

    /// Makes these of the web pods (by index) the endpoints of `web` and `names`.
    pub(crate) fn set_endpoints(&self, pods: &[usize]) -> Result<()> {
        let pods: Vec<&Pod> = pods.iter().map(|&index| &self.web[index]).collect();
        let manifests = self.cluster.manifests();
        manifests.endpoints("web", &[SlicePort::new("http", "TCP", 8080)], &pods)?;
        manifests.endpoints("names", &[SlicePort::new("dns", "UDP", 8080)], &pods)
    }
}

/// Brings everything up; `None` if that fails, since nothing can be shown then.
pub(crate) fn set_up(transcript: &mut Transcript) -> Option<Scene> {
    let cluster = transcript.step("Three nodes and a host outside, as network namespaces on one wire", |details| {
        let cluster = Cluster::builder().nodes(NODES).without_agents().build()?;
        details.value("run", cluster.run().name());
        Ok((format!("everything of this run is called weft-{}", cluster.run().name()), cluster))
    })?;
    transcript.step("A weft agent on each node takes a pod subnet and finds the others", |details| {
        start_agents(details, &cluster)
    })?;
    let (web, clients, servers) =
        transcript.step("weft-cni connects two pods on each node", |details| make_pods(details, &cluster))?;
    let scene = Scene { web, clients, servers, cluster };
    transcript.step("kubectl apply, so to speak: tests/demo/services.yaml", |details| apply(details, &scene))?;
    Some(scene)
}

fn start_agents(details: &mut Details, cluster: &Cluster) -> Result<(String, ())> {
    cluster.manifests().apply("nodes.yaml", include_str!("../../../demo/nodes.yaml"))?;
    cluster.start_agents()?;
    details
        .line(format!("{:<6}{:<14}{:<18}{:<20}{:<12}{:<6}PEERS", "NODE", "ADDRESS", "PODS", "VTEP", "DEVICE", "MTU"));
    for node in cluster.nodes() {
        let status = node.agent().status()?;
        let overlay = status.overlay.context("the agent has no overlay")?;
        let peers = overlay.peers_up();
        details.line(format!(
            "{:<6}{:<14}{:<18}{:<20}{:<12}{:<6}{peers} up",
            node.name(),
            overlay.public_ip,
            overlay.subnet,
            overlay.vtep_mac,
            overlay.device,
            overlay.mtu
        ));
        ensure!(peers == cluster.nodes().len() - 1, "{} sees {peers} peers", node.name());
        details.value(node.name(), serde_json::json!({ "subnet": overlay.subnet, "vtepMAC": overlay.vtep_mac }));
    }
    Ok(("all ready, and each sees the two others".to_owned(), ()))
}

type Pods = (Vec<Pod>, Vec<Pod>, Vec<Server>);

fn make_pods(details: &mut Details, cluster: &Cluster) -> Result<(String, Pods)> {
    let (mut web, mut clients, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    let mut add_ms = Vec::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        let mut make = |name: String| -> Result<Pod> {
            let begin = Instant::now();
            let pod = node.pod(&name)?;
            add_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
            Ok(pod)
        };
        let server = make(format!("web-{}", index + 1))?;
        let client = make(format!("client-{}", index + 1))?;
        servers.push(server.serve()?);
        details.line(format!(
            "{:<6}{:<8}{:<16}{:<10}{}",
            node.name(),
            server.name(),
            server.socket_v4(8080)?.ip(),
            client.name(),
            client.socket_v4(8080)?.ip()
        ));
        web.push(server);
        clients.push(client);
    }
    add_ms.sort_by(f64::total_cmp);
    let median = add_ms[add_ms.len() / 2];
    details.value("medianPodMs", median);
    Ok((format!("6 pods; namespace and ADD took {median:.0} ms each"), (web, clients, servers)))
}

fn apply(details: &mut Details, scene: &Scene) -> Result<(String, ())> {
    scene.set_endpoints(&[0, 1, 2])?;
    let begin = Instant::now();
    scene.cluster.manifests().apply("services.yaml", include_str!("../../../demo/services.yaml"))?;
    for client in &scene.clients {
        // Until the Service is there its address leads nowhere, and a client would wait for an answer.
        let request = Request::tcp(Scene::web_vip()).timeout(Duration::from_millis(20));
        eventually(secs(5), || client.request(&request)?.all_good())?;
    }
    let live = begin.elapsed().as_secs_f64() * 1000.0;
    details.line(format!("{:<10}{:<6}{:<16}{:<12}ENDPOINTS", "SERVICE", "", "CLUSTER-IP", "NODE-PORT"));
    let pods: Vec<&str> = scene.web.iter().map(|pod| pod.name()).collect();
    details.line(format!("{:<10}{:<6}{:<16}{:<12}{}", "web", "TCP", "10.96.0.10:80", "30080", pods.join(", ")));
    details.line(format!("{:<10}{:<6}{:<16}{:<12}{}", "names", "UDP", "10.96.0.53:53", "30053", pods.join(", ")));
    details.line(format!("{:<10}{:<6}{:<16}{:<12}none", "nobody", "TCP", "10.96.0.99:80", "-"));
    details.value("liveMs", live);
    Ok((format!("answered from pods of all three nodes {live:.0} ms after the file was written"), ()))
}
