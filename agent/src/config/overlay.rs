//! Configuration of the pod network.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    str::FromStr,
};

use weft_overlay::{ChecksumOffload, ConntrackBypass, InterfaceChoice, NetConf, SubnetSource};

use super::{KubeAccess, Mistakes, leases, leases::SubnetManager, readable};
use crate::cli::AgentArgs;

/// Where the manifests of flannel put it.
pub(super) const NET_CONF: &str = "/etc/kube-flannel/net-conf.json";

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
    /// Who computes the checksums of packets that enter the tunnel.
    pub(crate) checksum_offload: ChecksumOffload,
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
    let bypass = [ConntrackBypass::Auto, ConntrackBypass::On, ConntrackBypass::Off];
    let conntrack_bypass = switch("--conntrack-bypass", &flags.conntrack_bypass, bypass, mistakes);
    let offload = [ChecksumOffload::Auto, ChecksumOffload::On, ChecksumOffload::Off];
    let checksum_offload = switch("--vtep-checksum-offload", &flags.vtep_checksum_offload, offload, mistakes);
    Some(OverlayConfig {
        net_conf: net_conf?,
        subnet_manager: manager?,
        interface,
        ip_masq: flags.ip_masq,
        forward_rules: flags.iptables_forward_rules,
        conntrack_bypass: conntrack_bypass?,
        checksum_offload: checksum_offload?,
    })
}

/// The meaning of `auto`, `on` or `off`.
fn switch<T>(flag: &str, text: &str, [auto, on, off]: [T; 3], mistakes: &mut Mistakes) -> Option<T> {
    let chosen = match text {
        "auto" => Ok(auto),
        "on" => Ok(on),
        "off" => Ok(off),
        _ => Err("must be auto, on or off"),
    };
    mistakes.check(flag, text, chosen)
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

#[cfg(test)]
mod tests {
    use weft_overlay::{ChecksumOffload, ConntrackBypass};

    use super::super::tests::Files;

    #[test]
    fn switches_patterns_and_addresses_are_checked_together() {
        let files = Files::new();
        let good = files.load(&["--conntrack-bypass=off", "--vtep-checksum-offload=on", "--iface-regex=^eth[0-9]$"]);
        let overlay = good.unwrap().overlay.unwrap();
        assert_eq!(overlay.conntrack_bypass, ConntrackBypass::Off);
        assert_eq!(overlay.checksum_offload, ChecksumOffload::On);
        assert!(overlay.forward_rules && overlay.interface.patterns.len() == 1);

        let bad = ["--conntrack-bypass=yes", "--vtep-checksum-offload=", "--iface-regex=eth(", "--iface-can-reach=x"];
        let mistakes: Vec<String> = files.load(&bad).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(mistakes.len(), bad.len(), "{mistakes:?}");
        for flag in bad.map(|flag| flag.split('=').next().unwrap()) {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(flag)), "{flag} in {mistakes:?}");
        }
    }
}
