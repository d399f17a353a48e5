//! Configuration of subnet leases: flanneld's flags.

use std::{path::PathBuf, time::Duration};

use weft_overlay::{AnnotationPrefix, ClientCertificate, EtcdConfig, EtcdUser};

use super::{KubeAccess, Mistakes, comma_list, readable};
use crate::cli::{AgentArgs, LeaseArgs};

/// Where flanneld takes the password from if no flag gives it: a command line can be read by everybody on the node.
const PASSWORD_VARIABLE: &str = "FLANNELD_ETCD_PASSWORD";

/// Who hands out pod subnets (`--subnet-manager`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubnetManager {
    /// The Kubernetes API.
    Kube(KubeLeaseAccess),
    /// etcd.
    Etcd(EtcdConfig),
    /// A directory shared by the agents of one machine.
    Dir(PathBuf),
}

/// Leases in the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KubeLeaseAccess {
    /// How to reach it.
    pub(crate) access: KubeAccess,
    /// What annotation keys start with.
    pub(crate) annotation_prefix: AnnotationPrefix,
    /// Whether the Node's condition NetworkUnavailable is kept.
    pub(crate) set_network_unavailable: bool,
}

/// Reads the flags. Those of the managers that are not chosen have no effect and are not looked at, as in flanneld.
pub(super) fn read(args: &AgentArgs, access: KubeAccess, mistakes: &mut Mistakes) -> Option<SubnetManager> {
    let flags = &args.leases;
    let manager = flags.subnet_manager.as_deref().unwrap_or("kube");
    if flags.kube_subnet_mgr && manager != "kube" {
        mistakes.add("--kube-subnet-mgr", "true", format!("contradicts --subnet-manager={manager}"));
    }
    match (manager, manager.strip_prefix("dir:")) {
        ("kube", _) => kube(args, access, mistakes).map(SubnetManager::Kube),
        ("etcd", _) => etcd(flags, mistakes).map(SubnetManager::Etcd),
        (_, Some(path)) if !path.is_empty() => Some(SubnetManager::Dir(path.into())),
        _ => {
            mistakes.add("--subnet-manager", manager, "must be kube, etcd or dir:PATH");
            None
        }
    }
}

fn kube(args: &AgentArgs, access: KubeAccess, mistakes: &mut Mistakes) -> Option<KubeLeaseAccess> {
    // With --source=kube the file has been looked at already.
    if let Some(path) = access.kubeconfig.as_deref().filter(|_| args.source != "kube") {
        readable("--kubeconfig", path, mistakes);
    }
    let prefix = &args.leases.kube_annotation_prefix;
    let annotation_prefix = mistakes.check("--kube-annotation-prefix", prefix, prefix.parse())?;
    let set_network_unavailable = args.leases.set_node_network_unavailable;
    Some(KubeLeaseAccess { access, annotation_prefix, set_network_unavailable })
}

fn etcd(flags: &LeaseArgs, mistakes: &mut Mistakes) -> Option<EtcdConfig> {
    let (endpoints, tls) = endpoints(flags, mistakes);
    if flags.etcd_prefix.trim_matches('/').is_empty() {
        mistakes.add("--etcd-prefix", &flags.etcd_prefix, "must name a place such as /coreos.com/network");
    }
    let files = [
        ("--etcd-cafile", &flags.etcd_cafile),
        ("--etcd-certfile", &flags.etcd_certfile),
        ("--etcd-keyfile", &flags.etcd_keyfile),
    ];
    for (flag, path) in files.iter().filter_map(|(flag, path)| Some((*flag, path.as_deref()?))) {
        readable(flag, path, mistakes);
        if !tls {
            mistakes.add(flag, path.display(), "needs --etcd-endpoints with https://");
        }
    }
    let client_certificate = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
        (Some(certificate), Some(key)) => {
            Some(ClientCertificate { certificate_file: certificate.clone(), key_file: key.clone() })
        }
        (None, None) => None,
        (Some(_), None) => {
            mistakes.add("--etcd-keyfile", "", "is needed with --etcd-certfile");
            None
        }
        (None, Some(_)) => {
            mistakes.add("--etcd-certfile", "", "is needed with --etcd-keyfile");
            None
        }
    };
    let user = user(flags, mistakes);
    let minutes = mistakes.whole("--subnet-lease-renew-margin", &flags.subnet_lease_renew_margin, 1..=1439);
    Some(EtcdConfig {
        endpoints,
        prefix: flags.etcd_prefix.clone(),
        ca_file: flags.etcd_cafile.clone(),
        client_certificate,
        user,
        renew_margin: Duration::from_secs(minutes? * 60),
    })
}

/// The members, and whether they speak TLS.
fn endpoints(flags: &LeaseArgs, mistakes: &mut Mistakes) -> (Vec<String>, bool) {
    let flag = "--etcd-endpoints";
    let endpoints = comma_list(&flags.etcd_endpoints);
    if endpoints.is_empty() {
        mistakes.add(flag, &flags.etcd_endpoints, "names no endpoint");
    }
    let mut tls = 0;
    for endpoint in &endpoints {
        match endpoint.split_once("://") {
            Some(("http", host)) if !host.is_empty() => {}
            Some(("https", host)) if !host.is_empty() => tls += 1,
            _ => mistakes.add(flag, endpoint, "must be a URL such as https://192.0.2.1:2379"),
        }
    }
    if tls != 0 && tls != endpoints.len() {
        mistakes.add(flag, &flags.etcd_endpoints, "must be all http:// or all https://");
    }
    (endpoints, tls > 0)
}

fn user(flags: &LeaseArgs, mistakes: &mut Mistakes) -> Option<EtcdUser> {
    let from_environment = || std::env::var(PASSWORD_VARIABLE).ok();
    let password = flags.etcd_password.clone().or_else(from_environment).filter(|password| !password.is_empty());
    match (flags.etcd_username.clone().filter(|name| !name.is_empty()), password) {
        (Some(name), Some(password)) => Some(EtcdUser { name, password }),
        (None, None) => None,
        (Some(name), None) => {
            mistakes.add("--etcd-username", name, format!("needs --etcd-password or ${PASSWORD_VARIABLE}"));
            None
        }
        (None, Some(_)) => {
            // Not the value: mistakes are logged.
            mistakes.add("--etcd-password", "", "needs --etcd-username");
            None
        }
    }
}

#[cfg(test)]
mod tests;
