//! Configuration as an operator meets it: what is effective and why, mistakes, and files that change at run time.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Node, eventually, secs};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// Writes a configuration file beside the node's other files.
fn write(node: &Node, lines: &str) -> Result<PathBuf> {
    let path = node.directory().join("kube-proxy.conf");
    // As kubelet and editors do: another file in the place of the old one.
    let new = path.with_extension("new");
    fs::write(&new, format!("{HEAD}{lines}"))?;
    fs::rename(new, &path)?;
    Ok(path)
}

#[test]
fn print_config_tells_values_and_where_they_come_from_and_touches_nothing() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let file = write(node, "clusterCIDR: 10.244.0.0/16\nmode: iptables\niptables:\n  masqueradeBit: 15\n")?;
    let mut command = node.agent().command("agent");
    command.args(node.agent().arguments_with(&[("--config", &file.display().to_string())]));
    let output = command.args(["--print-config", "-o", "json"]).env("FLANNELD_PUBLIC_IP", "192.0.2.1").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout)?;
    let file = file.display();
    for (path, value, origin) in [
        ("kubeProxyConfiguration.clusterCIDR", "10.244.0.0/16", format!("file {file}:3")),
        ("kubeProxyConfiguration.mode", "ebpf", "flag --proxy-mode".to_owned()),
        ("kubeProxyConfiguration.hostnameOverride", "n1", "flag --hostname-override".to_owned()),
        ("kubeProxyConfiguration.metricsBindAddress", "127.0.0.1:10249", "default".to_owned()),
        ("flags.public-ip", "192.0.2.1", "environment $FLANNELD_PUBLIC_IP".to_owned()),
        ("flags.iface", "eth0", "flag --iface".to_owned()),
    ] {
        let pointer = format!("/{}", path.replace('.', "/"));
        ensure!(printed.pointer(&pointer) == Some(&value.into()), "{path}: {printed:#}");
        ensure!(printed["origins"][path] == origin, "{path}: {}", printed["origins"][path]);
    }
    ensure!(printed["kubeProxyConfiguration"]["iptables"]["masqueradeBit"] == 15, "{printed:#}");
    ensure!(!node.directory().join("run/agent.sock").exists(), "the agent has started");
    cluster.shutdown()
}

#[test]
fn a_file_that_changes_is_followed_a_wrong_one_is_not_and_a_restart_is_asked_for() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let file = write(node, "portRange: \"\"\n")?.display().to_string();
    node.agent().start_with(&[("--config", &file)])?;
    node.agent().wait_ready(secs(30))?;
    let configz = |pointer: &str| -> Result<Value> {
        let text = curl(node, "http://127.0.0.1:10249/configz")?;
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(answer["kubeproxy.config.k8s.io"].pointer(pointer).cloned().unwrap_or_default())
    };
    ensure!(configz("/iptables/syncPeriod")? == "30s");
    write(
        node,
        "iptables: {syncPeriod: 10s}\nnodePortAddresses: [192.0.2.0/24, 127.0.0.0/8]\nclusterCIDR: 10.9.0.0/16\n",
    )?;
    eventually(secs(20), || {
        ensure!(configz("/iptables/syncPeriod")? == "10s", "{}", configz("")?);
        ensure!(configz("/nodePortAddresses/0")? == "192.0.2.0/24", "{}", configz("")?);
        ensure!(configz("/clusterCIDR")? == "", "it is not in force yet");
        let status = status(node)?;
        ensure!(status["configuration"]["restartNeeded"] == serde_json::json!(["clusterCIDR"]), "{status:#}");
        Ok(())
    })?;
    write(node, "iptables: {syncPeriod: often}\n")?;
    eventually(secs(20), || {
        let status = status(node)?;
        let mistake = status["configuration"]["mistakes"][0].as_str().unwrap_or_default();
        ensure!(mistake.contains("kube-proxy.conf:3: iptables.syncPeriod: \"often\""), "{status:#}");
        Ok(())
    })?;
    ensure!(configz("/iptables/syncPeriod")? == "10s", "the old one stays in force");
    write(node, "iptables: {syncPeriod: 20s}\n")?;
    eventually(secs(20), || {
        let configuration = &status(node)?["configuration"];
        ensure!(configuration["mistakes"] == serde_json::json!([]), "{configuration:#}");
        ensure!(configuration["restartNeeded"] == serde_json::json!([]), "{configuration:#}");
        ensure!(configz("/iptables/syncPeriod")? == "20s", "{}", configz("")?);
        Ok(())
    })?;
    cluster.shutdown()
}

#[test]
fn init_only_sets_parameters_of_the_kernel_and_ends() -> Result<()> {
    const PARAMETER: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let initialize = |more: &[&str]| -> Result<_> {
        let mut command = node.agent().command("agent");
        Ok(command.args(node.agent().arguments()).arg("--init-only").args(more).output()?)
    };
    // That one is of the whole machine.
    let done = initialize(&["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-close-wait=77s"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(node.run("sysctl", &["-n", PARAMETER])?.trim() == "77");
    ensure!(!node.directory().join("run/agent.sock").exists(), "the agent has started");
    let failed = initialize(&["--conntrack-max-per-core=1000000"])?;
    let told = String::from_utf8_lossy(&failed.stderr);
    ensure!(failed.status.code() == Some(1) && told.contains("nf_conntrack_max"), "{}: {told}", failed.status);
    cluster.shutdown()
}

#[test]
fn version_completion_and_refused_flags() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let agent = cluster.node(1).agent();
    let version = agent.command("version").args(["-o", "json"]).output()?;
    let version: Value = serde_json::from_slice(&version.stdout)?;
    ensure!(version["version"] == "0.1.0", "{version}");
    for (shell, part) in [("bash", "_weft()"), ("zsh", "#compdef weft"), ("fish", "complete -c weft")] {
        let script = agent.command("completion").arg(shell).output()?;
        ensure!(String::from_utf8_lossy(&script.stdout).contains(part), "{shell}");
    }
    let mut command = agent.command("agent");
    let output = command.args(agent.arguments()).args(["--enable-dsr", "--oom-score-adj=-2000"]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {told}", output.status);
    for part in ["--enable-dsr", "runs on Linux", "--oom-score-adj", "[-1000, 1000]"] {
        ensure!(told.contains(part), "{part} is not told: {told}");
    }
    cluster.shutdown()
}

fn curl(node: &Node, url: &str) -> Result<String> {
    let output = node.command("curl").args(["-sS", "-m", "5", url]).output()?;
    ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn status(node: &Node) -> Result<Value> {
    let output =
        node.agent().command("status").args(["-o", "json", "--run-dir"]).arg(node.directory().join("run")).output()?;
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
