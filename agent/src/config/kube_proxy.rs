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
    "clusterCIDR",
    "configSyncPeriod",
    "conntrack",
    "detectLocal",
    "detectLocalMode",
    "enableProfiling",
    "featureGates",
    "healthzBindAddress",
    "iptables",
    "ipvs",
    "kind",
    "logging",
    "metricsBindAddress",
    "nftables",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "windowsRunAsService",
    "winkernel",
];

/// What Weft takes from the file.
#[derive(Debug, Default, PartialEq)]
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
        let file = Self {
            path: path.to_owned(),
            mode: reader.string("/mode").unwrap_or_default(),
            hostname_override: reader.string("/hostnameOverride"),
            node_port_addresses: reader.strings("/nodePortAddresses"),
            kubeconfig: reader.string("/clientConnection/kubeconfig").filter(|path| !path.is_empty()).map(Into::into),
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
        match self.value.pointer(pointer)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => {
                self.mistake(pointer, &other.clone(), "must be a string");
                None
            }
        }
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
        let heeded = ["mode", "hostnameOverride", "nodePortAddresses", "clientConnection"];
        let fields = self.value.as_object().into_iter().flat_map(|fields| fields.keys());
        for field in
            fields.filter(|field| !heeded.contains(&field.as_str()) && !WITHOUT_EFFECT.contains(&field.as_str()))
        {
            warn!(file = %self.path.display(), field, "unknown field of KubeProxyConfiguration, ignored");
        }
    }
}
