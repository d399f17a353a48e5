//! What kube-proxy leaves: rules of its iptables and nftables modes; interface, virtual servers and sets of its IPVS mode.

use anyhow::Context;
use weft_netlink::Link;
use weft_proxy::kube_proxy;

use super::{Leftover, flannel::device};
use crate::commands::programs;

/// Interface of the IPVS mode, which has every ClusterIP.
const IPVS: &str = "kube-ipvs0";

/// What is there. kubelet's own chains are not (kube-proxy.md 12.7).
///
/// # Errors
/// The rules cannot be listed.
pub(super) fn find(links: &[Link]) -> anyhow::Result<Vec<Leftover>> {
    let rules = kube_proxy::find().context("look for rules of a kube-proxy")?;
    let mut found = Vec::new();
    if !rules.is_empty() {
        let what = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        found.push(Leftover::new(what, || Ok(kube_proxy::remove().map(drop)?)));
    }
    if let Some(link) = links.iter().find(|link| link.name == IPVS) {
        found.push(device(IPVS, link.index));
        found.push(Leftover::new("IPVS virtual servers", || {
            programs::feed("ipvsadm", &["--clear"], "").context("ipvsadm --clear (is ipvsadm installed?)")
        }));
        found.extend(sets(&programs::output("ipset", &["list", "-name"]).unwrap_or_default()));
    }
    Ok(found)
}

/// After the rules that use them.
fn sets(names: &str) -> Vec<Leftover> {
    let of_kube_proxy = names.lines().filter(|name| name.starts_with("KUBE-"));
    of_kube_proxy
        .map(|name| {
            let set = name.to_owned();
            Leftover::new(format!("ipset {name}"), move || {
                programs::feed("ipset", &["destroy", &set], "").context("ipset destroy")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn only_kube_proxys_sets_are_meant() {
        let found: Vec<String> = sets("KUBE-CLUSTER-IP\nfail2ban\n").into_iter().map(|left| left.what).collect();
        assert_eq!(found, ["ipset KUBE-CLUSTER-IP"]);
    }
}
