//! Two nodes, containerd on the first, its network made by the agent alone.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, Result, ensure};
use weft_tests::{Answers, Cluster, Node, Request, eventually, secs};

use crate::{
    cri::{Cri, PodSpec, Sandbox, container},
    daemon::Containerd,
    image::{self, POD_IMAGE, SANDBOX_PORT, TESTKIT},
};

/// Port of the containers' server.
pub(crate) const PORT: u16 = 8080;

/// What a test gets.
pub(crate) struct Fixture {
    pub(crate) containerd: Containerd,
    pub(crate) cri: Cri,
    pub(crate) cluster: Cluster,
}

/// Runs a test with it; its failure comes with the ends of containerd's and the agent's log.
pub(crate) fn with_containerd(test: impl FnOnce(&mut Fixture) -> Result<()>) -> Result<()> {
    let mut fixture = Fixture::start()?;
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
        fixture.set_up().with_context(|| fixture.containerd.failure_context())?;
        Ok(fixture)
    }

    fn set_up(&self) -> Result<()> {
        ensure!(self.cri.network_ready().is_err(), "the network is ready before the agent ran");
        self.cluster.start_agents()?;
        self.containerd.import(&image::write(&self.containerd.images())?)?;
        // containerd tells CRI of the image, and sees the agent's conflist, a moment later.
        eventually(secs(30), || self.cri.has_image(POD_IMAGE))?;
        eventually(secs(30), || self.cri.network_ready())?;
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

    /// That nothing of any pod is left on the node.
    pub(crate) fn nothing_left(&self) -> Result<()> {
        let node = self.node();
        let links = node.run("ip", &["-o", "link", "show", "type", "veth"])?;
        let veths: Vec<&str> = links.lines().filter(|line| !line.contains(" eth0@")).collect();
        ensure!(veths.is_empty(), "veths are left: {veths:?}");
        // ip writes the route of a pod without a prefix length.
        let routes = node.run("ip", &["route"])?;
        let of_pod = |line: &&str| line.split(' ').next().is_some_and(|to| to.parse::<IpAddr>().is_ok());
        let routes: Vec<&str> = routes.lines().filter(of_pod).collect();
        ensure!(routes.is_empty(), "routes are left: {routes:?}");
        let reserved = self.reserved()?;
        ensure!(reserved.is_empty(), "addresses are left: {reserved:?}");
        let namespaces = self.containerd.network_namespaces()?;
        ensure!(namespaces.is_empty(), "network namespaces are left: {namespaces:?}");
        let shims = self.containerd.shims()?;
        ensure!(shims.is_empty(), "shims are left: {shims:?}");
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

/// Where runc makes the pods' cgroups: below the node's, so that the agent's socket programs apply.
fn cgroup_parent(node: &Node) -> Result<String> {
    // As a process in it would see it, whatever is mounted where.
    let text = node.run("cat", &["/proc/self/cgroup"])?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2 in /proc/self/cgroup")?;
    let (of_node, _) = own.trim().rsplit_once('/').with_context(|| format!("cgroup {own}"))?;
    Ok(format!("{of_node}/kubepods"))
}
