//! The small values of the configuration, each with its parser and the message for what it does not accept.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;

/// Which parts of the agent run (`--components`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Components {
    /// Pod network.
    pub(crate) overlay: bool,
    /// Services.
    pub(crate) proxy: bool,
    /// CNI configuration.
    pub(crate) cni: bool,
}

impl Components {
    /// Reads a comma list.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut components = Self::default();
        for name in super::comma_list(list) {
            match name.as_str() {
                "overlay" => components.overlay = true,
                "proxy" => components.proxy = true,
                "cni" => components.cni = true,
                other => return Err(format!("{other:?} is no component; there are overlay, proxy and cni")),
            }
        }
        match components {
            Self { overlay: false, proxy: false, cni: false } => Err("names no component".to_owned()),
            Self { overlay: false, cni: true, .. } => {
                Err("cni needs overlay, which knows the node's pod subnet".to_owned())
            }
            _ => Ok(components),
        }
    }

    /// Names of those that run.
    pub(crate) fn names(self) -> Vec<String> {
        let all = [(self.overlay, "overlay"), (self.proxy, "proxy"), (self.cni, "cni")];
        all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()).collect()
    }
}

/// Where Services, EndpointSlices and the Node come from (`--source`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// Manifests in a directory.
    Dir(PathBuf),
    /// The Kubernetes API.
    Kube(KubeAccess),
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KubeAccess {
    /// kubeconfig file; `None`: in-cluster configuration.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// URL that overrides the kubeconfig's.
    pub(crate) master: Option<String>,
}

impl SourceKind {
    /// Reads `kube` or `dir:PATH`.
    pub(crate) fn parse(text: &str, access: KubeAccess) -> Result<Self, String> {
        match (text, text.strip_prefix("dir:")) {
            ("kube", _) => Ok(Self::Kube(access)),
            (_, Some(path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            _ => Err("must be kube or dir:PATH".to_owned()),
        }
    }
}

/// Who hands out pod subnets (`--subnet-manager`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubnetManager {
    /// A directory shared by the agents of one machine.
    Dir(PathBuf),
}

impl SubnetManager {
    /// Reads `dir:PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("dir:")) {
            (_, Some(path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            ("kube" | "etcd", _) => {
                Err("is not built yet; use dir:PATH, or --components=proxy beside flannel".to_owned())
            }
            _ => Err("must be kube, etcd or dir:PATH".to_owned()),
        }
    }
}

/// Data plane asked for (`--proxy-mode`, `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyMode {
    /// Socket programs, with nftables for packets from outside.
    Ebpf,
}

impl ProxyMode {
    /// Reads a mode; empty is the best the node can do.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "ebpf" => Ok(Self::Ebpf),
            "nftables" | "iptables" => Err("is not built yet; use ebpf or leave it empty".to_owned()),
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
        list.iter().map(|text| super::cidr(text)).collect::<Result<_, _>>().map(Self)
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
