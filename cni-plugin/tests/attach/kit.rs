//! A node and its pods as network namespaces, and the plugin run as a runtime runs it.

use std::{
    fs,
    io::Write,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use weft_netlink::{Netlink, Netns};

/// What is tested.
pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_weft-cni");

/// Where Debian puts the plugins of package containernetworking-plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// A node: a namespace and the directories of its plugin.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    files: TempDir,
}

/// A pod's sandbox.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: Netns,
}

/// What a run of the plugin came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The one JSON document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The result of a command that must have succeeded.
    pub(crate) fn result(&self) -> Value {
        assert!(self.success, "{self:?}");
        self.json()
    }

    /// Code and message of a command that must have failed.
    pub(crate) fn error(&self) -> (u64, String) {
        assert!(!self.success, "{self:?}");
        let error = self.json();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        let pod = Self { id: id.to_owned(), netns: Netns::create().unwrap() };
        let netlink = pod.netlink();
        netlink.set_up(netlink.link_by_name("lo").unwrap().unwrap().index).unwrap();
        pod
    }

    /// A path others can open the namespace by, for as long as this pod lives.
    pub(crate) fn path(&self) -> String {
        path_of(&self.netns)
    }

    pub(crate) fn netlink(&self) -> Netlink {
        self.netns.run(Netlink::open).unwrap().unwrap()
    }
}

pub(crate) fn path_of(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

impl Node {
    pub(crate) fn new(subnet_env: &str) -> Self {
        let node = Self { netns: Netns::create().unwrap(), files: TempDir::new().unwrap() };
        fs::write(node.files.path().join("subnet.env"), subnet_env).unwrap();
        node
    }

    pub(crate) fn v4() -> Self {
        Self::new(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        )
    }

    pub(crate) fn v6() -> Self {
        Self::new("FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\nFLANNEL_MTU=1430\n")
    }

    pub(crate) fn dual_stack() -> Self {
        Self::new("FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd44:0:0:1::1/64\nFLANNEL_MTU=1430\n")
    }

    /// The configuration the agent writes, in a version.
    pub(crate) fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "weft",
            "type": "weft-cni",
            "subnetFile": self.files.path().join("subnet.env"),
            "dataDir": self.files.path().join("networks"),
        })
    }

    /// The configuration with an object's members in it.
    pub(crate) fn config_with(&self, version: &str, members: Value) -> Value {
        let mut config = self.config(version);
        config.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        config
    }

    /// The directory of the node's files, for a test's own.
    pub(crate) fn directory(&self) -> &Path {
        self.files.path()
    }

    /// Directory of the reservations.
    pub(crate) fn store(&self) -> PathBuf {
        self.files.path().join("networks/weft")
    }

    /// The reserved addresses, sorted by name.
    pub(crate) fn reserved(&self) -> Vec<String> {
        let Ok(listing) = fs::read_dir(self.store()) else { return Vec::new() };
        let names = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut addresses: Vec<_> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
        addresses.sort();
        addresses
    }

    /// All files of the network's directory, sorted by name.
    pub(crate) fn store_files(&self) -> Vec<String> {
        let listing = fs::read_dir(self.store()).unwrap();
        let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn netlink(&self) -> Netlink {
        self.netns.run(Netlink::open).unwrap().unwrap()
    }

    /// Names of the veths on the node.
    pub(crate) fn veths(&self) -> Vec<String> {
        let links = self.netlink().links().unwrap();
        links.into_iter().map(|link| link.name).filter(|name| name.starts_with("veth")).collect()
    }

    pub(crate) fn add(&self, pod: &Pod) -> Outcome {
        self.run("ADD", pod, &self.config("1.0.0"), &[])
    }

    pub(crate) fn del(&self, pod: &Pod) -> Outcome {
        self.run("DEL", pod, &self.config("1.0.0"), &[])
    }

    /// Runs a command for `eth0` of a pod; `extra` variables override the usual ones.
    pub(crate) fn run(&self, command: &str, pod: &Pod, config: &Value, extra: &[(&str, &str)]) -> Outcome {
        let path = pod.path();
        let mut variables = vec![
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &pod.id),
            ("CNI_NETNS", &path),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", PLUGINS),
        ];
        variables.extend_from_slice(extra);
        self.exec(&variables, config.to_string().as_bytes())
    }

    /// Runs the plugin on the node with exactly these variables.
    pub(crate) fn exec(&self, variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
        self.exec_plugin(Path::new(PLUGIN), variables, stdin)
    }

    /// Runs another plugin on the node.
    pub(crate) fn exec_plugin(&self, plugin: &Path, variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
        self.netns.run(|| exec(plugin, variables, stdin)).unwrap()
    }

    /// CHECK of `eth0` with the result of ADD, in the result's version.
    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Outcome {
        let version = result["cniVersion"].as_str().unwrap();
        self.run("CHECK", pod, &self.config_with(version, json!({"prevResult": result})), &[])
    }

    /// GC with these attachments still valid.
    pub(crate) fn gc(&self, valid: &[(&str, &str)]) -> Outcome {
        let list: Vec<_> = valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        self.on_network("GC", &self.config_with("1.1.0", json!({"cni.dev/valid-attachments": list})))
    }

    /// GC or STATUS, which are about no container.
    pub(crate) fn on_network(&self, command: &str, config: &Value) -> Outcome {
        self.exec(&[("CNI_COMMAND", command), ("CNI_PATH", PLUGINS)], config.to_string().as_bytes())
    }
}

/// Starts a plugin with exactly these variables and gives it its configuration.
pub(crate) fn start(plugin: &Path, variables: &[(&str, &str)], stdin: &[u8]) -> Child {
    let mut child = Command::new(plugin)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that fails early does not read: a broken pipe is fine.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child
}

fn exec(plugin: &Path, variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
    let output = start(plugin, variables, stdin).wait_with_output().unwrap();
    Outcome {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The addresses in a result of version 0.3.0 or later, without their lengths.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split_once('/').unwrap().0.to_owned()).collect()
}
