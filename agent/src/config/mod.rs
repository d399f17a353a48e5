//! Configuration: flags and files, checked once into an immutable [`Config`]; all mistakes are reported together.

mod kube_proxy;
mod parts;

use std::{
    fmt, fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnetwork::IpNetwork;
use weft_overlay::{InterfaceChoice, NetConf, SubnetSource};

use crate::cli::{AgentArgs, PathArgs};
use kube_proxy::KubeProxyFile;
pub(crate) use parts::{Components, KubeAccess, NodePortAddresses, ProxyMode, SourceKind, SubnetManager};

/// Everything the agent was asked to do, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Lower-case name of this node.
    pub(crate) node_name: String,
    /// Parts that run.
    pub(crate) components: Components,
    /// Where objects come from.
    pub(crate) source: SourceKind,
    /// Services.
    pub(crate) proxy: ProxyConfig,
    /// Pod network; `None` when the component is off.
    pub(crate) overlay: Option<OverlayConfig>,
    /// Where files go.
    pub(crate) paths: PathArgs,
}

/// Configuration of Service balancing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProxyConfig {
    /// Data plane asked for.
    pub(crate) mode: ProxyMode,
    /// Where NodePorts are accepted.
    pub(crate) node_port_addresses: NodePortAddresses,
    /// cgroup2 directory of the socket programs; `None`: the mounted root.
    pub(crate) cgroup_root: Option<PathBuf>,
    /// BPF file system.
    pub(crate) bpffs: PathBuf,
}

/// Configuration of the pod network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OverlayConfig {
    /// flannel's network configuration.
    pub(crate) net_conf: NetConf,
    /// Who hands out subnets.
    pub(crate) subnet_manager: SubnetManager,
    /// `--iface`, `--public-ip`, `--public-ipv6`.
    pub(crate) interface: InterfaceChoice,
    /// Masquerade what leaves the pod network.
    pub(crate) ip_masq: bool,
}

/// One mistake in the configuration: where, which value, what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// `--flag`, or `file: field`.
    pub(crate) origin: String,
    /// The value as given; empty when it is missing.
    pub(crate) value: String,
    /// What is allowed instead.
    pub(crate) problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}", self.origin, self.problem)
        } else {
            write!(f, "{}: {:?}: {}", self.origin, self.value, self.problem)
        }
    }
}

/// Collects mistakes while values are read, so that one does not hide the next.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake.
    pub(crate) fn add(&mut self, origin: impl Into<String>, value: impl ToString, problem: impl Into<String>) {
        self.0.push(Mistake { origin: origin.into(), value: value.to_string(), problem: problem.into() });
    }

    /// The value, or its error noted.
    pub(crate) fn check<T, E: ToString>(&mut self, origin: &str, value: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(origin, value, error.to_string())).ok()
    }
}

impl Config {
    /// Checks flags and the files they name.
    ///
    /// # Errors
    /// All mistakes; nothing on the node was changed.
    pub(crate) fn load(args: &AgentArgs) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        let file = args.proxy.kube_proxy_config.as_deref().and_then(|path| KubeProxyFile::read(path, &mut mistakes));
        let file = file.unwrap_or_default();

        let components = mistakes.check("--components", &args.components, Components::parse(&args.components));
        let components = components.unwrap_or_default();
        let source = source(args, &file, &mut mistakes);
        let node_name = node_name(args, &file, &mut mistakes);
        let proxy = proxy(args, &file, &mut mistakes);
        let overlay = if components.overlay { overlay(args, &mut mistakes) } else { None };

        match (source, node_name, proxy, overlay) {
            (Some(source), Some(node_name), Some(proxy), overlay) if mistakes.0.is_empty() => {
                Ok(Self { node_name, components, source, proxy, overlay, paths: args.paths.clone() })
            }
            _ => Err(mistakes.0),
        }
    }
}

fn source(args: &AgentArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<SourceKind> {
    let access = KubeAccess {
        kubeconfig: args.kube.kubeconfig.clone().or_else(|| file.kubeconfig.clone()),
        master: args.kube.master.clone(),
    };
    let source = mistakes.check("--source", &args.source, SourceKind::parse(&args.source, access))?;
    match &source {
        SourceKind::Dir(path) => {
            if let Err(error) = fs::read_dir(path) {
                mistakes.add("--source", &args.source, format!("cannot list the directory: {error}"));
            }
        }
        SourceKind::Kube(access) => {
            if let Some(path) = &access.kubeconfig {
                readable("--kubeconfig", path, mistakes);
            }
        }
    }
    Some(source)
}

/// kube-proxy's rule (14.1), with flannel's `NODE_NAME` in between.
fn node_name(args: &AgentArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<String> {
    if let Some(name) = &args.hostname_override {
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            mistakes.add("--hostname-override", "", "must not be empty");
            return None;
        }
        return Some(name);
    }
    let from_file = file.hostname_override.clone().filter(|name| !name.is_empty());
    let from_environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let from_host = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = from_file.or_else(from_environment).or_else(from_host).unwrap_or_default();
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        mistakes.add("--hostname-override", "", "the host has no name; give the node's name here");
        return None;
    }
    Some(name)
}

fn proxy(args: &AgentArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<ProxyConfig> {
    let (origin, mode) = match &args.proxy.proxy_mode {
        Some(mode) => ("--proxy-mode".to_owned(), mode.clone()),
        None => (file.origin("mode"), file.mode.clone()),
    };
    let mode = mistakes.check(&origin, &mode, ProxyMode::parse(&mode));
    let (origin, cidrs) = match &args.proxy.nodeport_addresses {
        Some(list) => ("--nodeport-addresses".to_owned(), comma_list(list)),
        None => (file.origin("nodePortAddresses"), file.node_port_addresses.clone()),
    };
    let node_port_addresses = mistakes.check(&origin, &cidrs.join(","), NodePortAddresses::parse(&cidrs));
    if let Some(path) = &args.proxy.cgroup_root
        && !path.join("cgroup.procs").exists()
    {
        mistakes.add("--cgroup-root", path.display(), "is not a cgroup2 directory (it has no cgroup.procs)");
    }
    Some(ProxyConfig {
        mode: mode?,
        node_port_addresses: node_port_addresses?,
        cgroup_root: args.proxy.cgroup_root.clone(),
        bpffs: args.proxy.bpffs.clone(),
    })
}

fn overlay(args: &AgentArgs, mistakes: &mut Mistakes) -> Option<OverlayConfig> {
    let flags = &args.overlay;
    let manager =
        mistakes.check("--subnet-manager", &flags.subnet_manager, SubnetManager::parse(&flags.subnet_manager));
    let interface = InterfaceChoice {
        interfaces: flags.iface.clone(),
        public_ip: address::<Ipv4Addr>("--public-ip", flags.public_ip.as_deref(), "an IPv4 address", mistakes),
        public_ipv6: address::<Ipv6Addr>("--public-ipv6", flags.public_ipv6.as_deref(), "an IPv6 address", mistakes),
    };
    let net_conf = net_conf(&flags.net_conf, mistakes);
    Some(OverlayConfig { net_conf: net_conf?, subnet_manager: manager?, interface, ip_masq: flags.ip_masq })
}

fn net_conf(path: &Path, mistakes: &mut Mistakes) -> Option<NetConf> {
    let text = readable("--net-conf", path, mistakes)?;
    match NetConf::parse(&text, SubnetSource::Allocated) {
        Ok(net_conf) => Some(net_conf),
        Err(errors) => {
            for error in errors {
                mistakes.add(path.display().to_string(), "", error.to_string());
            }
            None
        }
    }
}

fn readable(origin: &str, path: &Path, mistakes: &mut Mistakes) -> Option<String> {
    fs::read_to_string(path)
        .map_err(|error| mistakes.add(origin, path.display(), format!("cannot be read: {error}")))
        .ok()
}

fn address<A: FromStr>(flag: &str, value: Option<&str>, expected: &str, mistakes: &mut Mistakes) -> Option<A> {
    let value = value?;
    let parsed = value.parse().map_err(|_| format!("must be {expected}"));
    mistakes.check(flag, value, parsed)
}

fn comma_list(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// A CIDR with kube-proxy's message for what is none.
fn cidr(text: &str) -> Result<IpNetwork, String> {
    let network: Result<IpNetwork, _> = text.parse();
    match network {
        Ok(network) if text.contains('/') => Ok(network),
        _ => Err(format!("{text:?} is not a CIDR such as 10.0.0.0/8 or fd00::/64")),
    }
}

#[cfg(test)]
mod tests;
