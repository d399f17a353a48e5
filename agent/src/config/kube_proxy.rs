//! What other parts of the configuration take from the KubeProxyConfiguration file.

use std::path::PathBuf;

use serde_json::Value;

use super::settings::KubeProxyDocument;

/// What Weft takes from the file.
#[derive(Debug, PartialEq)]
pub(crate) struct KubeProxyFile {
    document: KubeProxyDocument,
    /// `mode`; empty when unset.
    pub(crate) mode: String,
    /// `hostnameOverride`.
    pub(crate) hostname_override: Option<String>,
    /// `nodePortAddresses`.
    pub(crate) node_port_addresses: Vec<String>,
    /// `clientConnection.kubeconfig`.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `clusterCIDR`; empty when unset, as the next three.
    pub(crate) cluster_cidr: String,
    /// `detectLocalMode`.
    pub(crate) detect_local_mode: String,
    /// `detectLocal.bridgeInterface`.
    pub(crate) bridge_interface: String,
    /// `detectLocal.interfaceNamePrefix`.
    pub(crate) interface_name_prefix: String,
    /// `masqueradeAll` of the section of the mode.
    pub(crate) masquerade_all: bool,
    /// `masqueradeBit` of the section of the mode.
    pub(crate) masquerade_bit: u64,
    /// `iptables.localhostNodePorts`.
    pub(crate) localhost_node_ports: bool,
    /// `conntrack`.
    pub(crate) conntrack: ConntrackSection,
}

/// The section `conntrack`; `None` where a field is unset.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ConntrackSection {
    /// `maxPerCore`.
    pub(crate) max_per_core: Option<u64>,
    /// `min`.
    pub(crate) min: Option<u64>,
    /// `tcpEstablishedTimeout`.
    pub(crate) tcp_established_timeout: Option<String>,
    /// `tcpCloseWaitTimeout`.
    pub(crate) tcp_close_wait_timeout: Option<String>,
    /// `tcpBeLiberal`.
    pub(crate) tcp_be_liberal: Option<bool>,
    /// `udpTimeout`.
    pub(crate) udp_timeout: Option<String>,
    /// `udpStreamTimeout`.
    pub(crate) udp_stream_timeout: Option<String>,
}

impl Default for KubeProxyFile {
    /// What holds without a file: kube-proxy's defaults.
    fn default() -> Self {
        Self {
            document: KubeProxyDocument::default(),
            mode: String::new(),
            hostname_override: None,
            node_port_addresses: Vec::new(),
            kubeconfig: None,
            cluster_cidr: String::new(),
            detect_local_mode: String::new(),
            bridge_interface: String::new(),
            interface_name_prefix: String::new(),
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
            conntrack: ConntrackSection::default(),
        }
    }
}

impl KubeProxyFile {
    /// The fields of a file whose types were checked.
    pub(super) fn of(document: KubeProxyDocument) -> Self {
        let text = |field: &str| document.get(field).and_then(Value::as_str).map(str::to_owned);
        let boolean = |field: &str| document.get(field).and_then(Value::as_bool);
        let number = |field: &str| document.get(field).and_then(Value::as_u64);
        let mode = text("mode").unwrap_or_default();
        // kube-proxy has these twice and reads the section of its mode; our other modes have none of their own.
        let section = if mode == "nftables" { "nftables" } else { "iptables" };
        let defaults = Self::default();
        let addresses = document.get("nodePortAddresses").and_then(Value::as_array).into_iter().flatten();
        Self {
            hostname_override: text("hostnameOverride"),
            node_port_addresses: addresses.filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            kubeconfig: text("clientConnection.kubeconfig").filter(|path| !path.is_empty()).map(Into::into),
            cluster_cidr: text("clusterCIDR").unwrap_or_default(),
            detect_local_mode: text("detectLocalMode").unwrap_or_default(),
            bridge_interface: text("detectLocal.bridgeInterface").unwrap_or_default(),
            interface_name_prefix: text("detectLocal.interfaceNamePrefix").unwrap_or_default(),
            masquerade_all: boolean(&format!("{section}.masqueradeAll")).unwrap_or(defaults.masquerade_all),
            masquerade_bit: number(&format!("{section}.masqueradeBit")).unwrap_or(defaults.masquerade_bit),
            localhost_node_ports: boolean("iptables.localhostNodePorts").unwrap_or(defaults.localhost_node_ports),
            conntrack: ConntrackSection {
                max_per_core: number("conntrack.maxPerCore"),
                min: number("conntrack.min"),
                tcp_established_timeout: text("conntrack.tcpEstablishedTimeout"),
                tcp_close_wait_timeout: text("conntrack.tcpCloseWaitTimeout"),
                tcp_be_liberal: boolean("conntrack.tcpBeLiberal"),
                udp_timeout: text("conntrack.udpTimeout"),
                udp_stream_timeout: text("conntrack.udpStreamTimeout"),
            },
            mode,
            document,
        }
    }

    /// How a field of this file is named in messages.
    pub(crate) fn origin(&self, field: &str) -> String {
        self.document.origin(field)
    }
}
