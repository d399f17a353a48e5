//! The configuration as it is written: keys in lower case, null nowhere.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{bandwidth::Rates, dns::RuntimeDns, host_port::PortMapBackend, ipam::RangeConfig, result::RouteConfig};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(super) struct Body {
    pub(super) mtu: u32,
    pub(super) subnetfile: Option<PathBuf>,
    pub(super) datadir: Option<PathBuf>,
    pub(super) sharedwith: Vec<PathBuf>,
    pub(super) overlaydevice: Option<String>,
    pub(super) ipam: Option<Value>,
    pub(super) dns: Option<Value>,
    pub(super) args: ArgsSection,
    pub(super) runtimeconfig: RuntimeConfig,
    pub(super) prevresult: Option<Value>,
    /// Of the reference plugin portmap: whether clients that could not be answered otherwise are masqueraded, and all.
    pub(super) snat: Option<bool>,
    pub(super) masqall: bool,
    pub(super) backend: Option<PortMapBackend>,
    pub(super) capabilities: Capabilities,
    #[serde(flatten)]
    pub(super) rates: Rates,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Value>,
    /// Another name libcni sends the same under.
    #[serde(rename = "cni.dev/attachments")]
    pub(super) attachments: Option<Value>,
}

/// What the runtime is to pass in `runtimeConfig`; it stays in the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(super) struct Capabilities {
    pub(super) portmappings: bool,
}

/// An attachment as GC is told of it; keys are in lower case by then.
#[derive(Debug, Deserialize)]
pub(super) struct AttachmentEntry {
    pub(super) containerid: String,
    pub(super) ifname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(super) struct HostLocal {
    pub(super) datadir: Option<PathBuf>,
    pub(super) resolvconf: Option<PathBuf>,
    pub(super) ranges: Vec<Vec<RangeConfig>>,
    pub(super) routes: Vec<RouteConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ArgsSection {
    pub(super) cni: PodArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodArgs {
    pub(super) ips: Vec<String>,
    pub(super) mac: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(super) struct RuntimeConfig {
    pub(super) ips: Vec<String>,
    pub(super) mac: Option<String>,
    pub(super) ipranges: Vec<Vec<RangeConfig>>,
    pub(super) dns: RuntimeDns,
    pub(super) portmappings: Option<Value>,
    pub(super) bandwidth: Option<Value>,
}

/// Go's decoder takes keys in any case and null for any type, and containerd makes use of both (R1.8).
pub(crate) fn normalise(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let known = object.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(key, value)| (key.to_ascii_lowercase(), normalise(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().filter(|item| !item.is_null()).map(normalise).collect(),
        other => other,
    }
}
