//! Configuration of the pod network.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    str::FromStr,
};

use weft_overlay::{ConntrackBypass, InterfaceChoice, NetConf, SubnetSource};

use super::{KubeAccess, Mistakes, leases, leases::SubnetManager, readable};
use crate::cli::AgentArgs;

/// Where the manifests of flannel put it.
const NET_CONF: &str = "/etc/kube-flannel/net-conf.json";

/// Configuration of the pod network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OverlayConfig {
    /// flannel's network configuration; `None`: etcd has it.
    pub(crate) net_conf: Option<NetConf>,
    /// Who hands out subnets.
    pub(crate) subnet_manager: SubnetManager,
    /// `--iface` and the like, `--public-ip`, `--public-ipv6`.
    pub(crate) interface: InterfaceChoice,
    /// Masquerade what leaves the pod network.
    pub(crate) ip_masq: bool,
    /// Let pods' packets be forwarded.
    pub(crate) forward_rules: bool,
    /// Keep pods' packets out of conntrack.
    pub(crate) conntrack_bypass: ConntrackBypass,
}

/// Reads the flags and `net-conf.json`.
pub(super) fn read(args: &AgentArgs, access: KubeAccess, mistakes: &mut Mistakes) -> Option<OverlayConfig> {
    let flags = &args.overlay;
    let manager = leases::read(args, access, mistakes);
    let interface = InterfaceChoice {
        interfaces: flags.iface.clone(),
        patterns: flags
            .iface_regex
            .iter()
            .filter_map(|text| mistakes.check("--iface-regex", text, text.parse()))
            .collect(),
        can_reach: address("--iface-can-reach", flags.iface_can_reach.as_deref(), "an IP address", mistakes),
        public_ip: address::<Ipv4Addr>("--public-ip", flags.public_ip.as_deref(), "an IPv4 address", mistakes),
        public_ipv6: address::<Ipv6Addr>("--public-ipv6", flags.public_ipv6.as_deref(), "an IPv6 address", mistakes),
    };
    let net_conf = match (&flags.net_conf, &manager) {
        // flanneld reads it there with etcd.
        (None, Some(SubnetManager::Etcd(_))) => Some(None),
        (given, manager) => {
            let path = given.as_deref().unwrap_or(Path::new(NET_CONF));
            let assigned = matches!(manager, Some(SubnetManager::Kube(_)));
            let source = if assigned { SubnetSource::Assigned } else { SubnetSource::Allocated };
            net_conf(path, source, mistakes).map(Some)
        }
    };
    let bypass = conntrack_bypass(&flags.conntrack_bypass);
    let conntrack_bypass = mistakes.check("--conntrack-bypass", &flags.conntrack_bypass, bypass);
    Some(OverlayConfig {
        net_conf: net_conf?,
        subnet_manager: manager?,
        interface,
        ip_masq: flags.ip_masq,
        forward_rules: flags.iptables_forward_rules,
        conntrack_bypass: conntrack_bypass?,
    })
}

fn conntrack_bypass(text: &str) -> Result<ConntrackBypass, String> {
    match text {
        "auto" => Ok(ConntrackBypass::Auto),
        "on" => Ok(ConntrackBypass::On),
        "off" => Ok(ConntrackBypass::Off),
        _ => Err("must be auto, on or off".to_owned()),
    }
}

fn net_conf(path: &Path, source: SubnetSource, mistakes: &mut Mistakes) -> Option<NetConf> {
    let text = readable("--net-conf", path, mistakes)?;
    match NetConf::parse(&text, source) {
        Ok(net_conf) => Some(net_conf),
        Err(errors) => {
            for error in errors {
                mistakes.add(path.display().to_string(), "", error.to_string());
            }
            None
        }
    }
}

fn address<A: FromStr>(flag: &str, value: Option<&str>, expected: &str, mistakes: &mut Mistakes) -> Option<A> {
    let value = value?;
    let parsed = value.parse().map_err(|_| format!("must be {expected}"));
    mistakes.check(flag, value, parsed)
}
