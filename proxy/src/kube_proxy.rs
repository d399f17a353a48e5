//! What a real kube-proxy left on this node: found, and removed when told. Its IPVS mode is not looked for.
//!
//! Everything happens in the network namespace of the calling thread.

use std::{fmt, io};

use weft_netlink::NftQuery;

use crate::{
    dataplane::DataPlaneError,
    iptables::{self, Variant},
    model::IpFamily,
    program,
};

/// The tables of its nftables mode (12.8).
const TABLES: [(IpFamily, &str); 2] = [(IpFamily::V4, "ip kube-proxy"), (IpFamily::V6, "ip6 kube-proxy")];

/// Rules of a kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KubeProxyRules {
    /// Chains KUBE-* that are not ours, in one of the two iptables.
    Iptables(Variant),
    /// Its nftables table of one family.
    Nftables(IpFamily),
}

impl fmt::Display for KubeProxyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables(variant) => write!(f, "chains KUBE-* in iptables ({variant})"),
            Self::Nftables(family) => write!(f, "nftables table {}", table(*family)),
        }
    }
}

fn table(family: IpFamily) -> &'static str {
    TABLES[family as usize].1
}

/// Looks for rules of a kube-proxy in either mode. Lists all of iptables: to be done seldom.
///
/// # Errors
/// A program that is installed cannot be run.
pub fn find() -> Result<Vec<KubeProxyRules>, DataPlaneError> {
    let variants = iptables::kube_proxy_variants()?.into_iter().map(KubeProxyRules::Iptables);
    Ok(variants.chain(tables()).collect())
}

/// Removes them, but for chains kubelet needs (12.7). To be called when a data plane of ours serves: connections that a kube-proxy
/// translated live on, new ones are ours. Returns what was there.
///
/// # Errors
/// What could not be removed; the rest is gone.
pub fn remove() -> Result<Vec<KubeProxyRules>, DataPlaneError> {
    let found = find()?;
    let of_iptables = match found.iter().any(|rules| matches!(rules, KubeProxyRules::Iptables(_))) {
        true => iptables::remove_kube_proxy_rules(),
        false => Ok(()),
    };
    let script: String = found.iter().filter_map(deletion).collect();
    let of_nftables = if script.is_empty() { Ok(()) } else { nft(&["-f", "-"], &script).map(drop) };
    of_iptables.and(of_nftables).map(|()| found)
}

fn deletion(rules: &KubeProxyRules) -> Option<String> {
    match rules {
        // "add" first: it may be gone by now, and deleting what is not there is an error.
        KubeProxyRules::Nftables(family) => {
            let table = table(*family);
            Some(format!("add table {table}\ndelete table {table}\n"))
        }
        KubeProxyRules::Iptables(_) => None,
    }
}

/// The tables of its nftables mode that are there.
fn tables() -> Vec<KubeProxyRules> {
    let listed = NftQuery::open().and_then(|mut query| query.tables());
    // A kernel without nftables has none.
    let listed = listed.inspect_err(|error| tracing::debug!(%error, "nftables cannot be listed")).unwrap_or_default();
    let is_there = |name: &str| listed.iter().any(|there| there == name);
    let found = TABLES.into_iter().filter(|(_, name)| is_there(name));
    found.map(|(family, _)| KubeProxyRules::Nftables(family)).collect()
}

/// What nft prints; nothing where it is not installed, for then there is no table that anybody made.
fn nft(arguments: &[&str], input: &str) -> Result<Vec<String>, DataPlaneError> {
    let failed =
        |source| DataPlaneError { plane: "nftables", doing: format!("run nft {}", arguments.join(" ")), source };
    let mut lines = Vec::new();
    match program::change("nft", arguments, &[input], program::lines(|line| lines.push(line.to_owned()))) {
        Ok((finished, ())) if finished.status.success() => Ok(lines),
        Ok((finished, ())) => Err(failed(finished.stderr.trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error.into())),
    }
}
