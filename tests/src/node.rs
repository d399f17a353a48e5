//! A node: a host on the underlay with its own bpffs, directories and agent.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::{Agent, Binaries, Place, Pod, Run, run::create_netns};

/// What [`Node::create`] needs.
pub(crate) struct NodeSpec<'a> {
    pub(crate) place: Place,
    /// Above the place's own: of the node's processes and its pods.
    pub(crate) cgroup: PathBuf,
    pub(crate) run: &'a Run,
    pub(crate) binaries: &'a Binaries,
    pub(crate) name: String,
    pub(crate) addresses: (Ipv4Addr, Ipv6Addr),
    pub(crate) source: &'a Path,
    pub(crate) leases: &'a Path,
    pub(crate) net_conf: &'a Path,
    pub(crate) agent_flags: &'a [(String, String)],
}

/// One node of a cluster. As a [`Place`] it is the node's host network.
#[derive(Debug)]
pub struct Node {
    name: String,
    place: Place,
    cgroup: PathBuf,
    addresses: (Ipv4Addr, Ipv6Addr),
    directory: PathBuf,
    netns_prefix: String,
    testkit: PathBuf,
    agent: Agent,
}

impl Node {
    pub(crate) fn create(spec: NodeSpec<'_>) -> Result<Self> {
        let directory = spec.run.directory().join(&spec.name);
        for part in ["bpf", "run", "state", "cni-conf", "cni-bin"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        symlink(&spec.binaries.cni, directory.join("cni-bin/weft-cni"))?;
        let bpffs = directory.join("bpf");
        mount(None::<&str>, &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount bpffs at {}", bpffs.display()))?;
        let agent = Agent::new(&spec, &directory);
        Ok(Self {
            netns_prefix: spec.run.netns(&spec.name),
            testkit: spec.binaries.testkit.clone(),
            name: spec.name,
            place: spec.place,
            cgroup: spec.cgroup,
            addresses: spec.addresses,
            directory,
            agent,
        })
    }

    /// `n1` and so on: the Node's name in Kubernetes too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of its cgroup, which holds that of its own processes and those of its pods: the agent's `--cgroup-root`.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Its IPv4 address on the underlay.
    pub fn v4(&self) -> Ipv4Addr {
        self.addresses.0
    }

    /// Its IPv6 address on the underlay.
    pub fn v6(&self) -> Ipv6Addr {
        self.addresses.1
    }

    /// A port at its IPv4 address, such as a NodePort.
    pub fn socket_v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4()), port)
    }

    /// A port at its IPv6 address.
    pub fn socket_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6()), port)
    }

    /// Directory of its files: `run`, `state`, `bpf`, `cni-conf`, `cni-bin`, `agent.log`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Makes a pod as a container runtime does: a namespace, then ADD of every plugin that the agent
    /// put into its conflist.
    ///
    /// # Errors
    /// The plugin fails; with its error.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.pod_with(name, Value::Null)
    }

    /// The same for a pod with wishes by capabilities of plugins (`runtimeConfig`), such as host ports.
    ///
    /// # Errors
    /// The plugin fails; with its error.
    pub fn pod_with(&self, name: &str, runtime_config: Value) -> Result<Pod> {
        let netns_name = format!("{}-{name}", self.netns_prefix);
        let netns = create_netns(&netns_name)?;
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).with_context(|| format!("create {}", cgroup.display()))?;
        let place = Place::new(name.to_owned(), netns, cgroup, self.testkit.clone());
        Pod::add(place, &self.place, &self.directory, netns_name, runtime_config)
    }

    /// A pod that no plugin made: a namespace behind a veth, with a routed /32. For paths on which the makers must not differ.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn bare_pod(&self, name: &str, address: Ipv4Addr, mtu: u32) -> Result<Place> {
        let netns_name = format!("{}-{name}", self.netns_prefix);
        let netns = create_netns(&netns_name)?;
        let cgroup = self.cgroup.join(name);
        fs::create_dir_all(&cgroup).with_context(|| format!("create {}", cgroup.display()))?;
        let host = format!(
            "ip link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {netns_name} && ip link set {name} up \
             && ip address add 169.254.1.1/32 dev {name} && ip route add {address}/32 dev {name}"
        );
        self.place.run("sh", &["-c", &host])?;
        let place = Place::new(name.to_owned(), netns, cgroup, self.testkit.clone());
        let pod = format!(
            "ip link set eth0 up && ip address add {address}/32 dev eth0 && ip route add 169.254.1.1 dev eth0 \
             && ip route add default via 169.254.1.1"
        );
        place.run("sh", &["-c", &pod])?;
        Ok(place)
    }
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
