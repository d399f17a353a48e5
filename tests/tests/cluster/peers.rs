//! `weft peers`: the other nodes, and whether they can be reached.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Node, eventually, secs};

fn peers(node: &Node, arguments: &[&str]) -> Result<Output> {
    let mut command = node.agent().command("peers");
    command.arg("--run-dir").arg(node.directory().join("run")).args(arguments).output().context("weft peers")
}

#[test]
fn the_other_nodes_are_listed_with_how_they_are_reached() -> Result<()> {
    let cluster = Cluster::builder().nodes(3).build()?;
    let (node, other) = (cluster.node(1), cluster.node(2));
    let subnet = other.agent().status()?.overlay.context("a pod network")?.subnet;
    eventually(secs(20), || {
        let output = peers(node, &["-o", "json"])?;
        let list: Value = serde_json::from_slice(&output.stdout)?;
        let list = list.as_array().context("a list")?;
        ensure!(output.status.success() && list.len() == 2, "{}: {list:?}", output.status);
        let peer = list.iter().find(|peer| peer["subnet"] == subnet).context("the second node")?;
        ensure!(peer["publicIP"] == other.v4().to_string() && peer["state"] == "up", "{peer}");
        ensure!(peer["vtepMAC"].is_string() && peer["error"].is_null(), "{peer}");
        Ok(())
    })?;
    let table = String::from_utf8(peers(node, &[])?.stdout)?;
    let lines: Vec<&str> = table.lines().collect();
    ensure!(lines.len() == 3 && lines[0].starts_with("SUBNET") && lines[1].contains("up"), "{table}");
    cluster.shutdown()
}

#[test]
fn without_a_pod_network_or_an_agent_it_says_so_and_fails() -> Result<()> {
    let cluster = Cluster::builder().agent_flag("--components", "proxy").build()?;
    let node = cluster.node(1);
    let fails = |part: &str| -> Result<()> {
        let output = peers(node, &[])?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && told.contains(part), "{}: {told}", output.status);
        Ok(())
    };
    fails("the overlay component does not run")?;
    node.agent().stop()?;
    fails("no agent answers")?;
    cluster.shutdown()
}
