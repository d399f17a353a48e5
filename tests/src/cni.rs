//! The part of a container runtime that calls CNI plugins (what libcni does).

use std::{
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::Place;

/// A network configuration list.
#[derive(Clone, Debug)]
pub(crate) struct ConfList {
    name: Value,
    version: Value,
    plugins: Vec<Map<String, Value>>,
    /// What the pod wishes by capabilities of plugins; null if nothing.
    runtime_config: Value,
}

impl ConfList {
    /// Reads the first conflist by name, as containerd does.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let mut paths: Vec<PathBuf> = fs::read_dir(directory)
            .with_context(|| format!("list {}", directory.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "conflist"))
            .collect();
        paths.sort();
        let Some(path) = paths.first() else {
            bail!("no conflist in {}: the agent has not written it", directory.display());
        };
        let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let list: Value = serde_json::from_slice(&text).context(path.display().to_string())?;
        let plugins = list["plugins"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            name: list["name"].clone(),
            version: list["cniVersion"].clone(),
            plugins: plugins.into_iter().filter_map(|plugin| plugin.as_object().cloned()).collect(),
            runtime_config: Value::Null,
        })
    }

    /// The same for a pod with such wishes.
    pub(crate) fn with_runtime_config(self, runtime_config: Value) -> Self {
        Self { runtime_config, ..self }
    }

    /// Calls ADD of every plugin in the network namespace of `node`.
    pub(crate) fn add(
        self,
        node: &Place,
        bin_directory: &Path,
        container_id: &str,
        pod: &str,
        netns: &Path,
    ) -> Result<Attachment> {
        let mut attachment = Attachment {
            conf: self,
            node: node.clone(),
            bin_directory: bin_directory.to_owned(),
            container_id: container_id.to_owned(),
            pod: pod.to_owned(),
            netns: netns.to_owned(),
            result: Value::Null,
        };
        for plugin in attachment.conf.plugins.clone() {
            let output = attachment.call("ADD", &plugin)?;
            attachment.result = serde_json::from_str(&output).with_context(|| format!("result {output:?}"))?;
        }
        Ok(attachment)
    }
}

/// A pod's connection to the network: what a runtime remembers between ADD and DEL.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    conf: ConfList,
    node: Place,
    bin_directory: PathBuf,
    container_id: String,
    pod: String,
    netns: PathBuf,
    result: Value,
}

impl Attachment {
    /// The addresses of the result, without prefix lengths.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>> {
        let ips = self.result["ips"].as_array().cloned().unwrap_or_default();
        ips.iter()
            .map(|ip| {
                let text = ip["address"].as_str().unwrap_or_default();
                let address = text.split('/').next().unwrap_or_default();
                address.parse().with_context(|| format!("address {text:?} in the result"))
            })
            .collect()
    }

    /// Calls DEL of every plugin, the last one first, with the result of ADD as prevResult.
    pub(crate) fn del(&self) -> Result<()> {
        for plugin in self.conf.plugins.iter().rev() {
            self.call("DEL", plugin)?;
        }
        Ok(())
    }

    fn call(&self, verb: &str, plugin: &Map<String, Value>) -> Result<String> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let program = self.bin_directory.join(kind);
        let mut command = self.node.command(&program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", self.pod))
            .env("CNI_PATH", &self.bin_directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {kind}"))?;
        let mut stdin = child.stdin.take().context("stdin of the plugin")?;
        // A plugin that died before reading reports below.
        let _ = stdin.write_all(self.configuration(plugin).to_string().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("wait for {kind}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{kind} {verb}: {}\n{}\n{}", output.status, text.trim(), stderr.trim())
    }

    /// The plugin's object with name, version and, once there is one, the previous result.
    fn configuration(&self, plugin: &Map<String, Value>) -> Value {
        let mut conf = plugin.clone();
        conf.insert("name".into(), self.conf.name.clone());
        conf.insert("cniVersion".into(), self.conf.version.clone());
        if !self.conf.runtime_config.is_null() {
            conf.insert("runtimeConfig".into(), self.conf.runtime_config.clone());
        }
        if !self.result.is_null() {
            conf.insert("prevResult".into(), self.result.clone());
        }
        Value::Object(conf)
    }
}
