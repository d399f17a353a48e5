//! What an operator meets: mistakes, missing privileges, broken files, cleanup.

use std::{
    collections::BTreeMap,
    fs,
    process::{Output, Stdio},
};

use crate::fixture::{Serving, assert_exact, web_vip};
use anyhow::{Result, ensure};
use weft_tests::{Binaries, Cluster, Node, Request, eventually, secs};

#[test]
fn all_mistakes_are_told_at_once_with_exit_code_2_and_nothing_changes() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let before = state(node)?;
    let mut command = node.agent().command("agent");
    command.args(node.agent().arguments_with(&[
        ("--net-conf", "/no/such/net-conf.json"),
        ("--nodeport-addresses", "10.0.0.0/99"),
        ("--public-ip", "1.2.3"),
    ]));
    let output = command.output()?;
    let text = text(&output);
    ensure!(output.status.code() == Some(2), "exit {}: {text}", output.status);
    for mistake in ["/no/such/net-conf.json", "10.0.0.0/99", "1.2.3"] {
        ensure!(text.contains(mistake), "{mistake} is not told: {text}");
    }
    ensure!(state(node)? == before, "the node has changed: {:#?}", state(node)?);
    cluster.shutdown()
}

#[test]
fn an_unknown_flag_is_exit_code_2() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let before = state(node)?;
    let output = node.agent().command("agent").args(node.agent().arguments()).arg("--no-such-flag").output()?;
    ensure!(output.status.code() == Some(2), "exit {}: {}", output.status, text(&output));
    ensure!(text(&output).contains("--no-such-flag"), "{}", text(&output));
    ensure!(state(node)? == before, "the node has changed");
    cluster.shutdown()
}

#[test]
fn a_missing_capability_is_named_with_exit_code_1_and_nothing_changes() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    let before = state(node)?;
    let agent = Binaries::locate()?.agent;
    for (dropped, named) in [("net_admin", "CAP_NET_ADMIN"), ("bpf,-sys_admin", "CAP_BPF")] {
        let mut command = node.command("setpriv");
        command.arg(format!("--bounding-set=-{dropped}")).arg(&agent).arg("agent").args(node.agent().arguments());
        let output = command.output()?;
        ensure!(output.status.code() == Some(1), "without {dropped}: exit {}: {}", output.status, text(&output));
        ensure!(text(&output).contains(named), "without {dropped}: {}", text(&output));
    }
    ensure!(state(node)? == before, "the node has changed: {:#?}", state(node)?);
    // Only the ebpf mode needs it.
    let mut command = node.command("setpriv");
    command.arg("--bounding-set=-bpf,-sys_admin").arg(&agent).arg("agent");
    let mut running =
        command.args(node.agent().arguments_with(&[("--proxy-mode", "nftables")])).stderr(Stdio::null()).spawn()?;
    let ready = node.agent().wait_ready(secs(30));
    running.kill()?;
    running.wait()?;
    ready?;
    cluster.shutdown()
}

#[test]
fn a_broken_file_is_told_by_name_and_line_and_the_last_good_state_stays() -> Result<()> {
    let serving = Serving::start()?;
    let manifests = serving.cluster.manifests();
    let good = fs::read_to_string(manifests.directory().join("web.yaml"))?;
    manifests.apply("web.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  broken: [\n")?;
    for node in serving.cluster.nodes() {
        eventually(secs(3), || {
            let rejected = node.agent().status()?.source.map(|source| source.rejected).unwrap_or_default();
            // The bracket of line 5 is never closed; where a parser notices that may be the line after.
            let told = rejected
                .iter()
                .any(|object| object.reason.contains("web.yaml:5:") || object.reason.contains("web.yaml:6:"));
            ensure!(told, "rejected: {rejected:?}");
            Ok(())
        })?;
    }
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    // Other files still count.
    serving.set_endpoints(&[0, 2])?;
    eventually(secs(3), || {
        let answers = serving.clients[0].request(&Request::tcp(web_vip()).count(10))?.all_good()?;
        ensure!(answers.counts() == "web-1 5, web-3 5", "{}", answers.counts());
        Ok(())
    })?;
    manifests.apply("web.yaml", &good)?;
    eventually(secs(3), || {
        let status = serving.cluster.node(1).agent().status()?;
        let rejected = status.source.map(|source| source.rejected).unwrap_or_default();
        ensure!(rejected.is_empty(), "rejected: {rejected:?}");
        Ok(())
    })?;
    serving.shutdown()
}

#[test]
fn a_deleted_service_is_gone() -> Result<()> {
    let serving = Serving::start()?;
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    serving.cluster.manifests().delete("web.yaml")?;
    let request = Request::tcp(web_vip()).timeout(std::time::Duration::from_millis(200));
    eventually(secs(5), || {
        let answers = serving.clients[0].request(&request)?;
        ensure!(answers.by_name.is_empty(), "still answered by {}", answers.counts());
        Ok(())
    })?;
    serving.shutdown()
}

#[test]
fn a_service_that_is_not_there_is_told_in_every_format() -> Result<()> {
    let cluster = Cluster::builder().agent_flag("--components", "proxy").build()?;
    let node = cluster.node(1);
    for (arguments, code, answer, told) in [
        (&["default/none"][..], 1, "", "default/none is not known here"),
        (&["default/none", "-o", "json"], 1, "[]\n", "default/none is not known here"),
        (&["default/n one"], 2, "", "a Service is named NAMESPACE/NAME"),
        (&["none"], 2, "", "a Service is named NAMESPACE/NAME"),
        (&["-o", "json"], 0, "[]\n", ""),
    ] {
        let mut command = node.agent().command("services");
        let output = command.arg("--run-dir").arg(node.directory().join("run")).args(arguments).output()?;
        ensure!(output.status.code() == Some(code), "{arguments:?}: {}: {}", output.status, text(&output));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(out == answer && err.contains(told), "{arguments:?}: {out:?}, {err:?}");
    }
    cluster.shutdown()
}

#[test]
fn cleanup_leaves_nothing_on_the_node() -> Result<()> {
    let serving = Serving::start()?;
    let node = serving.cluster.node(1);
    node.agent().stop()?;
    let output = node.agent().command("cleanup").args(node.agent().arguments()).output()?;
    ensure!(output.status.success(), "cleanup: {}", text(&output));
    let after = state(node)?;
    for part in ["links", "addresses", "routes"] {
        ensure!(!after[part].contains("flannel.1"), "{part}: {}", after[part]);
    }
    for part in ["nft", "cni-conf", "cgroup programs"] {
        ensure!(after[part].trim().is_empty(), "{part}: {}", after[part]);
    }
    // The kernel puts two files of its own into every bpffs.
    ensure!(!after["pins"].contains("weft"), "pins: {}", after["pins"]);
    serving.shutdown()
}

/// What an agent could change on a node, as other tools see it.
fn state(node: &Node) -> Result<BTreeMap<&'static str, String>> {
    let bpffs = node.directory().join("bpf");
    let cgroup = node.cgroup().display().to_string();
    Ok(BTreeMap::from([
        ("links", node.run("ip", &["-br", "link"])?),
        // The kernel's own of IPv6 come when they want.
        ("addresses", node.run("ip", &["-br", "address", "show", "scope", "global"])?),
        ("routes", node.run("ip", &["route", "show", "table", "all"])?),
        ("nft", node.run("nft", &["list", "ruleset"])?),
        ("forwarding", node.run("sysctl", &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"])?),
        ("pins", names(&bpffs)?),
        ("cni-conf", names(&node.directory().join("cni-conf"))?),
        ("cgroup programs", node.run("bpftool", &["cgroup", "show", &cgroup])?),
    ]))
}

fn names(directory: &std::path::Path) -> Result<String> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names.join("\n"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
