//! Configuration of Service balancing.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use weft_proxy::{ebpf::MapSizes, plan::PacketSettings};

use super::{Mistakes, comma_list, kube_proxy::KubeProxyFile, packets};
use crate::cli::{AgentArgs, MapSizeArgs};

/// Configuration of Service balancing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProxyConfig {
    /// Data plane asked for.
    pub(crate) mode: ProxyMode,
    /// Where NodePorts are accepted.
    pub(crate) node_port_addresses: NodePortAddresses,
    /// Who counts as local traffic, and the masquerade mark.
    pub(crate) packets: PacketSettings,
    /// Room in the socket programs' maps.
    pub(crate) map_sizes: MapSizes,
    /// cgroup2 directory of the socket programs; `None`: the mounted root.
    pub(crate) cgroup_root: Option<PathBuf>,
    /// BPF file system.
    pub(crate) bpffs: PathBuf,
}

/// Data plane asked for (`--proxy-mode`, `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyMode {
    /// The first of the following that the node can have.
    Best,
    /// Socket programs, with nftables for packets from outside.
    Ebpf,
    /// nftables alone.
    Nftables,
    /// iptables alone, with kube-proxy's chains.
    Iptables,
}

impl ProxyMode {
    /// Reads a mode; empty is the best the node can do.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self::Best),
            "ebpf" => Ok(Self::Ebpf),
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            "ipvs" => Err("Weft has no ipvs mode; use ebpf, which balances in round robin too".to_owned()),
            _ => Err("must be ebpf, nftables, iptables or blank".to_owned()),
        }
    }
}

/// Addresses of the node at which NodePorts are accepted (kube-proxy.md 6.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodePortAddresses(Vec<IpNetwork>);

impl NodePortAddresses {
    /// Reads a list of CIDRs; empty = every address of the node.
    pub(crate) fn parse(list: &[String]) -> Result<Self, String> {
        if list.iter().any(|item| item == "primary") {
            return Err("\"primary\" is not built yet; give CIDRs, or leave it empty for all addresses".to_owned());
        }
        list.iter().map(|text| cidr(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Those of the node's addresses that NodePorts are accepted at; a family without a CIDR has all of them.
    pub(crate) fn select(&self, node: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let allowed = |address: &IpAddr| {
            let mut of_family = self.0.iter().filter(|cidr| cidr.is_ipv4() == address.is_ipv4()).peekable();
            of_family.peek().is_none() || of_family.any(|cidr| cidr.contains(*address))
        };
        node.iter().copied().filter(allowed).collect()
    }
}

/// The flags' values over the defaults, each checked.
fn map_sizes(flags: &MapSizeArgs, mistakes: &mut Mistakes) -> MapSizes {
    let mut sizes = MapSizes::default();
    let fields = [
        ("frontends", flags.ebpf_max_frontends, &mut sizes.frontends),
        ("backends", flags.ebpf_max_backends, &mut sizes.backends),
        ("sets", flags.ebpf_max_sets, &mut sizes.sets),
        ("endpoints", flags.ebpf_max_endpoints, &mut sizes.endpoints),
        ("affinity", flags.ebpf_max_affinity, &mut sizes.affinity),
        ("udp-flows", flags.ebpf_max_udp_flows, &mut sizes.udp_flows),
    ];
    for (name, given, size) in fields {
        match given {
            Some(given) if (MapSizes::MIN..=MapSizes::MAX).contains(&given) => *size = given,
            Some(given) => {
                let allowed = format!("must be {} to {}", MapSizes::MIN, MapSizes::MAX);
                mistakes.add(format!("--ebpf-max-{name}"), given, allowed);
            }
            None => {}
        }
    }
    sizes
}

/// Reads the flags and the file; a flag wins.
pub(super) fn read(args: &AgentArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<ProxyConfig> {
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
    let packets = packets::read(&args.proxy, file, mistakes);
    Some(ProxyConfig {
        mode: mode?,
        packets: packets?,
        map_sizes: map_sizes(&args.map_sizes, mistakes),
        node_port_addresses: node_port_addresses?,
        cgroup_root: args.proxy.cgroup_root.clone(),
        bpffs: args.proxy.bpffs.clone(),
    })
}

/// A CIDR with kube-proxy's message for what is none.
pub(super) fn cidr(text: &str) -> Result<IpNetwork, String> {
    let network: Result<IpNetwork, _> = text.parse();
    match network {
        Ok(network) if text.contains('/') => Ok(network),
        _ => Err(format!("{text:?} is not a CIDR such as 10.0.0.0/8 or fd00::/64")),
    }
}
