//! The Services and EndpointSlices of a run.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_tests::Cluster;

use super::ENDPOINTS;

/// Every so many-th Service has a NodePort too: a cluster has 2,768 of them.
const NODE_PORT_EVERY: u32 = 4;
const FIRST_NODE_PORT: u32 = 30_000;
/// Of the Service that is measured and changed.
pub(crate) const NODE_PORT: u16 = 32_700;
/// `iperf3`'s port, behind the same Services.
pub(super) const IPERF_PORT: u16 = 5201;
pub(super) const IPERF_NODE_PORT: u16 = 32_701;
/// Where the servers listen.
pub(crate) const SERVER_PORT: u16 = 8080;
/// Addresses of Services that lie between.
const CLUSTER_IPS: u32 = u32::from_be_bytes([10, 97, 0, 0]);
/// Addresses of pods elsewhere, which nothing connects to.
const FAR_PODS: u32 = u32::from_be_bytes([10, 192, 0, 0]);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const LAST: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 10);

/// Some Services: `a-first` and `z-last` are measured; with one only, that is `z-last`.
pub(crate) struct Catalogue {
    services: u32,
    /// Addresses of the two servers that the measured Services can have.
    servers: [Vec<Ipv4Addr>; 2],
}

impl Catalogue {
    pub(crate) fn new(services: u32, servers: [Vec<Ipv4Addr>; 2]) -> Self {
        Self { services, servers }
    }

    /// How many.
    pub(crate) fn services(&self) -> u32 {
        self.services
    }

    /// The ClusterIP of the first Service, if it is not the last too.
    pub(super) fn first(&self) -> Option<SocketAddr> {
        (self.services > 1).then(|| SocketAddr::from((FIRST, 80)))
    }

    /// The ClusterIP of the last Service.
    pub(crate) fn last(&self) -> SocketAddr {
        SocketAddr::from((LAST, 80))
    }

    /// Starts the API server again with these objects and no others.
    pub(super) fn publish(&self, cluster: &mut Cluster) -> Result<()> {
        let mut objects = self.objects();
        objects.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
        publish(cluster, objects)
    }

    /// Makes server 0 or 1 the one behind the last Service.
    pub(super) fn change(&self, cluster: &Cluster, server: usize) -> Result<()> {
        cluster.manifests().apply_object(&self.last_slice(server))
    }

    /// The EndpointSlice of the last Service, with server 0 or 1 behind it.
    pub(crate) fn last_slice(&self, server: usize) -> Value {
        self.slice("z-last", &self.servers[server], Some(IPERF_PORT))
    }

    /// All Services and EndpointSlices.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let mut objects = Vec::new();
        if self.services > 1 {
            let ports = [("http", 80, SERVER_PORT, None), ("iperf", IPERF_PORT, IPERF_PORT, None)];
            objects.push(service("a-first", FIRST, &ports));
            objects.push(self.slice("a-first", &self.servers[0], Some(IPERF_PORT)));
        }
        for number in 0..self.services.saturating_sub(2) {
            let name = format!("m-{number:05}");
            let node_port =
                (number % NODE_PORT_EVERY == 0).then(|| (FIRST_NODE_PORT + number / NODE_PORT_EVERY) as u16);
            let vip = Ipv4Addr::from(CLUSTER_IPS + number);
            objects.push(service(&name, vip, &[("http", 80, SERVER_PORT, node_port)]));
            let first = FAR_PODS + number * ENDPOINTS as u32;
            let pods: Vec<Ipv4Addr> = (first..first + ENDPOINTS as u32).map(Ipv4Addr::from).collect();
            objects.push(self.slice(&name, &pods, None));
        }
        let ports =
            [("http", 80, SERVER_PORT, Some(NODE_PORT)), ("iperf", IPERF_PORT, IPERF_PORT, Some(IPERF_NODE_PORT))];
        objects.push(service("z-last", LAST, &ports));
        objects.push(self.last_slice(0));
        objects
    }

    fn slice(&self, service: &str, pods: &[Ipv4Addr], second_port: Option<u16>) -> Value {
        let is_here = |pod| self.servers.iter().any(|server| server.contains(pod));
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| {
                let node = if is_here(pod) { "n1" } else { "elsewhere" };
                json!({"addresses": [pod], "nodeName": node, "conditions": {"ready": true, "serving": true, "terminating": false}})
            })
            .collect();
        let mut ports = vec![json!({"name": "http", "protocol": "TCP", "port": SERVER_PORT})];
        ports.extend(second_port.map(|port| json!({"name": "iperf", "protocol": "TCP", "port": port})));
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-x7k2p"),
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        })
    }
}

/// Starts the API server again with these objects and no others.
pub(crate) fn publish(cluster: &mut Cluster, objects: Vec<Value>) -> Result<()> {
    cluster.manifests_mut().kill_api_server()?;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let path = cluster.manifests().directory().join("services.json");
    fs::write(&path, list.to_string()).with_context(|| format!("write {}", path.display()))?;
    cluster.manifests_mut().restart_api_server()
}

/// Name, port, target port and NodePort of each port.
fn service(name: &str, vip: Ipv4Addr, ports: &[(&str, u16, u16, Option<u16>)]) -> Value {
    let has_node_port = ports.iter().any(|(.., node_port)| node_port.is_some());
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port, target, node_port)| {
            let mut port = json!({"name": name, "protocol": "TCP", "port": port, "targetPort": target});
            if let Some(node_port) = node_port {
                port["nodePort"] = (*node_port).into();
            }
            port
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": if has_node_port { "NodePort" } else { "ClusterIP" },
            "clusterIP": vip,
            "clusterIPs": [vip],
            "ipFamilies": ["IPv4"],
            "selector": {"app": name},
            "ports": ports,
        },
    })
}
