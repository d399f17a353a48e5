//! A container runtime as libcni makes one: a list of plugins, results passed on, a cache of the last result.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::{Node, Outcome, PLUGIN, PLUGINS, Pod};

/// A network of a runtime on a node.
pub(crate) struct Runtime<'a> {
    pub(crate) node: &'a Node,
    pub(crate) version: &'static str,
    /// In the order of ADD.
    pub(crate) plugins: Vec<Value>,
    /// What capabilities pass, by plugin type.
    pub(crate) runtime_config: Value,
}

impl Runtime<'_> {
    /// ADD of all plugins. As go-cni does, a failure is answered with DEL, without a result.
    pub(crate) fn add(&self, pod: &Pod) -> Result<Value, (u64, String)> {
        let mut previous = None;
        for plugin in &self.plugins {
            let outcome = self.call("ADD", plugin, pod, &pod.path(), previous.as_ref());
            if !outcome.success {
                let _ = self.del(pod, &pod.path(), None);
                return Err(outcome.error());
            }
            previous = Some(outcome.json());
        }
        Ok(previous.unwrap())
    }

    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Vec<Outcome> {
        self.plugins.iter().map(|plugin| self.call("CHECK", plugin, pod, &pod.path(), Some(result))).collect()
    }

    /// DEL of all plugins, the last first; stops at a failure, as libcni does.
    pub(crate) fn del(&self, pod: &Pod, netns: &str, result: Option<&Value>) -> Result<(), String> {
        for plugin in self.plugins.iter().rev() {
            let outcome = self.call("DEL", plugin, pod, netns, result);
            if !outcome.success {
                return Err(format!("{outcome:?}"));
            }
        }
        Ok(())
    }

    /// What containerd does to a sandbox that ends: once with all it knows, then twice more with nothing.
    pub(crate) fn stop_and_remove(&self, pod: &Pod, result: &Value) {
        self.del(pod, &pod.path(), Some(result)).unwrap();
        self.del(pod, "", None).unwrap();
        self.del(pod, "", None).unwrap();
    }

    fn call(&self, command: &str, plugin: &Value, pod: &Pod, netns: &str, previous: Option<&Value>) -> Outcome {
        let kind = plugin["type"].as_str().unwrap();
        let mut config = plugin.clone();
        let members = config.as_object_mut().unwrap();
        members.insert("cniVersion".into(), json!(self.version));
        members.insert("name".into(), json!("weft"));
        if let Some(runtime_config) = self.runtime_config.get(kind) {
            members.insert("runtimeConfig".into(), runtime_config.clone());
        }
        members.extend(previous.map(|previous| ("prevResult".to_owned(), previous.clone())));
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &pod.id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", PLUGINS),
            ("CNI_ARGS", "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"),
            // Debian's portmap looks for iptables.
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ];
        self.node.exec_plugin(&executable(kind), &variables, config.to_string().as_bytes())
    }
}

fn executable(kind: &str) -> PathBuf {
    if kind == "weft-cni" { PLUGIN.into() } else { Path::new(PLUGINS).join(kind) }
}
