//! The KubeProxyConfiguration v1alpha1 file, as far as Weft heeds it today.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tracing::warn;

use super::Mistakes;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// Fields of the format that have no effect in Weft (yet): accepted in silence, since kubeadm writes all of them.
const WITHOUT_EFFECT: &[&str] = &[
    "apiVersion",
    "bindAddress",
    "bindAddressHardFail",
    "configSyncPeriod",
    "enableProfiling",
    "featureGates",
    "healthzBindAddress",
    "ipvs",
    "kind",
    "logging",
    "metricsBindAddress",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "windowsRunAsService",
    "winkernel",
];

/// Fields that are read below.
const HEEDED: &[&str] = &[
    "clientConnection",
    "clusterCIDR",
    "conntrack",
    "detectLocal",
    "detectLocalMode",
    "hostnameOverride",
    "iptables",
    "mode",
    "nftables",
    "nodePortAddresses",
];

/// What Weft takes from the file.
#[derive(Debug, PartialEq)]
pub(crate) struct KubeProxyFile {
    path: PathBuf,
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
            path: PathBuf::new(),
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
    /// Reads the file, noting every mistake in it. Unknown fields only warn, as in kube-proxy (14.15).
    pub(crate) fn read(path: &Path, mistakes: &mut Mistakes) -> Option<Self> {
        let origin = "--kube-proxy-config";
        let text = fs::read_to_string(path)
            .map_err(|error| mistakes.add(origin, path.display(), format!("cannot be read: {error}")))
            .ok()?;
        let value: Value = serde_saphyr::from_str(&text)
            .map_err(|error| mistakes.add(origin, path.display(), format!("is not YAML: {}", error.without_snippet())))
            .ok()?;
        let mut reader = Reader { path, value: &value, mistakes };
        reader.expect("apiVersion", API_VERSION);
        reader.expect("kind", KIND);
        reader.warn_unknown();
        let mode = reader.string("/mode").unwrap_or_default();
        // kube-proxy has these twice and reads the section of its mode; our other modes have none of their own.
        let section = if mode == "nftables" { "nftables" } else { "iptables" };
        let defaults = Self::default();
        let file = Self {
            path: path.to_owned(),
            hostname_override: reader.string("/hostnameOverride"),
            node_port_addresses: reader.strings("/nodePortAddresses"),
            kubeconfig: reader.string("/clientConnection/kubeconfig").filter(|path| !path.is_empty()).map(Into::into),
            cluster_cidr: reader.string("/clusterCIDR").unwrap_or_default(),
            detect_local_mode: reader.string("/detectLocalMode").unwrap_or_default(),
            bridge_interface: reader.string("/detectLocal/bridgeInterface").unwrap_or_default(),
            interface_name_prefix: reader.string("/detectLocal/interfaceNamePrefix").unwrap_or_default(),
            masquerade_all: reader.boolean(&format!("/{section}/masqueradeAll")).unwrap_or(defaults.masquerade_all),
            masquerade_bit: reader.number(&format!("/{section}/masqueradeBit")).unwrap_or(defaults.masquerade_bit),
            localhost_node_ports: reader
                .boolean("/iptables/localhostNodePorts")
                .unwrap_or(defaults.localhost_node_ports),
            conntrack: ConntrackSection {
                max_per_core: reader.number("/conntrack/maxPerCore"),
                min: reader.number("/conntrack/min"),
                tcp_established_timeout: reader.string("/conntrack/tcpEstablishedTimeout"),
                tcp_close_wait_timeout: reader.string("/conntrack/tcpCloseWaitTimeout"),
                tcp_be_liberal: reader.boolean("/conntrack/tcpBeLiberal"),
                udp_timeout: reader.string("/conntrack/udpTimeout"),
                udp_stream_timeout: reader.string("/conntrack/udpStreamTimeout"),
            },
            mode,
        };
        Some(file)
    }

    /// How a field of this file is named in messages.
    pub(crate) fn origin(&self, field: &str) -> String {
        format!("{}: {field}", self.path.display())
    }
}

struct Reader<'a> {
    path: &'a Path,
    value: &'a Value,
    mistakes: &'a mut Mistakes,
}

impl Reader<'_> {
    fn mistake(&mut self, field: &str, value: &Value, problem: &str) {
        let field = field.trim_start_matches('/').replace('/', ".");
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.mistakes.add(format!("{}: {field}", self.path.display()), value, problem);
    }

    fn expect(&mut self, field: &str, expected: &str) {
        let found = self.value.get(field).cloned().unwrap_or(Value::Null);
        if found.as_str() != Some(expected) {
            self.mistake(field, &found, &format!("must be {expected}"));
        }
    }

    fn string(&mut self, pointer: &str) -> Option<String> {
        self.read(pointer, |value| value.as_str().map(str::to_owned), "must be a string")
    }

    fn boolean(&mut self, pointer: &str) -> Option<bool> {
        self.read(pointer, Value::as_bool, "must be true or false")
    }

    fn number(&mut self, pointer: &str) -> Option<u64> {
        self.read(pointer, Value::as_u64, "must be a whole number, not negative")
    }

    /// `None` for an absent field, and for one of another type, which is noted.
    fn read<T>(&mut self, pointer: &str, convert: impl Fn(&Value) -> Option<T>, expected: &str) -> Option<T> {
        let value = self.value.pointer(pointer).filter(|value| !value.is_null())?;
        let converted = convert(value);
        if converted.is_none() {
            self.mistake(pointer, &value.clone(), expected);
        }
        converted
    }

    fn strings(&mut self, pointer: &str) -> Vec<String> {
        let list = match self.value.pointer(pointer) {
            None | Some(Value::Null) => return Vec::new(),
            Some(list) => list.clone(),
        };
        let strings = serde_json::from_value(list.clone());
        strings.unwrap_or_else(|_| {
            self.mistake(pointer, &list, "must be a list of strings");
            Vec::new()
        })
    }

    fn warn_unknown(&self) {
        let fields = self.value.as_object().into_iter().flat_map(|fields| fields.keys());
        for field in
            fields.filter(|field| !HEEDED.contains(&field.as_str()) && !WITHOUT_EFFECT.contains(&field.as_str()))
        {
            warn!(file = %self.path.display(), field, "unknown field of KubeProxyConfiguration, ignored");
        }
    }
}
