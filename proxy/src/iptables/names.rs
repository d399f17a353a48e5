//! Names of chains, as kube-proxy has them (kube-proxy.md 12.2), so that tools which look for KUBE-* still find them.

use std::{fmt, net::SocketAddr};

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use crate::{model::ServicePortName, plan::Endpoint};

/// The table a chain is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Filter,
    Nat,
    /// We have nothing in it; a kube-proxy has its canary there.
    Mangle,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Mangle];
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Mangle => "mangle",
        })
    }
}

/// `KUBE-SERVICES`, in nat and in filter.
pub(crate) const SERVICES: &str = "KUBE-SERVICES";
/// `KUBE-NODEPORTS`, in nat and in filter.
pub(crate) const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub(crate) const POSTROUTING: &str = "KUBE-POSTROUTING";
pub(crate) const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub(crate) const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub(crate) const FORWARD: &str = "KUBE-FORWARD";
pub(crate) const PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Shared with kubelet (12.7): rules are added to it, it is never flushed or deleted.
pub(crate) const FIREWALL: &str = "KUBE-FIREWALL";
pub(crate) const CANARY: &str = "KUBE-PROXY-CANARY";
/// Ours alone: refusals of node ports, which kube-proxy has in `KUBE-EXTERNAL-SERVICES`, where they match at every address.
pub(crate) const NODE_PORTS_REFUSED: &str = "KUBE-NODEPORTS-REFUSED";
/// Ours alone: refusals of other ports of ClusterIPs, which kube-proxy has in its `nftables` mode only (9.10).
pub(crate) const CLUSTER_IPS_REFUSED: &str = "KUBE-CLUSTER-IPS-REFUSED";
/// Ours alone, empty, in nat: says that the KUBE-* chains are Weft's and not a kube-proxy's.
pub(crate) const OWNER: &str = "WEFT-PROXY";

/// Prefixes of the chains each Service port has of its own, all in nat.
const SERVICE_CHAINS: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];

/// Chains with fixed names, ours or kube-proxy's.
const FIXED_CHAINS: [&str; 11] = [
    SERVICES,
    NODE_PORTS,
    POSTROUTING,
    MARK_MASQ,
    EXTERNAL_SERVICES,
    FORWARD,
    PROXY_FIREWALL,
    CANARY,
    NODE_PORTS_REFUSED,
    CLUSTER_IPS_REFUSED,
    OWNER,
];

/// Whether it is a chain that one Service port has of its own.
pub(crate) fn is_service_chain(name: &str) -> bool {
    SERVICE_CHAINS.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether it is a chain of ours or of a kube-proxy. [`FIREWALL`] is not: kubelet has a share in it.
pub(crate) fn is_kube_proxy_chain(name: &str) -> bool {
    FIXED_CHAINS.contains(&name) || is_service_chain(name)
}

/// The chain names of one Service port. Both families have the same: each has its own tables.
#[derive(Debug)]
pub(crate) struct ServiceChains {
    /// What is hashed for the Service port's own chains.
    identity: String,
    hash: String,
}

impl ServiceChains {
    pub(crate) fn of(port: &ServicePortName) -> Self {
        let identity = format!("{}{}", comment_name(port), port.protocol.lowercase());
        let hash = hash(&identity);
        Self { identity, hash }
    }

    /// Balances over the endpoints of traffic policy Cluster.
    pub(crate) fn cluster(&self) -> String {
        format!("KUBE-SVC-{}", self.hash)
    }

    /// Balances over the endpoints of traffic policy Local.
    pub(crate) fn local(&self) -> String {
        format!("KUBE-SVL-{}", self.hash)
    }

    /// Entry of what comes by a node port, external IP or load balancer address.
    pub(crate) fn external(&self) -> String {
        format!("KUBE-EXT-{}", self.hash)
    }

    /// Source ranges before [`external`](Self::external).
    pub(crate) fn firewall(&self) -> String {
        format!("KUBE-FW-{}", self.hash)
    }

    /// Translates to one endpoint.
    pub(crate) fn endpoint(&self, endpoint: &Endpoint) -> String {
        let at = SocketAddr::new(endpoint.address, endpoint.port);
        format!("KUBE-SEP-{}", hash(&format!("{}{at}", self.identity)))
    }
}

/// `ns/name`, or `ns/name:port`: how rules and hashes name a Service port.
pub(crate) fn comment_name(port: &ServicePortName) -> String {
    match &*port.port {
        "" => port.service.to_string(),
        name => format!("{}:{name}", port.service),
    }
}

fn hash(text: &str) -> String {
    // 10 bytes are 16 characters of base32; kube-proxy cuts there, because a chain name has at most 28.
    BASE32.encode(&Sha256::digest(text.as_bytes())[..10])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, ServiceName};

    fn port(port: &str) -> ServicePortName {
        let service = ServiceName::new("ns1", "svc1");
        ServicePortName { service, port: port.into(), protocol: Protocol::Tcp }
    }

    #[test]
    fn rule_12_2_hashes_are_kube_proxys() {
        let chains = ServiceChains::of(&port("p80"));
        assert_eq!(chains.cluster(), "KUBE-SVC-XPGD46QRK7WJZT7O");
        assert_eq!(chains.local(), "KUBE-SVL-XPGD46QRK7WJZT7O");
        assert_eq!(chains.external(), "KUBE-EXT-XPGD46QRK7WJZT7O");
        assert_eq!(chains.firewall(), "KUBE-FW-XPGD46QRK7WJZT7O");
        let endpoint = Endpoint { address: [10, 180, 0, 1].into(), port: 80, local: false };
        assert_eq!(chains.endpoint(&endpoint), "KUBE-SEP-SXIVWICOYRO3J4NJ");
    }

    #[test]
    fn rule_12_2_an_unnamed_port_is_left_out() {
        // The chain every cluster has for the API server's Service: namespace default, name kubernetes, port https.
        let service = ServiceName::new("default", "kubernetes");
        let https = ServicePortName { service: service.clone(), port: "https".into(), protocol: Protocol::Tcp };
        assert_eq!(ServiceChains::of(&https).cluster(), "KUBE-SVC-NPX46M4PTMTKRN6Y");
        let unnamed = ServicePortName { service, port: "".into(), protocol: Protocol::Tcp };
        assert_eq!(ServiceChains::of(&unnamed).identity, "default/kubernetestcp");
    }

    #[test]
    fn only_kube_proxys_chains_are_taken_for_its_own() {
        for ours in ["KUBE-SVC-XPGD46QRK7WJZT7O", "KUBE-SERVICES", "KUBE-PROXY-CANARY", "WEFT-PROXY"] {
            assert!(is_kube_proxy_chain(ours), "{ours}");
        }
        for other in ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-ROUTER-INPUT", "CNI-HOSTPORT"]
        {
            assert!(!is_kube_proxy_chain(other), "{other}");
        }
    }
}
