//! Every field of KubeProxyConfiguration v1alpha1 (kube-proxy.md 15): type, default, flag, and what Weft does with it.
//!
//! The table is the only list of them: the file is read by it, flags are matched to fields by it, and `--print-config`,
//! `/configz` and `docs/configuration.md` are written from it.

use serde_json::{Value, json};

/// One field.
#[derive(Debug)]
pub(crate) struct Field {
    /// Where it is in the file: `iptables.masqueradeBit`.
    pub(crate) path: &'static str,
    /// What it may hold.
    pub(crate) kind: Kind,
    /// What holds when neither file nor flag says anything, as YAML.
    pub(crate) default: &'static str,
    /// kube-proxy's flag of the same meaning, without dashes; empty: there is none.
    pub(crate) flag: &'static str,
    /// What it does in Weft.
    pub(crate) effect: Effect,
}

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range.
    Whole(i64, i64),
    /// A number.
    Number,
    /// A time as Go writes it, such as `1h30m`. kube-proxy takes 0 for "the default" in the file, except where the default is 0.
    Duration,
    /// A list of texts.
    Texts,
    /// Anything: it is not looked at.
    Any,
}

/// What a field does in Weft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// This.
    Used(&'static str),
    /// Nothing, because of this: accepted, and said once if it is set to something else than the default.
    None(&'static str),
}

const fn used(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    flag: &'static str,
    effect: &'static str,
) -> Field {
    Field { path, kind, default, flag, effect: Effect::Used(effect) }
}

const fn unused(path: &'static str, kind: Kind, default: &'static str, flag: &'static str, why: &'static str) -> Field {
    Field { path, kind, default, flag, effect: Effect::None(why) }
}

use Kind::{Any, Boolean, Duration, Number, Text, Texts, Whole};

const MARK_BIT: Kind = Whole(0, 31);
const COUNT: Kind = Whole(0, i64::MAX);
const LOG_WRITER: &str = "Weft writes its log to standard error at once";
const API_CLIENT: &str = "Weft's API client has its own pace and encoding";
const AT_ONCE: &str = "Weft writes what changed at once, and only that";
const NO_IPVS: &str = "Weft has no ipvs mode";
const WINDOWS: &str = "Weft runs on Linux";

/// All fields, by path.
pub(crate) const FIELDS: &[Field] = &[
    used("bindAddress", Text, "0.0.0.0", "bind-address", "The family of the default health and metrics addresses."),
    used(
        "bindAddressHardFail",
        Boolean,
        "false",
        "bind-address-hard-fail",
        "Whether the agent ends when it cannot listen at the health or metrics address, instead of trying every 5 s.",
    ),
    unused("clientConnection.acceptContentTypes", Text, "", "", API_CLIENT),
    unused("clientConnection.burst", COUNT, "10", "kube-api-burst", API_CLIENT),
    unused(
        "clientConnection.contentType",
        Text,
        "application/vnd.kubernetes.protobuf",
        "kube-api-content-type",
        API_CLIENT,
    ),
    used("clientConnection.kubeconfig", Text, "", "kubeconfig", "kubeconfig file of the API server."),
    unused("clientConnection.qps", Number, "5", "kube-api-qps", API_CLIENT),
    used("clusterCIDR", Text, "", "cluster-cidr", "Network of the pods, one CIDR or one of each family."),
    unused("configSyncPeriod", Duration, "15m0s", "config-sync-period", "Weft keeps no second copy to compare with"),
    used("conntrack.maxPerCore", COUNT, "32768", "conntrack-max-per-core", "Connections for each CPU; 0 leaves it."),
    used("conntrack.min", COUNT, "131072", "conntrack-min", "Connections at least."),
    used("conntrack.tcpBeLiberal", Boolean, "false", "conntrack-tcp-be-liberal", "Track segments outside the window."),
    used("conntrack.tcpCloseWaitTimeout", Duration, "1h0m0s", "conntrack-tcp-timeout-close-wait", "0 leaves it."),
    used("conntrack.tcpEstablishedTimeout", Duration, "24h0m0s", "conntrack-tcp-timeout-established", "0 leaves it."),
    used("conntrack.udpStreamTimeout", Duration, "0s", "conntrack-udp-timeout-stream", "0 leaves it."),
    used("conntrack.udpTimeout", Duration, "0s", "conntrack-udp-timeout", "0 leaves it."),
    used("detectLocal.bridgeInterface", Text, "", "pod-bridge-interface", "The pods' bridge."),
    used("detectLocal.interfaceNamePrefix", Text, "", "pod-interface-name-prefix", "What pods' interfaces start with."),
    used("detectLocalMode", Text, "", "detect-local-mode", "How local traffic is told; empty: ClusterCIDR."),
    unused("enableProfiling", Boolean, "false", "profiling", "/debug/pprof is a Go runtime's"),
    unused("featureGates", Any, "{}", "feature-gates", "Weft has no feature gates"),
    used(
        "healthzBindAddress",
        Text,
        "0.0.0.0:10256",
        "healthz-bind-address",
        "Where /healthz, /livez and /readyz answer; [::]:10256 with an IPv6 bindAddress.",
    ),
    used("hostnameOverride", Text, "", "hostname-override", "Name of the node."),
    used("iptables.localhostNodePorts", Boolean, "true", "iptables-localhost-nodeports", "NodePorts at 127.0.0.1."),
    used("iptables.masqueradeAll", Boolean, "false", "masquerade-all", "Masquerade all packets to ClusterIPs."),
    used("iptables.masqueradeBit", MARK_BIT, "14", "iptables-masquerade-bit", "Bit of the mark that asks for it."),
    unused("iptables.minSyncPeriod", Duration, "1s", "iptables-min-sync-period", AT_ONCE),
    used("iptables.syncPeriod", Duration, "30s", "iptables-sync-period", "/livez fails after twice this out of sync."),
    unused("ipvs.excludeCIDRs", Texts, "[]", "ipvs-exclude-cidrs", NO_IPVS),
    unused("ipvs.minSyncPeriod", Duration, "0s", "ipvs-min-sync-period", NO_IPVS),
    unused("ipvs.scheduler", Text, "", "ipvs-scheduler", NO_IPVS),
    unused("ipvs.strictARP", Boolean, "false", "ipvs-strict-arp", NO_IPVS),
    unused("ipvs.syncPeriod", Duration, "30s", "ipvs-sync-period", NO_IPVS),
    unused("ipvs.tcpFinTimeout", Duration, "0s", "ipvs-tcpfin-timeout", NO_IPVS),
    unused("ipvs.tcpTimeout", Duration, "0s", "ipvs-tcp-timeout", NO_IPVS),
    unused("ipvs.udpTimeout", Duration, "0s", "ipvs-udp-timeout", NO_IPVS),
    unused("logging.flushFrequency", Any, "5s", "log-flush-frequency", LOG_WRITER),
    used("logging.format", Text, "text", "logging-format", "text or json."),
    unused("logging.options.json.infoBufferSize", Any, "0", "log-json-info-buffer-size", LOG_WRITER),
    unused("logging.options.json.splitStream", Boolean, "false", "log-json-split-stream", LOG_WRITER),
    unused("logging.options.text.infoBufferSize", Any, "0", "log-text-info-buffer-size", LOG_WRITER),
    unused("logging.options.text.splitStream", Boolean, "false", "log-text-split-stream", LOG_WRITER),
    used("logging.verbosity", COUNT, "0", "v", "4 and above log details of every change; $RUST_LOG wins."),
    unused("logging.vmodule", Any, "[]", "vmodule", "use $RUST_LOG, such as weft=debug"),
    used(
        "metricsBindAddress",
        Text,
        "127.0.0.1:10249",
        "metrics-bind-address",
        "Where /metrics, /proxyMode and /configz answer; [::1]:10249 with an IPv6 bindAddress.",
    ),
    used("mode", Text, "", "proxy-mode", "ebpf, nftables or iptables; empty: the first the node can have."),
    used("nftables.masqueradeAll", Boolean, "false", "masquerade-all", "As iptables.masqueradeAll, in nftables mode."),
    used("nftables.masqueradeBit", MARK_BIT, "14", "", "As iptables.masqueradeBit, in nftables mode."),
    unused("nftables.minSyncPeriod", Duration, "1s", "iptables-min-sync-period", AT_ONCE),
    used("nftables.syncPeriod", Duration, "30s", "iptables-sync-period", "As iptables.syncPeriod, in nftables mode."),
    used("nodePortAddresses", Texts, "[]", "nodeport-addresses", "CIDRs NodePorts are accepted at, or [primary]."),
    used("oomScoreAdj", Whole(-1000, 1000), "-999", "oom-score-adj", "How unlike the kernel is to end the agent."),
    unused("portRange", Text, "", "", "kube-proxy ignores it too"),
    unused("showHiddenMetricsForVersion", Text, "", "show-hidden-metrics-for-version", "Weft hides no metrics"),
    unused("windowsRunAsService", Boolean, "false", "", WINDOWS),
    unused("winkernel.enableDSR", Boolean, "false", "", WINDOWS),
    unused("winkernel.forwardHealthCheckVip", Boolean, "false", "", WINDOWS),
    unused("winkernel.networkName", Text, "", "", WINDOWS),
    unused("winkernel.rootHnsEndpointName", Text, "", "", WINDOWS),
    unused("winkernel.sourceVip", Text, "", "", WINDOWS),
];

impl Field {
    /// The default as a value.
    pub(crate) fn default_value(&self) -> Value {
        match self.kind {
            Kind::Text | Kind::Duration => self.default.into(),
            _ => self.value_of(self.default).unwrap_or_else(|| self.default.into()),
        }
    }

    /// The value of a flag's text; `None`: it is not of this kind.
    pub(crate) fn value_of(&self, text: &str) -> Option<Value> {
        match self.kind {
            Kind::Text | Kind::Duration => Some(text.into()),
            // strconv.ParseBool's words.
            Kind::Boolean => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true.into()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false.into()),
                _ => None,
            },
            Kind::Whole(..) => text.parse::<i64>().ok().map(Value::from),
            Kind::Number => text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from)).ok(),
            Kind::Texts if text == "[]" => Some(json!([])),
            Kind::Texts => Some(super::comma_list(text).into()),
            Kind::Any => Some(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
        }
    }

    /// Checks type and range, in kube-proxy's words where it has some.
    ///
    /// # Errors
    /// What is allowed instead.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match self.kind {
            Kind::Any => true,
            Kind::Text => value.is_string(),
            Kind::Boolean => value.is_boolean(),
            Kind::Number => value.is_number(),
            Kind::Whole(min, max) => value.as_i64().is_some_and(|number| (min..=max).contains(&number)),
            Kind::Duration => value.as_str().is_some_and(|text| super::conntrack::duration(text).is_some()),
            Kind::Texts => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        };
        if fits { Ok(()) } else { Err(self.kind.allowed()) }
    }
}

impl Kind {
    /// What a field of this kind accepts, as the end of "must be ...".
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Text => "must be a string".to_owned(),
            Self::Boolean => "must be true or false".to_owned(),
            Self::Whole(min, i64::MAX) => format!("must be greater than or equal to {min}"),
            Self::Whole(min, max) => format!("must be within the range [{min}, {max}]"),
            Self::Number => "must be a number".to_owned(),
            Self::Duration => "must be a duration such as 24h0m0s or 90s, not negative".to_owned(),
            Self::Texts => "must be a list of strings".to_owned(),
            Self::Any => String::new(),
        }
    }
}

/// The field at a path.
pub(crate) fn field(path: &str) -> Option<&'static Field> {
    FIELDS.binary_search_by(|field| field.path.cmp(path)).ok().map(|at| &FIELDS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_good() {
        assert!(FIELDS.is_sorted_by_key(|field| field.path));
        for known in FIELDS {
            assert_eq!(known.check(&known.default_value()), Ok(()), "{}", known.path);
            assert_eq!(field(known.path).map(|field| field.path), Some(known.path));
        }
    }
}
