//! The root file system is read-only, so everything the agent writes is a mount; and what the runtime reads by a path that
//! the agent wrote has the same path on the node.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    flags::{Pod, effective},
    render::OVERLAYS,
};

/// Flags with what a component writes, and whether others on the node use it by the same path.
const WRITTEN: &[(&str, &str, bool)] = &[
    ("proxy", "run-dir", true),
    ("overlay", "run-dir", true),
    ("overlay", "subnet-file", true),
    ("cni", "state-dir", true),
    ("cni", "cni-conf-dir", true),
    ("cni", "cni-bin-dir", true),
    ("proxy", "bpffs", true),
];
/// Where `weft_netlink::sysctl` writes in a container, and what the agent reads the node's cgroups by.
const ALWAYS_FROM: &[(&str, &str, &str)] = &[
    ("proxy", "/host/proc/sys/net", "/proc/sys/net"),
    ("overlay", "/host/proc/sys/net", "/proc/sys/net"),
    ("proxy", "/host/cgroup", "/sys/fs/cgroup"),
    ("proxy", "/run/xtables.lock", "/run/xtables.lock"),
    ("overlay", "/run/xtables.lock", "/run/xtables.lock"),
];

/// The mount that a path lies in, and where that is on the node.
fn mounted(pod: &Pod, path: &str) -> Result<(String, String)> {
    for mount in pod.mounts() {
        let at = mount["mountPath"].as_str().context("mountPath")?;
        if path == at || path.starts_with(&format!("{at}/")) {
            ensure!(mount["readOnly"] != true, "{path} is read-only");
            let host = pod.volume(&mount)?["hostPath"]["path"].as_str().context("no hostPath")?.to_owned();
            return Ok((at.to_owned(), host));
        }
    }
    anyhow::bail!("{path} is on the read-only root")
}

#[test]
fn what_the_agent_writes_is_mounted() -> Result<()> {
    for name in OVERLAYS {
        let pod = Pod::of(name)?;
        let configuration = pod.configuration()?;
        let components = effective(&configuration, "flags", "components")?;
        let runs = |component: &str| components.split(',').any(|running| running == component);
        ensure!(pod.container()["securityContext"]["readOnlyRootFilesystem"] == true, "{name}");
        for (_, flag, same) in WRITTEN.iter().filter(|(component, ..)| runs(component)) {
            let path = effective(&configuration, "flags", flag)?;
            let (at, host) = mounted(&pod, path).with_context(|| format!("{name}: --{flag}={path}"))?;
            ensure!(!same || at == host, "{name}: --{flag} is {host} on the node and {at} in the pod");
        }
        for (_, at, host) in ALWAYS_FROM.iter().filter(|(component, ..)| runs(component)) {
            ensure!(mounted(&pod, at).with_context(|| (*name).to_owned())?.1 == *host, "{name}: {at}");
        }
    }
    Ok(())
}

#[test]
fn no_mount_and_no_volume_is_without_use() -> Result<()> {
    for name in OVERLAYS {
        let pod = Pod::of(name)?;
        for mount in pod.mounts() {
            pod.volume(&mount).with_context(|| (*name).to_owned())?;
        }
        for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
            ensure!(pod.mounts().iter().any(|mount| mount["name"] == volume["name"]), "{name}: {volume}");
        }
        // Of files that the pod has, arguments name only those.
        for argument in pod.arguments() {
            let Some(path) = argument.split_once('=').map(|(_, value)| value).filter(|value| value.starts_with('/'))
            else {
                continue;
            };
            let known = |mount: &Value| mount["mountPath"].as_str().is_some_and(|at| path.starts_with(at));
            ensure!(pod.mounts().iter().any(known), "{name}: {argument} is in no mount");
        }
    }
    Ok(())
}
