//! `weft cleanup --legacy`: what flannel and kube-proxy leave, made by hand as the real ones make it (flannel.md 7 and 8,
//! kube-proxy.md 12).

use std::{
    fs,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Node, eventually, secs};

const FLANNEL_RULES: &str = r#"*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE
COMMIT
"#;

const KUBE_PROXY_RULES: &str = r#"*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
"#;

const CONFLIST: &str = r#"{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;

/// Everything, in both variants of iptables.
fn leave(node: &Node) -> Result<()> {
    let rules = node.directory().join("rules");
    fs::write(&rules, format!("{FLANNEL_RULES}{KUBE_PROXY_RULES}"))?;
    for variant in ["nft", "legacy"] {
        let restore = format!("iptables-{variant}-restore --noflush {}", rules.display());
        node.run("sh", &["-c", &restore])?;
    }
    let devices = format!(
        "ip link add cni0 type bridge && ip link add kube-ipvs0 type bridge && \
         ip link add flannel.1 type vxlan id 1 dstport 8472 local {} dev eth0 nolearning",
        node.v4()
    );
    node.run("sh", &["-c", &devices])?;
    for table in ["ip flannel-ipv4", "ip6 flannel-ipv6", "ip kube-proxy"] {
        node.run("nft", &[&format!("add table {table}")])?;
    }
    fs::write(node.directory().join("cni-conf/10-flannel.conflist"), CONFLIST)?;
    fs::write(node.directory().join("cni-conf/20-other.conflist"), CONFLIST.replace("flannel", "bridge"))?;
    fs::write(node.directory().join("run/subnet.env"), "FLANNEL_NETWORK=10.244.0.0/16\n")?;
    Ok(())
}

/// Everything of flannel and kube-proxy that is there, by name.
fn present(node: &Node) -> Result<String> {
    let script = "ip -o link | cut -d: -f2 | grep -E 'cni0|flannel|kube-ipvs0'; \
                  nft list tables | grep -E 'flannel-ipv|kube-proxy'; \
                  iptables-nft-save | grep -E 'FLANNEL|KUBE'; iptables-legacy-save | grep -E 'FLANNEL|KUBE'; true";
    let mut present = node.run("sh", &["-c", script])?;
    for file in ["cni-conf/10-flannel.conflist", "cni-conf/20-other.conflist", "run/subnet.env"] {
        if node.directory().join(file).exists() {
            present += file;
            present.push('\n');
        }
    }
    Ok(present)
}

/// Its report and exit code.
fn cleanup(node: &Node, flags: &[&str]) -> Result<(Value, Option<i32>)> {
    let mut command = node.agent().command("cleanup");
    let command = command.args(["--legacy", "-o", "json"]).args(flags).args(node.agent().arguments());
    let output = command.output().context("weft cleanup")?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("weft cleanup: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((report, output.status.code()))
}

/// What it lists under a key.
fn listed(report: &Value, key: &str) -> Vec<String> {
    report[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A program of that name which does nothing.
fn pretend(node: &Node, name: &str) -> Result<Child> {
    let program = node.directory().join(name);
    fs::copy("/bin/sleep", &program)?;
    let child = node.command(&program).arg("600").stdin(Stdio::null()).spawn()?;
    let comm = format!("/proc/{}/comm", child.id());
    eventually(secs(10), || {
        let now = fs::read_to_string(&comm)?;
        ensure!(now.trim() == name, "{now}");
        Ok(())
    })?;
    Ok(child)
}

#[test]
fn everything_of_flannel_and_kube_proxy_goes_and_nothing_else() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let (empty, code) = cleanup(node, &[])?;
    ensure!(code == Some(0) && listed(&empty, "removed").is_empty(), "{empty:#}");

    leave(node)?;
    let before = present(node)?;
    let (plan, code) = cleanup(node, &["--dry-run"])?;
    ensure!(code == Some(0) && plan["dryRun"] == true, "{plan:#}");
    ensure!(present(node)? == before, "a dry run changed something: {}", present(node)?);

    // ipvsadm need not be there; all else goes.
    let (report, _) = cleanup(node, &[])?;
    let failed: Vec<String> = listed(&report, "failed").into_iter().filter(|left| !left.contains("IPVS")).collect();
    ensure!(failed.is_empty(), "{report:#}");
    let done: Vec<String> = [listed(&report, "removed"), listed(&report, "failed")].concat();
    ensure!(done.len() == listed(&plan, "removed").len(), "{plan:#}\n{report:#}");
    let after = present(node)?;
    let kubelets = |line: &str| line.contains("KUBE-KUBELET-CANARY") || line.contains("KUBE-IPTABLES-HINT");
    let left: Vec<&str> = after.lines().filter(|line| !kubelets(line)).collect();
    ensure!(left == ["cni-conf/20-other.conflist"], "{left:#?}");
    ensure!(after.contains("KUBE-KUBELET-CANARY"), "kubelet's chains are gone: {after}");
    cluster.shutdown()
}

#[test]
fn it_refuses_while_they_run_or_pods_are_attached() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    leave(node)?;
    let before = present(node)?;
    let refused = |reason: &str| -> Result<()> {
        let (report, code) = cleanup(node, &[])?;
        ensure!(code == Some(1), "{report:#}");
        ensure!(listed(&report, "refused").iter().any(|why| why.contains(reason)), "{reason:?} in {report:#}");
        ensure!(present(node)? == before, "something went: {}", present(node)?);
        Ok(())
    };
    for name in ["flanneld", "kube-proxy"] {
        let mut program = pretend(node, name)?;
        let refusal = refused(&format!("{name} runs (process {})", program.id()));
        program.kill()?;
        program.wait()?;
        refusal?;
    }
    node.run("sh", &["-c", "ip link add veth1 type veth peer name veth2 && ip link set veth1 master cni0"])?;
    refused("1 pods are attached to cni0")?;
    let (report, _) = cleanup(node, &["--force"])?;
    ensure!(listed(&report, "refused").is_empty(), "{report:#}");
    ensure!(!present(node)?.contains("cni0"), "{}", present(node)?);
    cluster.shutdown()
}

#[test]
fn what_weft_has_taken_over_stays() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    node.run("ip", &["link", "add", "cni0", "type", "bridge"])?;
    // Also while no agent runs: its network outlives it.
    node.agent().stop()?;
    let (report, code) = cleanup(node, &[])?;
    ensure!(code == Some(0) && listed(&report, "removed") == ["device cni0"], "{report:#}");
    ensure!(present(node)?.contains("flannel.1"), "{}", present(node)?);
    node.agent().start()?;
    node.agent().wait_ready(secs(20))?;
    cluster.shutdown()
}
