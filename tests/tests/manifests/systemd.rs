//! The unit and its files, for nodes that are installed from binaries.

use std::{collections::BTreeMap, fs, io::ErrorKind, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weft_tests::Binaries;

use crate::{
    flags::Pod,
    render::{directory, only, overlay},
};

/// Sections with their settings; one given twice is a mistake here, although systemd takes some.
fn parse(unit: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut sections = BTreeMap::<String, BTreeMap<String, String>>::new();
    let mut section = String::new();
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').with_context(|| format!("no setting: {line}"))?;
        let old = sections.entry(section.clone()).or_default().insert(key.to_owned(), value.to_owned());
        ensure!(old.is_none(), "{key} is there twice");
    }
    Ok(sections)
}

fn unit() -> Result<String> {
    Ok(fs::read_to_string(directory().join("systemd/weft.service"))?)
}

#[test]
fn systemd_takes_the_unit() -> Result<()> {
    let sections = parse(&unit()?)?;
    let names: Vec<&str> = sections.keys().map(String::as_str).collect();
    assert_eq!(names, ["Install", "Service", "Unit"]);
    let copy = TempDir::new()?;
    let path = copy.path().join("weft.service");
    let agent = Binaries::locate()?.agent;
    fs::write(&path, unit()?.replace("/usr/local/bin/weft", &agent.display().to_string()))?;
    match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        // Not on every machine, and without it the rest is still checked.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(output) => {
            let complaints = String::from_utf8_lossy(&output.stderr);
            let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("weft")).collect();
            ensure!(ours.is_empty(), "{ours:?}");
            Ok(())
        }
    }
}

#[test]
fn the_unit_starts_the_agent_with_the_files_beside_it() -> Result<()> {
    let sections = parse(&unit()?)?;
    let copy = TempDir::new()?;
    for file in ["kube-proxy.yaml", "net-conf.json", "kubeconfig"] {
        let text = fs::read_to_string(directory().join("systemd").join(file))?;
        fs::write(copy.path().join(file), text.replace("/etc/weft", &copy.path().display().to_string()))?;
    }
    let command = sections["Service"]["ExecStart"].replace("/etc/weft", &copy.path().display().to_string());
    let mut words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words.remove(0), "/usr/local/bin/weft");
    words.push("--print-config");
    let output = Command::new(Binaries::locate()?.agent).args(&words).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let kubeconfig: Value = serde_saphyr::from_str(&fs::read_to_string(copy.path().join("kubeconfig"))?)?;
    assert_eq!(kubeconfig["current-context"], kubeconfig["contexts"][0]["name"]);
    Ok(())
}

#[test]
fn the_unit_has_the_capabilities_of_the_daemon_set() -> Result<()> {
    let sections = parse(&unit()?)?;
    let mut unit: Vec<&str> = sections["Service"]["CapabilityBoundingSet"].split(' ').collect();
    // A pod's oom_score_adj is set by the kubelet.
    unit.retain(|name| *name != "CAP_SYS_RESOURCE");
    let pod = Pod::of("kubeadm")?;
    let added = pod.container()["securityContext"]["capabilities"]["add"].as_array().context("capabilities")?;
    let pod: Vec<String> = added.iter().filter_map(Value::as_str).map(|name| format!("CAP_{name}")).collect();
    assert_eq!(unit, pod);
    Ok(())
}

#[test]
fn both_ways_to_install_have_the_same_network() -> Result<()> {
    let file: Value = serde_json::from_str(&fs::read_to_string(directory().join("systemd/net-conf.json"))?)?;
    let all = overlay("kubeadm")?;
    let map = only(&all, "ConfigMap")?["data"]["net-conf.json"].as_str().context("net-conf.json")?;
    assert_eq!(file, serde_json::from_str::<Value>(map)?);
    Ok(())
}
