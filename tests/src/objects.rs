//! The directory that agents read Kubernetes objects from.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};

use crate::Pod;

/// A port of an EndpointSlice.
#[derive(Clone, Debug)]
pub struct SlicePort {
    /// Name; empty for an unnamed port.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Port of the pods.
    pub port: u16,
}

impl SlicePort {
    /// One port.
    pub fn new(name: &str, protocol: &str, port: u16) -> Self {
        Self { name: name.to_owned(), protocol: protocol.to_owned(), port }
    }
}

/// Manifests, one file a name; each write is atomic, as `kubectl` would be.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    staging: PathBuf,
    counter: AtomicU64,
}

impl Manifests {
    pub(crate) fn create(directory: PathBuf) -> Result<Self> {
        let staging = directory.with_extension("staging");
        for path in [&directory, &staging] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(Self { directory, staging, counter: AtomicU64::new(0) })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes or replaces `file`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.join(format!("{number}-{file}"));
        fs::write(&staged, yaml).with_context(|| format!("write {}", staged.display()))?;
        let path = self.directory.join(file);
        fs::rename(&staged, &path).with_context(|| format!("rename to {}", path.display()))
    }

    /// Removes `file`.
    ///
    /// # Errors
    /// It is not there.
    pub fn delete(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Makes `pods` the ready endpoints of a Service in namespace `default`: one slice a family, in the
    /// file `endpoints-<service>.yaml`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn endpoints(&self, service: &str, ports: &[SlicePort], pods: &[&Pod]) -> Result<()> {
        let mut yaml = String::new();
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            let addresses: Vec<_> = pods
                .iter()
                .flat_map(|pod| pod.addresses().iter().map(move |address| (pod, address)))
                .filter(|(_, address)| address.is_ipv6() == v6)
                .collect();
            // An IPv4 slice always, so that a Service without endpoints has an empty one.
            if v6 && addresses.is_empty() {
                continue;
            }
            yaml += &slice_head(service, family, ports);
            yaml += if addresses.is_empty() { "endpoints: []\n" } else { "endpoints:\n" };
            for (pod, address) in addresses {
                yaml += &format!(
                    "- addresses: [\"{address}\"]\n  nodeName: {}\n  conditions: {{ready: true}}\n",
                    pod.node()
                );
            }
        }
        self.apply(&format!("endpoints-{service}.yaml"), &yaml)
    }
}

fn slice_head(service: &str, family: &str, ports: &[SlicePort]) -> String {
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
         name: {service}-{}\n  namespace: default\n  labels:\n    \
         kubernetes.io/service-name: {service}\naddressType: {family}\nports:\n",
        family.to_lowercase()
    );
    for port in ports {
        text += &format!("- name: \"{}\"\n  protocol: {}\n  port: {}\n", port.name, port.protocol, port.port);
    }
    text
}
