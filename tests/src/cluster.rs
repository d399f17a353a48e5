//! Builds a cluster: nodes on an underlay, an outside host, agents.

use std::{
    fs::{self, File, TryLockError},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    Binaries, Manifests, Node, Place, Run,
    api_server::{self, ApiServer},
    eventually,
    node::NodeSpec,
    secs,
    underlay::{OUTSIDE_V4, OUTSIDE_V6, host, host_addresses, node_addresses, wire},
};

/// Clusters of all processes share this lock, except one that needs the machine for itself.
const ALONE_LOCK: &str = "/run/weft-tests.lock";

/// Which API server.
#[derive(Clone, Debug)]
enum Kind {
    Small,
    /// With the programs in this directory.
    Real(PathBuf),
}

/// What to build; see [`Cluster::builder`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    nodes: usize,
    dual_stack: bool,
    agents: bool,
    alone: bool,
    api_server: Option<Kind>,
    kube_leases: bool,
    agent_flags: Vec<(String, String)>,
    hosts: Vec<String>,
}

impl ClusterBuilder {
    /// Number of nodes, `n1` to `nN`, at most 99; 1 unless told.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Pods get an IPv6 address too.
    pub fn dual_stack(mut self) -> Self {
        self.dual_stack = true;
        self
    }

    /// Agents are prepared but not started.
    pub fn without_agents(mut self) -> Self {
        self.agents = false;
        self
    }

    /// Waits until no other cluster runs on this machine, and keeps others waiting: for rates.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Agents get their objects from an API server on the outside host, instead of the directory: a real one if
    /// `KUBEBUILDER_ASSETS` names a directory with its programs, else the small one of `tests/api-server`.
    pub fn api_server(mut self) -> Self {
        self.api_server = Some(api_server::assets().map_or(Kind::Small, Kind::Real));
        self
    }

    /// The small one in any case: for trouble on demand, empty backups, versions of another time, many objects.
    pub fn small_api_server(mut self) -> Self {
        self.api_server = Some(Kind::Small);
        self
    }

    /// A real one, with `etcd`, `kube-apiserver` and `kubectl` of this directory.
    pub fn real_api_server(mut self, assets: &Path) -> Self {
        self.api_server = Some(Kind::Real(assets.to_owned()));
        self
    }

    /// Leases too come from the API server ([`Self::api_server`] unless told otherwise), which has a Node with pod CIDRs for
    /// each node (`--subnet-manager kube`).
    pub fn kube_leases(mut self) -> Self {
        self.kube_leases = true;
        let builder = self.agent_flag("--subnet-manager", "kube");
        if builder.api_server.is_some() { builder } else { builder.api_server() }
    }

    /// Another host outside, beside [`Cluster::outside`]; see [`Cluster::host`].
    pub fn host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_owned());
        self
    }

    /// Sets a flag of every agent, instead of the kit's value: `("--proxy-mode", "nftables")`.
    pub fn agent_flag(mut self, name: &str, value: &str) -> Self {
        self.agent_flags.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Builds it, and waits until every agent is ready and knows every other.
    ///
    /// # Errors
    /// Not root, a program is missing, an agent does not get ready (with its log).
    pub fn build(mut self) -> Result<Cluster> {
        let binaries = Binaries::locate()?;
        let lock = lock(self.alone)?;
        let run = Run::start(&binaries)?;
        wire(&run)?;
        let outside = host(&run, &binaries, "outside", OUTSIDE_V4, OUTSIDE_V6)?;
        let api_server = if let Some(kind) = &self.api_server {
            let assets = match kind {
                Kind::Small => None,
                Kind::Real(assets) => Some(assets.as_path()),
            };
            let own = run.directory().join("api-server");
            let server = ApiServer::start(&outside, OUTSIDE_V4, &binaries, assets, &own)?;
            let kubeconfig = run.directory().join("kubeconfig");
            fs::write(&kubeconfig, server.kubeconfig().to_string())?;
            // First, so that a test's own flags win.
            let flags = [("--source", "kube".to_owned()), ("--kubeconfig", kubeconfig.display().to_string())];
            self.agent_flags.splice(0..0, flags.map(|(name, value)| (name.to_owned(), value)));
            Some(server)
        } else {
            None
        };
        let source = Manifests::create(run.directory().join("source"), api_server)?;
        let net_conf = write_net_conf(&run.directory(), self.dual_stack)?;
        let leases = run.directory().join("leases");
        fs::create_dir_all(&leases)?;
        let mut nodes = Vec::with_capacity(self.nodes);
        for number in 1..=self.nodes {
            let (v4, v6) = node_addresses(number)?;
            let name = format!("n{number}");
            nodes.push(Node::create(NodeSpec {
                place: host(&run, &binaries, &name, v4, v6)?,
                cgroup: run.cgroup(&name)?,
                run: &run,
                binaries: &binaries,
                name,
                addresses: (v4, v6),
                source: source.directory(),
                leases: &leases,
                net_conf: &net_conf,
                agent_flags: &self.agent_flags,
            })?);
        }
        if self.kube_leases {
            for number in 1..=self.nodes {
                source.apply(&format!("n{number}.yaml"), &node_yaml(number, self.dual_stack))?;
            }
        }
        let hosts = (1..).zip(&self.hosts).map(|(number, name)| {
            let (v4, v6) = host_addresses(number);
            host(&run, &binaries, name, v4, v6)
        });
        let hosts = hosts.collect::<Result<_>>()?;
        let cluster = Cluster { nodes, outside, hosts, source, run, _lock: lock };
        if self.agents {
            cluster.start_agents()?;
        }
        Ok(cluster)
    }
}

/// Nodes on an underlay, and a host outside the cluster. Dropping it removes everything.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    outside: Place,
    hosts: Vec<Place>,
    source: Manifests,
    run: Run,
    _lock: File,
}

impl Cluster {
    /// One node with agent, IPv4 pods.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            nodes: 1,
            dual_stack: false,
            agents: true,
            alone: false,
            api_server: None,
            kube_leases: false,
            agent_flags: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Node `number`, counted from 1.
    ///
    /// # Panics
    /// There is no such node.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A host on the underlay that knows nothing of pods and Services.
    pub fn outside(&self) -> &Place {
        &self.outside
    }

    /// The host that [`ClusterBuilder::host`] asked for, and its addresses on the underlay.
    ///
    /// # Panics
    /// Nobody asked for it.
    pub fn host(&self, name: &str) -> (&Place, (Ipv4Addr, Ipv6Addr)) {
        let (number, place) =
            (1..).zip(&self.hosts).find(|(_, place)| place.label() == name).expect("a host that was asked for");
        (place, host_addresses(number))
    }

    /// The Kubernetes objects.
    pub fn manifests(&self) -> &Manifests {
        &self.source
    }

    /// The same, to kill and restart the API server.
    pub fn manifests_mut(&mut self) -> &mut Manifests {
        &mut self.source
    }

    /// Name and directory.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Starts the agents, and waits until each is ready and sees all the others.
    ///
    /// # Errors
    /// One does not get ready; with its last state and the end of its log.
    pub fn start_agents(&self) -> Result<()> {
        for node in &self.nodes {
            node.agent().start()?;
        }
        for node in &self.nodes {
            let peers = self.nodes.len() - 1;
            eventually(secs(20), || node.agent().ready_with_peers(peers))
                .with_context(|| node.agent().failure_context())?;
        }
        Ok(())
    }

    /// Leaves the cluster up, also after this process.
    ///
    /// # Errors
    /// The marker for that cannot be written.
    pub fn keep(self) -> Result<()> {
        self.run.keep()
    }

    /// Removes everything, as dropping does, but tells what went wrong.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn shutdown(self) -> Result<()> {
        self.run.end()
    }
}

/// Waits for the lock; it is given back when the file is closed, however the process ends.
fn lock(alone: bool) -> Result<File> {
    let file = File::create(ALONE_LOCK).with_context(|| format!("open {ALONE_LOCK}"))?;
    let attempt = || {
        let result = if alone { file.try_lock() } else { file.try_lock_shared() };
        match result {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => bail!("other clusters are running"),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    };
    eventually(secs(600), attempt).with_context(|| format!("lock {ALONE_LOCK}"))?;
    Ok(file)
}

/// A Node with pod CIDRs, as the controller manager gives them, of the networks in `net-conf.json`.
fn node_yaml(number: usize, dual_stack: bool) -> String {
    let v4 = format!("10.244.{number}.0/24");
    let v6 = if dual_stack { format!(", \"2001:db8:42:{number:x}::/64\"") } else { String::new() };
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\nspec: {{podCIDR: {v4}, podCIDRs: [{v4}{v6}]}}\n"
    )
}

fn write_net_conf(directory: &Path, dual_stack: bool) -> Result<PathBuf> {
    let mut conf = serde_json::json!({
        "Network": "10.244.0.0/16",
        "SubnetLen": 24,
        "Backend": { "Type": "vxlan" },
    });
    if dual_stack {
        conf["EnableIPv6"] = true.into();
        conf["IPv6Network"] = "2001:db8:42::/56".into();
        conf["IPv6SubnetLen"] = 64.into();
    }
    let path = directory.join("net-conf.json");
    fs::write(&path, conf.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// First address of the wanted family.
pub(crate) fn pick(addresses: &[IpAddr], v6: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv6() == v6)
}
