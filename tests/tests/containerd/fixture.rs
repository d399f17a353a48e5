//! Two nodes, containerd on the first, its network made by the agent alone.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use weft_tests::{Answers, Cluster, Node, Pod, Request, SlicePort, eventually, secs};

use crate::{
    cri::{Cri, PodSpec, Sandbox, container},
    daemon::Containerd,
    image::{self, POD_IMAGE, SANDBOX_PORT, TESTKIT, WEFT_IMAGE},
};

/// Port of the containers' server.
pub(crate) const PORT: u16 = 8080;

/// The ClusterIP of the Service `web`.
pub(crate) const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 80);
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

/// What a test gets.
pub(crate) struct Fixture {
    pub(crate) containerd: Containerd,
    pub(crate) cri: Cri,
    pub(crate) cluster: Cluster,
}

/// Runs a test with it; its failure comes with the ends of containerd's and the agent's log.
pub(crate) fn with_containerd(test: impl FnOnce(&mut Fixture) -> Result<()>) -> Result<()> {
    let fixture = Fixture::start()?;
    fixture.cluster.start_agents()?;
    eventually(secs(30), || fixture.cri.network_ready()).with_context(|| fixture.containerd.failure_context())?;
    judge(fixture, test)
}

/// The same, but containerd's node has no agent yet, and containerd has the agent's image.
pub(crate) fn with_image(test: impl FnOnce(&mut Fixture) -> Result<()>) -> Result<()> {
    let fixture = Fixture::start()?;
    fixture.cluster.node(2).agent().start()?;
    fixture.cluster.node(2).agent().wait_ready(secs(30))?;
    fixture.import(&image::weft()?, WEFT_IMAGE)?;
    judge(fixture, test)
}

fn judge(mut fixture: Fixture, test: impl FnOnce(&mut Fixture) -> Result<()>) -> Result<()> {
    if let Err(error) = test(&mut fixture) {
        let agent = fixture.node().agent().log_tail();
        return Err(error.context(format!("{}\nagent:\n{agent}", fixture.containerd.failure_context())));
    }
    let Fixture { mut containerd, cluster, .. } = fixture;
    containerd.stop()?;
    drop(containerd);
    cluster.shutdown()
}

impl Fixture {
    fn start() -> Result<Self> {
        let cluster = Cluster::builder().nodes(2).without_agents().build()?;
        let node = cluster.node(1);
        // The kit's link to the plugin; here the agent is to install it.
        fs::remove_file(node.directory().join("cni-bin/weft-cni"))?;
        let containerd = Containerd::start(node, POD_IMAGE)?;
        let cri = Cri::connect(&containerd.socket(), cgroup_parent(node)?)?;
        let fixture = Self { containerd, cri, cluster };
        ensure!(fixture.cri.network_ready().is_err(), "the network is ready before the agent ran");
        fixture.import(&image::write(&fixture.containerd.images())?, POD_IMAGE)?;
        Ok(fixture)
    }

    /// Imports an image, and waits until CRI knows it, to which containerd tells it later.
    fn import(&self, archive: &Path, name: &str) -> Result<()> {
        self.containerd.import(archive)?;
        eventually(secs(30), || self.cri.has_image(name)).with_context(|| self.containerd.failure_context())?;
        Ok(())
    }

    /// The node with containerd.
    pub(crate) fn node(&self) -> &Node {
        self.cluster.node(1)
    }

    /// Makes a pod without containers.
    pub(crate) fn pod(&self, spec: &PodSpec) -> Result<CriPod> {
        let sandbox = self.cri.run_pod(spec)?;
        let address = self.cri.pod_address(&sandbox)?;
        Ok(CriPod { name: spec.name.clone(), sandbox, address })
    }

    /// Makes a pod with one container, which answers with the pod's name at port 8080; returns its ID too.
    pub(crate) fn serving_pod(&self, spec: &PodSpec) -> Result<(CriPod, String)> {
        let pod = self.pod(spec)?;
        let name = format!("--name={}", spec.name);
        let (tcp, udp) = (format!("--tcp={PORT}"), format!("--udp={PORT}"));
        let config = container("server", POD_IMAGE, &[TESTKIT, "serve", &name, &tcp, &udp]);
        let container = self.cri.run_container(&pod.sandbox, config)?;
        let answers = || self.cluster.node(1).request(&Request::tcp(pod.socket(PORT)?))?.all_good();
        eventually(secs(20), answers).with_context(|| format!("server of pod {}", pod.name))?;
        Ok((pod, container))
    }

    /// Makes requests from inside a container.
    pub(crate) fn request_in(&self, container: &str, request: &Request) -> Result<Answers> {
        let mut command = vec![TESTKIT.to_owned()];
        command.extend(request.arguments());
        let text = self.cri.exec(container, &command)?;
        serde_json::from_str(&text).with_context(|| format!("report {text:?}"))
    }

    /// Stops and removes a pod, each twice as kubelet may, and sees to it that repeating is no error.
    pub(crate) fn remove(&self, pod: &CriPod) -> Result<()> {
        for _ in 0..2 {
            self.cri.stop_pod(&pod.sandbox).with_context(|| format!("pod {}", pod.name))?;
        }
        for _ in 0..2 {
            self.cri.remove_pod(&pod.sandbox).with_context(|| format!("pod {}", pod.name))?;
        }
        Ok(())
    }

    /// Makes the Service `web`, at [`VIP`], with these endpoints, and waits until the node's agent knows.
    pub(crate) fn serve_web(&self, far: &Pod, near: &CriPod) -> Result<()> {
        let manifests = self.cluster.manifests();
        manifests.apply("web.yaml", SERVICE)?;
        manifests.endpoints("web", &[SlicePort::new("http", "TCP", PORT)], &[far])?;
        manifests.apply("near.yaml", &slice_of(near, self.node().name()))?;
        eventually(secs(20), || {
            let services = self.node().agent().services()?;
            let endpoints = services.first().map_or(0, |service| service.endpoints.len());
            ensure!(endpoints == 2, "{endpoints} endpoints: {services:?}");
            Ok(())
        })?;
        Ok(())
    }

    /// Makes requests to [`VIP`] from inside a container, and sees to it that both endpoints answer half of them.
    pub(crate) fn balanced(&self, container: &str) -> Result<Answers> {
        let answers = self.request_in(container, &Request::tcp(VIP).count(40).parallel(4))?.all_good()?;
        ensure!(answers.counts() == "far 20, near 20", "{}", answers.counts());
        Ok(answers)
    }

    /// That nothing of any pod is left on the node.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        self.nothing_left_but(0)
    }

    /// The same, but for pods in the host's network.
    pub(crate) fn nothing_left_but(&self, host_pods: usize) -> Result<()> {
        let node = self.node();
        let links = node.run("ip", &["-o", "link", "show", "type", "veth"])?;
        let veths: Vec<&str> = links.lines().filter(|line| !line.contains(" eth0@")).collect();
        ensure!(veths.is_empty(), "veths are left: {veths:?}");
        let shapers = node.run("ip", &["-o", "link", "show", "type", "ifb"])?;
        ensure!(shapers.is_empty(), "devices of bandwidth limits are left: {shapers}");
        // ip writes the route of a pod without a prefix length.
        let routes = node.run("ip", &["route"])?;
        let of_pod = |line: &&str| line.split(' ').next().is_some_and(|to| to.parse::<IpAddr>().is_ok());
        let routes: Vec<&str> = routes.lines().filter(of_pod).collect();
        ensure!(routes.is_empty(), "routes are left: {routes:?}");
        // The table of host ports goes with the last of them.
        let tables = node.run("nft", &["list", "tables"])?;
        ensure!(!tables.contains("weft-hostports"), "host ports are left: {tables}");
        let reserved = self.reserved()?;
        ensure!(reserved.is_empty(), "addresses are left: {reserved:?}");
        let namespaces = self.containerd.network_namespaces()?;
        ensure!(namespaces.is_empty(), "network namespaces are left: {namespaces:?}");
        let shims = self.containerd.shims()?;
        ensure!(shims.len() == host_pods, "shims are left: {shims:?}");
        Ok(())
    }

    /// Names of the files of reserved addresses, sorted.
    pub(crate) fn reserved(&self) -> Result<Vec<String>> {
        let store = self.node().directory().join("state/cni/networks/weft");
        let files = fs::read_dir(&store).with_context(|| format!("list {}", store.display()))?;
        let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.retain(|name| name.parse::<IpAddr>().is_ok());
        names.sort();
        Ok(names)
    }
}

/// A pod that containerd made.
#[derive(Clone, Debug)]
pub(crate) struct CriPod {
    pub(crate) name: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) address: String,
}

impl CriPod {
    /// A port at its address.
    pub(crate) fn socket(&self, port: u16) -> Result<SocketAddr> {
        let address = self.address.parse().with_context(|| format!("address {:?} of {}", self.address, self.name))?;
        Ok(SocketAddr::new(address, port))
    }

    /// A request that the sandbox's own process answers.
    pub(crate) fn probe(&self) -> Result<Request> {
        Ok(Request::tcp(self.socket(SANDBOX_PORT)?))
    }
}

/// An EndpointSlice of `web` with this pod, beside the one that the kit writes for its pods.
fn slice_of(pod: &CriPod, node: &str) -> String {
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
  nodeName: {node}
  conditions: {{ready: true}}
",
        pod.address
    )
}

/// Where runc makes the pods' cgroups: below the node's, so that the agent's socket programs apply.
fn cgroup_parent(node: &Node) -> Result<String> {
    // As a process in it would see it, whatever is mounted where.
    let text = node.run("cat", &["/proc/self/cgroup"])?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2 in /proc/self/cgroup")?;
    let (of_node, _) = own.trim().rsplit_once('/').with_context(|| format!("cgroup {own}"))?;
    Ok(format!("{of_node}/kubepods"))
}
