//! Configuration: flags and files, checked once into an immutable [`Config`]; all mistakes are reported together.

mod conntrack;
mod document;
mod fields;
mod kube_proxy;
mod leases;
mod mistakes;
mod outline;
mod overlay;
mod packets;
mod parts;
mod proxy;
pub(crate) mod reload;
mod servers;
mod settings;

use std::{fs, path::Path};

use tracing::info;

use crate::cli::{AgentArgs, PathArgs, REFUSED};
pub(crate) use fields::{Effect, FIELDS, Kind};
use kube_proxy::KubeProxyFile;
pub(crate) use leases::SubnetManager;
pub(crate) use mistakes::{Mistake, Mistakes};
pub(crate) use outline::Outline;
pub(crate) use overlay::OverlayConfig;
pub(crate) use parts::{Components, KubeAccess, SourceKind};
pub(crate) use proxy::{NodePortAddresses, ProxyConfig, ProxyMode};
pub(crate) use servers::{LogConfig, ServersConfig};
pub(crate) use settings::{Origin, Settings, insert};

/// Everything the agent was asked to do, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Lower-case name of this node.
    pub(crate) node_name: String,
    /// Parts that run.
    pub(crate) components: Components,
    /// Where objects come from.
    pub(crate) source: SourceKind,
    /// Services.
    pub(crate) proxy: ProxyConfig,
    /// Pod network; `None` when the component is off.
    pub(crate) overlay: Option<OverlayConfig>,
    /// Health and metrics.
    pub(crate) servers: ServersConfig,
    /// The log.
    pub(crate) log: LogConfig,
    /// How unlike the kernel is to end the agent, -1000 to 1000.
    pub(crate) oom_score_adj: i64,
    /// Where files go.
    pub(crate) paths: PathArgs,
    /// The effective KubeProxyConfiguration, each value with where it came from.
    pub(crate) settings: Settings,
    /// What is no mistake, but worth to be said once.
    pub(crate) notices: Vec<String>,
}

impl Config {
    /// Checks flags and the files they name.
    ///
    /// # Errors
    /// All mistakes; nothing on the node was changed.
    pub(crate) fn load(args: &AgentArgs) -> Result<Self, Vec<Mistake>> {
        Outline::read(args).complete(args)
    }

    /// Logs the effective configuration, a line a part.
    pub(crate) fn announce(&self) {
        let Config { node_name, components, source, proxy, overlay, paths, servers, .. } = self;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            node = node_name,
            components = components.names().join(","),
            "starting"
        );
        info!(run = %paths.run_dir.display(), state = %paths.state_dir.display(), "directories");
        info!(?servers, "health and metrics");
        if components.proxy {
            info!(?source, ?proxy, "Services");
        }
        if let Some(overlay) = overlay {
            info!(?overlay, subnet_file = %paths.subnet_file.display(), "pod network");
        }
        if components.cni {
            info!(conf = %paths.cni_conf_dir.display(), bin = %paths.cni_bin_dir.display(), "CNI");
        }
    }
}

/// Flags of what Weft does not have.
fn refuse(args: &AgentArgs, mistakes: &mut Mistakes) {
    for (name, _, why) in REFUSED {
        if let Some(value) = args.given.value(name) {
            mistakes.add(format!("--{name}"), value, *why);
        }
    }
}

fn kube_access(args: &AgentArgs, file: &KubeProxyFile) -> KubeAccess {
    KubeAccess {
        kubeconfig: args.kube.kubeconfig.clone().or_else(|| file.kubeconfig.clone()),
        master: args.kube.master.clone(),
        trust_empty_lists: args.kube.trust_empty_lists,
    }
}

fn source(args: &AgentArgs, access: KubeAccess, mistakes: &mut Mistakes) -> Option<SourceKind> {
    let source = mistakes.check("--source", &args.source, SourceKind::parse(&args.source, access))?;
    match &source {
        SourceKind::Dir(path) => {
            if let Err(error) = fs::read_dir(path) {
                mistakes.add("--source", &args.source, format!("cannot list the directory: {error}"));
            }
        }
        SourceKind::Kube(access) => {
            if let Some(path) = &access.kubeconfig {
                readable("--kubeconfig", path, mistakes);
            }
        }
    }
    Some(source)
}

/// kube-proxy's rule (14.1), with flannel's `NODE_NAME` in between.
fn node_name(
    args: &AgentArgs,
    file: &KubeProxyFile,
    settings: &mut Settings,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let field = "hostnameOverride";
    let from_file = file.hostname_override.clone().filter(|name| !name.trim().is_empty());
    let from_environment = || std::env::var("NODE_NAME").ok().filter(|name| !name.trim().is_empty());
    let from_host = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let (name, origin) = if let Some(name) = &args.hostname_override {
        (name.clone(), settings.get(field).origin.clone())
    } else if let Some(name) = from_file {
        (name, settings.get(field).origin.clone())
    } else if let Some(name) = from_environment() {
        (name, Origin::Environment("NODE_NAME".to_owned()))
    } else {
        (from_host().unwrap_or_default(), Origin::Detected("name of the host"))
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        let problem = if args.hostname_override.is_some() {
            "must not be empty"
        } else {
            "the host has no name; give the node's name here"
        };
        mistakes.add("--hostname-override", "", problem);
        return None;
    }
    settings.set(field, name.clone(), origin);
    Some(name)
}

fn readable(origin: &str, path: &Path, mistakes: &mut Mistakes) -> Option<String> {
    fs::read_to_string(path)
        .map_err(|error| mistakes.add(origin, path.display(), format!("cannot be read: {error}")))
        .ok()
}

fn comma_list(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod drop_in;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
