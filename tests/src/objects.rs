//! The Kubernetes objects of a cluster: a directory of manifests, and an API server when the cluster has one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Pod, api_server::ApiServer};

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

/// Manifests, one file a name; each write is atomic. With an API server they are applied there too, as
/// `kubectl apply --prune` would: what a file no longer holds is deleted.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    staging: PathBuf,
    counter: AtomicU64,
    api_server: Option<ApiServer>,
}

impl Manifests {
    pub(crate) fn create(directory: PathBuf, api_server: Option<ApiServer>) -> Result<Self> {
        let staging = directory.with_extension("staging");
        for path in [&directory, &staging] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(Self { directory, staging, counter: AtomicU64::new(0), api_server })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills the API server; agents keep what they have.
    ///
    /// # Errors
    /// It does not run, or the cluster has none.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.as_mut().context("the cluster has no API server")?.kill()
    }

    /// Writes or replaces `file`.
    ///
    /// # Errors
    /// It cannot be written, or the API server refuses it.
    pub fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        let before = self.objects(file)?;
        self.write(file, yaml)?;
        let Some(api_server) = &self.api_server else { return Ok(()) };
        let after = self.objects(file)?;
        after.iter().try_for_each(|object| api_server.apply(object))?;
        let gone = before.iter().filter(|old| !after.iter().any(|new| is_same(old, new)));
        gone.into_iter().try_for_each(|object| api_server.delete(object))
    }

    /// Applies one object at the API server alone, for changes whose time is taken.
    ///
    /// # Errors
    /// The API server refuses it, or the cluster has none.
    pub fn apply_object(&self, object: &Value) -> Result<()> {
        self.api_server.as_ref().context("the cluster has no API server")?.apply(object)
    }

    /// An object as the API server has it now, by the kind and the name of `object`.
    ///
    /// # Errors
    /// It is not there, or the cluster has no API server.
    pub fn get(&self, object: &Value) -> Result<Value> {
        self.api_server.as_ref().context("the cluster has no API server")?.get(object)
    }

    /// Starts a killed API server again, with all objects; the versions of the small one count from 1 again.
    ///
    /// # Errors
    /// It does not come up, or the cluster has none.
    pub fn restart_api_server(&mut self) -> Result<()> {
        self.api_server.as_mut().context("the cluster has no API server")?.restart_with_objects(&self.directory)
    }

    /// Starts a killed API server again, with all objects, and with resource versions from `version` on.
    ///
    /// # Errors
    /// It does not come up, or the cluster has none.
    pub fn restart_api_server_from(&mut self, version: u64) -> Result<()> {
        let load = self.directory.display().to_string();
        let api_server = self.api_server.as_mut().context("the cluster has no API server")?;
        api_server.restart(&["--load", &load, "--first-version", &version.to_string()])
    }

    /// Starts a killed API server again without any object, as from an empty backup, but with newer resource versions.
    ///
    /// # Errors
    /// It does not come up, or the cluster has none.
    pub fn restart_api_server_empty(&mut self) -> Result<()> {
        self.api_server.as_mut().context("the cluster has no API server")?.restart(&["--first-version", "1000000"])
    }

    /// Starts a killed API server again, with all objects; from now on it wants the bearer token that `file` holds.
    ///
    /// # Errors
    /// It does not come up, or the cluster has none.
    pub fn restart_api_server_with_token(&mut self, file: &Path) -> Result<()> {
        let (load, file) = (self.directory.display().to_string(), file.display().to_string());
        let api_server = self.api_server.as_mut().context("the cluster has no API server")?;
        api_server.restart(&["--load", &load, "--token-file", &file])
    }

    /// Starts a killed API server again, with all objects; what it is asked for from now on is written to `file`, a line a
    /// request: verb, API group, resource.
    ///
    /// # Errors
    /// It does not come up, or the cluster has none.
    pub fn restart_api_server_with_audit(&mut self, file: &Path) -> Result<()> {
        let (load, file) = (self.directory.display().to_string(), file.display().to_string());
        let api_server = self.api_server.as_mut().context("the cluster has no API server")?;
        api_server.restart(&["--load", &load, "--audit", &file])
    }

    /// Makes the API server misbehave from now on: the fields are those of `tests/api-server/src/faults.rs`.
    ///
    /// # Errors
    /// It does not answer, or the cluster has none.
    pub fn api_server_faults(&self, faults: &Value) -> Result<()> {
        self.api_server.as_ref().context("the cluster has no API server")?.set_faults(faults)
    }

    /// The objects in a file; none if there is no such file, or no API server that would want them.
    fn objects(&self, file: &str) -> Result<Vec<Value>> {
        let path = self.directory.join(file);
        if self.api_server.is_none() || !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("parse {file}"))?;
        Ok(objects.into_iter().filter(Value::is_object).collect())
    }

    fn write(&self, file: &str, yaml: &str) -> Result<()> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.join(format!("{number}-{file}"));
        fs::write(&staged, yaml).with_context(|| format!("write {}", staged.display()))?;
        let path = self.directory.join(file);
        fs::rename(&staged, &path).with_context(|| format!("rename to {}", path.display()))
    }

    /// Removes `file` and its objects.
    ///
    /// # Errors
    /// It is not there.
    pub fn delete(&self, file: &str) -> Result<()> {
        if let Some(api_server) = &self.api_server {
            self.objects(file)?.iter().try_for_each(|object| api_server.delete(object))?;
        }
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

/// Whether two objects have the same kind, namespace and name.
fn is_same(one: &Value, other: &Value) -> bool {
    ["/kind", "/metadata/namespace", "/metadata/name"]
        .iter()
        .all(|pointer| one.pointer(pointer) == other.pointer(pointer))
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
