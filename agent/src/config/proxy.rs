//! Configuration of Service balancing.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use weft_proxy::{
    conntrack::ConntrackParameters,
    ebpf::MapSizes,
    model::{IpFamily, NodeIps},
    plan::PacketSettings,
};

use super::{Mistakes, comma_list, conntrack, kube_proxy::KubeProxyFile, packets};
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
    /// `detectLocalMode: NodeCIDR`: the Node's pod CIDRs take the place of `packets.local_traffic`.
    pub(crate) local_traffic_of_node: bool,
    /// Kernel parameters of conntrack.
    pub(crate) conntrack: ConntrackParameters,
    /// Whether the rules of a kube-proxy on this node are removed.
    pub(crate) take_over_kube_proxy: bool,
    /// Whether ebpf mode serves ClusterIPs to packets too.
    pub(crate) second_line: bool,
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

/// Addresses of the node at which NodePorts are accepted (kube-proxy.md 6.1, 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodePortAddresses {
    /// Those in a CIDR; a family without one has all.
    Cidrs(Vec<IpNetwork>),
    /// The Node's own, the first of each family; a family without one has all.
    Primary,
}

impl Default for NodePortAddresses {
    /// All.
    fn default() -> Self {
        Self::Cidrs(Vec::new())
    }
}

impl NodePortAddresses {
    /// Reads a list of CIDRs, or `primary`; empty = every address of the node.
    pub(crate) fn parse(list: &[String]) -> Result<Self, String> {
        match list {
            [only] if only == "primary" => Ok(Self::Primary),
            _ if list.iter().any(|item| item == "primary") => Err("can't use both 'primary' and CIDRs".to_owned()),
            _ => list.iter().map(|text| cidr(text)).collect::<Result<_, _>>().map(Self::Cidrs),
        }
    }

    /// Whether it depends on the Node object.
    pub(crate) fn follows_node(&self) -> bool {
        *self == Self::Primary
    }

    /// Those of the node's addresses that are meant. `own`: the Node's addresses.
    pub(crate) fn select(&self, node: &BTreeSet<IpAddr>, own: NodeIps) -> BTreeSet<IpAddr> {
        let [v4, v6] = [IpFamily::V4, IpFamily::V6].map(|family| self.of(family, own));
        let allowed = |address: &IpAddr| {
            let cidrs = if address.is_ipv4() { &v4 } else { &v6 };
            cidrs.as_ref().is_none_or(|cidrs| cidrs.iter().any(|cidr| cidr.contains(*address)))
        };
        node.iter().copied().filter(allowed).collect()
    }

    /// The CIDRs of a family; `None`: all addresses, for there is none, or one that holds all.
    pub(crate) fn of(&self, family: IpFamily, own: NodeIps) -> Option<Vec<IpNetwork>> {
        let cidrs: Vec<IpNetwork> = match self {
            Self::Cidrs(cidrs) => {
                cidrs.iter().copied().filter(|cidr| cidr.is_ipv4() == (family == IpFamily::V4)).collect()
            }
            Self::Primary => own.of(family).map(IpNetwork::from).into_iter().collect(),
        };
        (!cidrs.is_empty() && cidrs.iter().all(|cidr| cidr.prefix() > 0)).then_some(cidrs)
    }

    /// Whether 127.0.0.1 is meant, as far as that can be known at start (6.6).
    fn holds_localhost(&self) -> bool {
        match self {
            Self::Cidrs(_) => {
                let cidrs = self.of(IpFamily::V4, NodeIps::default());
                cidrs.is_none_or(|cidrs| cidrs.iter().any(|cidr| cidr.ip().is_loopback()))
            }
            Self::Primary => false,
        }
    }
}

/// The flags' values over the defaults, each checked.
fn map_sizes(flags: &MapSizeArgs, mistakes: &mut Mistakes) -> MapSizes {
    let mut sizes = MapSizes::default();
    let fields = [
        ("frontends", &flags.ebpf_max_frontends, &mut sizes.frontends),
        ("backends", &flags.ebpf_max_backends, &mut sizes.backends),
        ("sets", &flags.ebpf_max_sets, &mut sizes.sets),
        ("endpoints", &flags.ebpf_max_endpoints, &mut sizes.endpoints),
        ("affinity", &flags.ebpf_max_affinity, &mut sizes.affinity),
        ("udp-flows", &flags.ebpf_max_udp_flows, &mut sizes.udp_flows),
    ];
    for (name, given, size) in fields {
        let Some(text) = given else { continue };
        let given = mistakes.whole(&format!("--ebpf-max-{name}"), text, MapSizes::MIN..=MapSizes::MAX);
        *size = given.unwrap_or(*size);
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
    let conntrack = conntrack::read(&args.conntrack, file, mistakes);
    let map_sizes = map_sizes(&args.map_sizes, mistakes);
    let node_port_addresses = node_port_addresses?;
    let localhost = node_port_addresses.holds_localhost();
    Some(ProxyConfig {
        mode: mode?,
        packets: packets.map(|packets| PacketSettings {
            localhost_node_ports: packets.localhost_node_ports && localhost,
            ..packets
        })?,
        local_traffic_of_node: packets::follows_node(&args.proxy, file),
        conntrack,
        take_over_kube_proxy: args.proxy.take_over_kube_proxy,
        second_line: args.proxy.ebpf_second_line,
        map_sizes,
        node_port_addresses,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<NodePortAddresses, String> {
        NodePortAddresses::parse(&list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
    }

    fn selected(list: &[&str], own: NodeIps) -> String {
        let node = ["127.0.0.1", "172.30.0.1", "192.0.2.7", "::1", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
        let selected = parse(list).unwrap().select(&node, own);
        selected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_6_1_and_6_2_addresses_in_a_cidr_of_their_family() {
        for (list, expected) in [
            (&[][..], "127.0.0.1 172.30.0.1 192.0.2.7 ::1 fd00::1"),
            (&["192.0.2.0/24"], "192.0.2.7 ::1 fd00::1"),
            (&["192.0.2.0/24", "fd00::/16"], "192.0.2.7 fd00::1"),
            (&["192.0.2.0/24", "0.0.0.0/0", "fd00::/16"], "127.0.0.1 172.30.0.1 192.0.2.7 fd00::1"),
            (&["198.51.100.0/24", "fd01::/16"], ""),
            (&["127.0.0.0/8", "::1/128"], "127.0.0.1 ::1"),
        ] {
            assert_eq!(selected(list, NodeIps::default()), expected, "{list:?}");
        }
    }

    #[test]
    fn rule_6_4_unset_means_all_addresses_in_every_mode() {
        assert_eq!(parse(&[]), Ok(NodePortAddresses::default()));
        let own = NodeIps { ipv4: Some([192, 0, 2, 7].into()), ..NodeIps::default() };
        assert_eq!(selected(&[], own), "127.0.0.1 172.30.0.1 192.0.2.7 ::1 fd00::1");
    }

    #[test]
    fn rule_6_3_primary_is_the_nodes_own_address_of_each_family() {
        let v4 = NodeIps { ipv4: Some([192, 0, 2, 7].into()), ..NodeIps::default() };
        assert_eq!(selected(&["primary"], v4), "192.0.2.7 ::1 fd00::1", "a family without one has all");
        let both = NodeIps { ipv6: Some("fd00::1".parse().unwrap()), ..v4 };
        assert_eq!(selected(&["primary"], both), "192.0.2.7 fd00::1");
        let elsewhere = NodeIps { ipv4: Some([198, 51, 100, 1].into()), ..both };
        assert_eq!(selected(&["primary"], elsewhere), "fd00::1", "only what an interface has now");
        assert!(parse(&["primary", "192.0.2.0/24"]).unwrap_err().contains("can't use both 'primary' and CIDRs"));
    }

    #[test]
    fn rule_6_6_localhost_is_served_unless_the_addresses_leave_it_out() {
        for (list, holds) in [
            (&[][..], true),
            (&["fd00::/16"], true),
            (&["192.0.2.0/24"], false),
            (&["192.0.2.0/24", "127.0.0.0/8"], true),
            (&["0.0.0.0/0", "192.0.2.0/24"], true),
            (&["primary"], false),
        ] {
            assert_eq!(parse(list).unwrap().holds_localhost(), holds, "{list:?}");
        }
    }
}
