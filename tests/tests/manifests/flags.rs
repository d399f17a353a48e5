//! The agent takes the arguments of each overlay, with the ConfigMaps that the pod would have, and listens where the
//! probes ask.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weft_tests::Binaries;

use crate::render::{OVERLAYS, only, overlay};

/// What kubeadm 1.32 writes, without the fields that are empty in it.
const KUBEADM_CONFIG: &str = "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: '', burst: 0, contentType: '', kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}
detectLocalMode: ''
enableProfiling: false
healthzBindAddress: ''
hostnameOverride: ''
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}, text: {infoBufferSize: '0'}}, verbosity: 0}
metricsBindAddress: ''
mode: ''
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ''
showHiddenMetricsForVersion: ''
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: '', rootHnsEndpointName: '', sourceVip: ''}
";

/// The ConfigMaps and the Secret of the cluster that an overlay is for, by name and key; kubeadm's and flannel's.
fn of_the_cluster(name: &str) -> BTreeMap<String, String> {
    let files: &[(&str, &str)] = match name {
        "kube-proxy" => &[("config.conf", KUBEADM_CONFIG), ("kubeconfig.conf", "apiVersion: v1\nkind: Config\n")],
        "kube-flannel-cfg" => &[
            ("cni-conf.json", "{\"name\": \"cbr0\"}"),
            (
                "net-conf.json",
                "{\"Network\": \"10.244.0.0/16\", \"EnableNFTables\": false, \"Backend\": {\"Type\": \"vxlan\"}}",
            ),
        ],
        "weft-etcd" => &[("ca.crt", ""), ("tls.crt", ""), ("tls.key", "")],
        _ => &[],
    };
    files.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A pod of the overlay, with its files below a directory of this machine.
pub(crate) struct Pod {
    pub(crate) spec: Value,
    root: TempDir,
    /// Mount points of files, whose paths are other ones here.
    moved: Vec<String>,
}

impl Pod {
    pub(crate) fn of(name: &str) -> Result<Self> {
        let all = overlay(name)?;
        let spec = only(&all, "DaemonSet")?["spec"]["template"]["spec"].clone();
        let mut pod = Self { spec, root: TempDir::new()?, moved: Vec::new() };
        let mut files = Vec::new();
        for mount in pod.mounts() {
            let volume = pod.volume(&mount)?;
            let source = [&volume["configMap"]["name"], &volume["secret"]["secretName"]];
            let Some(source) = source.into_iter().find_map(Value::as_str) else { continue };
            let own = all.iter().find(|o| o["kind"] == "ConfigMap" && o["metadata"]["name"] == source);
            let content = match own {
                Some(own) => serde_json::from_value(own["data"].clone())?,
                None => of_the_cluster(source),
            };
            ensure!(!content.is_empty(), "{source} is neither in the overlay nor in the cluster it is for");
            let at = mount["mountPath"].as_str().context("mountPath")?.to_owned();
            files.push((at.clone(), content));
            pod.moved.push(at);
        }
        for (at, content) in files {
            let directory = pod.root.path().join(at.trim_start_matches('/'));
            fs::create_dir_all(&directory)?;
            for (key, text) in content {
                fs::write(directory.join(key), pod.here(&text))?;
            }
        }
        Ok(pod)
    }

    pub(crate) fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }

    pub(crate) fn mounts(&self) -> Vec<Value> {
        self.container()["volumeMounts"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn volume(&self, mount: &Value) -> Result<Value> {
        let mut volumes = self.spec["volumes"].as_array().into_iter().flatten();
        let found = volumes.find(|volume| volume["name"] == mount["name"]);
        found.cloned().with_context(|| format!("no volume {}", mount["name"]))
    }

    /// Arguments as written.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let written = self.container()["args"].as_array().into_iter().flatten();
        written.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A text with the paths of the pod as those of this machine.
    fn here(&self, text: &str) -> String {
        let root = self.root.path().display();
        self.moved.iter().fold(text.to_owned(), |text, path| text.replace(path, &format!("{root}{path}")))
    }

    /// The effective configuration of its agent.
    pub(crate) fn configuration(&self) -> Result<Value> {
        let mut arguments: Vec<String> = self
            .arguments()
            .into_iter()
            .map(|argument| self.here(&argument).replace("$(NODE_NAME)", "n1"))
            .filter(|argument| !argument.starts_with("--cgroup-root="))
            .collect();
        arguments.splice(1..1, ["--print-config".to_owned(), "-ojson".to_owned()]);
        let output = Command::new(Binaries::locate()?.agent).args(&arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "weft {arguments:?}: {errors}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// A value that `--print-config` shows.
pub(crate) fn effective<'a>(configuration: &'a Value, part: &str, name: &str) -> Result<&'a str> {
    configuration[part][name].as_str().with_context(|| format!("--print-config shows no {part}: {name}"))
}

#[test]
fn the_agent_takes_the_arguments_of_every_overlay() -> Result<()> {
    for name in OVERLAYS {
        let pod = Pod::of(name)?;
        pod.configuration().with_context(|| format!("overlay {name}"))?;
        let variables = pod.container()["env"].as_array().context("env")?;
        ensure!(
            variables[0]["name"] == "NODE_NAME"
                && pod.arguments().contains(&"--hostname-override=$(NODE_NAME)".to_owned())
        );
    }
    Ok(())
}

#[test]
fn probes_and_ports_are_those_of_the_agent() -> Result<()> {
    for name in OVERLAYS {
        let pod = Pod::of(name)?;
        let configuration = pod.configuration()?;
        let container = pod.container();
        let port = |field: &str| -> Result<u64> {
            let address = effective(&configuration, "kubeProxyConfiguration", field)?;
            let port = address.rsplit_once(':').with_context(|| format!("{name}: {field} is {address:?}"))?.1;
            Ok(port.parse()?)
        };
        let (healthz, metrics) = (port("healthzBindAddress")?, port("metricsBindAddress")?);
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let asked = &container[probe]["httpGet"];
            ensure!(asked["port"] == healthz && asked["path"] == path, "{name}: {probe} asks {asked}");
        }
        for (port, number) in [("healthz", healthz), ("metrics", metrics)] {
            let mut ports = container["ports"].as_array().context("ports")?.iter();
            let found = ports.find(|found| found["name"] == port).with_context(|| format!("{name}: port {port}"))?;
            ensure!(found["containerPort"] == number, "{name}: {port} is {found}");
        }
    }
    Ok(())
}
