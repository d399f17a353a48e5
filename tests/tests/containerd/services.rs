//! Services for pods that containerd made.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use weft_tests::{Request, SlicePort, eventually, secs};

use crate::{
    cri::PodSpec,
    fixture::{CriPod, Fixture, PORT, with_containerd},
};

const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 80);
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: ClusterIP
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10]
  ipFamilies: [IPv4]
  ports:
  - {name: http, protocol: TCP, port: 80, targetPort: 8080}
";

#[test]
fn a_cluster_ip_is_chosen_at_the_socket_of_a_container() -> Result<()> {
    with_containerd(|fixture| {
        let (near, _) = fixture.serving_pod(&PodSpec::named("near"))?;
        let (client, container) = fixture.serving_pod(&PodSpec::named("client"))?;
        let far = fixture.cluster.node(2).pod("far")?;
        let _server = far.serve()?;
        let manifests = fixture.cluster.manifests();
        manifests.apply("web.yaml", SERVICE)?;
        manifests.endpoints("web", &[SlicePort::new("http", "TCP", PORT)], &[&far])?;
        manifests.apply("near.yaml", &slice_of(fixture, &near))?;
        eventually(secs(20), || {
            let services = fixture.node().agent().services()?;
            let endpoints = services.first().map_or(0, |service| service.endpoints.len());
            ensure!(endpoints == 2, "{endpoints} endpoints: {services:?}");
            Ok(())
        })?;

        let answers = fixture.request_in(&container, &Request::tcp(VIP).count(40).parallel(4))?.all_good()?;
        ensure!(answers.counts() == "far 20, near 20", "{}", answers.counts());
        ensure!(answers.sources[&client.address] == 40 && answers.peers[&VIP.to_string()] == 40, "{answers:?}");
        // Translated at the socket: no packet to the ClusterIP, so conntrack never saw one. The packet path would have
        // answered too, had runc put the container outside of the agent's cgroup.
        let tracked = fixture.node().run("conntrack", &["-L", "--orig-dst", &VIP.ip().to_string()])?;
        ensure!(tracked.trim().is_empty(), "packets to the ClusterIP: {tracked}");
        for pod in [near, client] {
            fixture.remove(&pod)?;
        }
        fixture.nothing_left()
    })
}

/// An EndpointSlice of `web` with this pod, beside the one that the kit writes for its pods.
fn slice_of(fixture: &Fixture, pod: &CriPod) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-containerd
  namespace: default
  labels: {{kubernetes.io/service-name: web}}
addressType: IPv4
ports:
- {{name: http, protocol: TCP, port: {PORT}}}
endpoints:
- addresses: [\"{}\"]
  nodeName: {}
  conditions: {{ready: true}}
",
        pod.address,
        fixture.node().name()
    )
}
