//! Settings of the packet path: who counts as local traffic, and the masquerade mark (kube-proxy.md 8, 15).

use ipnetwork::IpNetwork;
use weft_proxy::plan::{LocalTraffic, PacketSettings};

use super::{Mistakes, comma_list, kube_proxy::KubeProxyFile, proxy::cidr};
use crate::cli::ProxyArgs;

/// Reads the flags and the file; a flag wins. `None`: a mistake was noted.
pub(super) fn read(args: &ProxyArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<PacketSettings> {
    let local_traffic = local_traffic(args, file, mistakes);
    let (origin, bit) = match &args.iptables_masquerade_bit {
        Some(bit) => ("--iptables-masquerade-bit".to_owned(), bit.clone()),
        None => (file.origin("masqueradeBit"), file.masquerade_bit.to_string()),
    };
    let masquerade_bit = mistakes.whole(&origin, &bit, 0..=31);
    Some(PacketSettings {
        local_traffic: local_traffic?,
        masquerade_all: args.masquerade_all.unwrap_or(file.masquerade_all),
        masquerade_bit: masquerade_bit?,
        localhost_node_ports: args.iptables_localhost_nodeports.unwrap_or(file.localhost_node_ports),
    })
}

/// Whether local traffic is told by the Node's `spec.podCIDRs`.
pub(super) fn follows_node(args: &ProxyArgs, file: &KubeProxyFile) -> bool {
    args.detect_local_mode.as_deref().unwrap_or(&file.detect_local_mode) == NODE_CIDR
}

const NODE_CIDR: &str = "NodeCIDR";

fn local_traffic(args: &ProxyArgs, file: &KubeProxyFile, mistakes: &mut Mistakes) -> Option<LocalTraffic> {
    let pick = |flag: &Option<String>, name: &str, value: &str, field: &str| match flag {
        Some(given) => (name.to_owned(), given.clone()),
        None => (file.origin(field), value.to_owned()),
    };
    let (origin, mode) =
        pick(&args.detect_local_mode, "--detect-local-mode", &file.detect_local_mode, "detectLocalMode");
    let mut named = |(origin, name): (String, String), make: fn(String) -> LocalTraffic| {
        if name.is_empty() {
            mistakes.add(origin, "", "must not be empty in this detectLocalMode");
            return None;
        }
        Some(make(name))
    };
    match mode.as_str() {
        "" | "ClusterCIDR" => {
            let (origin, list) = pick(&args.cluster_cidr, "--cluster-cidr", &file.cluster_cidr, "clusterCIDR");
            mistakes.check(&origin, &list, cluster_cidrs(&list))
        }
        "BridgeInterface" => named(
            pick(
                &args.pod_bridge_interface,
                "--pod-bridge-interface",
                &file.bridge_interface,
                "detectLocal.bridgeInterface",
            ),
            LocalTraffic::Interface,
        ),
        "InterfaceNamePrefix" => named(
            pick(
                &args.pod_interface_name_prefix,
                "--pod-interface-name-prefix",
                &file.interface_name_prefix,
                "detectLocal.interfaceNamePrefix",
            ),
            LocalTraffic::InterfacePrefix,
        ),
        // Until the Node is known there is none.
        NODE_CIDR => Some(LocalTraffic::Unknown),
        _ => {
            mistakes.add(origin, mode, "must be ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix or blank");
            None
        }
    }
}

/// One CIDR, or one of each family; empty is no detector (8.8).
fn cluster_cidrs(list: &str) -> Result<LocalTraffic, String> {
    let (mut v4, mut v6) = (None, None);
    let cidrs = comma_list(list);
    for text in &cidrs {
        let taken = match cidr(text)? {
            IpNetwork::V4(network) => v4.replace(network).is_some(),
            IpNetwork::V6(network) => v6.replace(network).is_some(),
        };
        if taken {
            return Err("must be one CIDR, or one of each family".to_owned());
        }
    }
    Ok(if cidrs.is_empty() { LocalTraffic::Unknown } else { LocalTraffic::Cidrs { v4, v6 } })
}

#[cfg(test)]
mod tests {
    use weft_proxy::plan::LocalTraffic;

    use super::cluster_cidrs;

    #[test]
    fn cluster_cidrs_are_one_a_family() {
        assert_eq!(cluster_cidrs(""), Ok(LocalTraffic::Unknown));
        let v4 = "10.244.0.0/16".parse().ok();
        assert_eq!(cluster_cidrs("10.244.0.0/16"), Ok(LocalTraffic::Cidrs { v4, v6: None }));
        let v6 = "fd44::/48".parse().ok();
        assert_eq!(cluster_cidrs("10.244.0.0/16, fd44::/48"), Ok(LocalTraffic::Cidrs { v4, v6 }));
        for wrong in ["10.244.0.0/16,10.0.0.0/8", "10.244.0.0", "x"] {
            assert!(cluster_cidrs(wrong).is_err(), "{wrong}");
        }
    }
}
