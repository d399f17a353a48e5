//! The two nodes, their pods and servers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Child, Stdio},
};

use anyhow::{Context, Result, bail};
use weft_tests::{Cluster, Node, OUTSIDE_V4, Place, Server, secs};

use super::{
    ENDPOINTS, Mode,
    objects::{IPERF_PORT, NODE_PORT, SERVER_PORT},
};

/// Of plain veth devices, so that no path has larger packets than another.
pub(crate) const MTU: u32 = 1450;
/// Pods of the node without Weft.
const REFERENCE_PODS: [u8; 3] = [10, 245, 1];

/// Everything that stays while data planes come and go.
pub(super) struct Site {
    /// On the node with Weft.
    /// Clients of their own for the pod, the first and the last Service: the kernel has to change the source port where the same one
    /// is used for two ways to one server, and now and then it cannot.
    pub(super) clients: [Place; 3],
    /// For what may come before the rules do: conntrack would remember its untranslated attempts, port by port, for two minutes.
    pub(super) prober: Place,
    _servers: [Server; 2],
    endpoints: [Vec<Ipv4Addr>; 2],
    /// On the node without.
    pub(super) reference_client: Place,
    pub(super) reference_server: SocketAddr,
    pub(super) outside: Place,
    /// The last Service from outside.
    pub(super) node_port: SocketAddr,
    _reference: (Server, [Process; 2]),
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    pub(super) fn build(cluster: &Cluster, mode: Mode) -> Result<Self> {
        let (node, reference) = (cluster.node(1), cluster.node(2));
        let [a, b, c] = subnet(node)?;
        let at = |last: usize| Ipv4Addr::new(a, b, c, u8::try_from(last).unwrap_or(u8::MAX));
        let client = |number: u8| node.bare_pod(&format!("client-{number}"), at(10 + usize::from(number)), MTU);
        let clients = [client(0)?, client(1)?, client(2)?];
        let endpoints = [0, 1].map(|server| (0..ENDPOINTS).map(|n| at(20 + 20 * server + n)).collect::<Vec<_>>());
        let mut servers = Vec::new();
        let mut iperf = None;
        for (name, addresses) in ["web-0", "web-1"].into_iter().zip(&endpoints) {
            let pod = server_pod(node, name, addresses)?;
            servers.push(pod.serve_as(name, SERVER_PORT)?);
            iperf = iperf.map_or_else(|| serve_iperf(&pod).map(Some), |running| Ok(Some(running)))?;
        }
        let [a, b, c] = REFERENCE_PODS;
        let reference_client = reference.bare_pod("client", Ipv4Addr::new(a, b, c, 10), MTU)?;
        let reference_address = Ipv4Addr::new(a, b, c, 20);
        let reference_pod = reference.bare_pod("web", reference_address, MTU)?;
        let outside = cluster.outside();
        for (network, via) in [(endpoints[0][0], node.v4()), (reference_address, reference.v4())] {
            let [a, b, c, _] = network.octets();
            outside.run("ip", &["route", "add", &format!("{a}.{b}.{c}.0/24"), "via", &via.to_string()])?;
        }
        for router in [node, reference] {
            router.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
        }
        if mode == Mode::Iptables {
            // What kubelet leaves on a node whose iptables is the legacy one; tells the agent to use that.
            node.run("iptables-legacy", &["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"])?;
        }
        let iperf = [iperf.context("two servers")?, serve_iperf(&reference_pod)?];
        Ok(Self {
            clients,
            prober: client(3)?,
            _servers: servers.try_into().ok().context("two servers")?,
            endpoints,
            reference_client,
            reference_server: SocketAddr::from((reference_address, SERVER_PORT)),
            outside: outside.clone(),
            node_port: node.socket_v4(NODE_PORT),
            _reference: (reference_pod.serve_as("web", SERVER_PORT)?, iperf),
        })
    }

    /// Addresses of the servers.
    pub(super) fn endpoints(&self) -> [Vec<Ipv4Addr>; 2] {
        self.endpoints.clone()
    }

    /// The pod addressed directly.
    pub(super) fn direct(&self) -> SocketAddr {
        SocketAddr::from((self.endpoints[0][0], SERVER_PORT))
    }

    /// Starts the agent.
    pub(super) fn start(&self, cluster: &Cluster, mode: Mode) -> Result<u32> {
        let agent = cluster.node(1).agent();
        agent.start_with(&[
            ("--proxy-mode", mode.name()),
            ("--components", "overlay,proxy"),
            ("--cluster-cidr", "10.244.0.0/16"),
        ])?;
        agent.id()
    }

    /// Stops the agent and removes everything it made.
    pub(super) fn clean_up(&self, cluster: &Cluster) -> Result<()> {
        let agent = cluster.node(1).agent();
        agent.stop()?;
        let output = agent.command("cleanup").args(agent.arguments()).output().context("weft cleanup")?;
        if !output.status.success() {
            bail!("weft cleanup: {}", String::from_utf8_lossy(&output.stderr));
        }
        // The pods are none that `weft-cni` made, and are needed again.
        cluster.node(1).run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]).map(drop)
    }
}

/// One pod that has all of these addresses.
pub(crate) fn server_pod(node: &Node, name: &str, addresses: &[Ipv4Addr]) -> Result<Place> {
    let pod = node.bare_pod(name, addresses[0], MTU)?;
    for address in &addresses[1..] {
        pod.run("ip", &["address", "add", &format!("{address}/32"), "dev", "eth0"])?;
        node.run("ip", &["route", "add", &format!("{address}/32"), "dev", name])?;
    }
    Ok(pod)
}

/// Runs an agent once to see which subnet the node gets; it keeps it.
fn subnet(node: &Node) -> Result<[u8; 3]> {
    let agent = node.agent();
    agent.start_with(&[("--components", "overlay")])?;
    agent.wait_ready(secs(20))?;
    let status = agent.status()?;
    agent.stop()?;
    let subnet = status.overlay.context("no pod network")?.subnet;
    let address: IpAddr = subnet.split('/').next().unwrap_or_default().parse().context("subnet")?;
    match address {
        IpAddr::V4(v4) => Ok([v4.octets()[0], v4.octets()[1], v4.octets()[2]]),
        IpAddr::V6(_) => bail!("{subnet} is no IPv4 network; the outside host is {OUTSIDE_V4}"),
    }
}

fn serve_iperf(pod: &Place) -> Result<Process> {
    let mut command = pod.command("iperf3");
    command.args(["--server", "--port", &IPERF_PORT.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Process).context("start iperf3")
}
