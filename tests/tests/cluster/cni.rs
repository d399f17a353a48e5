//! What the container runtime finds on a node: the list that says that there is a network, and the plugin.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Cluster, Node, Request, eventually, secs};

fn list(node: &Node) -> PathBuf {
    node.directory().join("cni-conf/10-weft.conflist")
}

/// Waits until the node's network cannot start for this reason.
fn waits_for(node: &Node, reason: &str) -> Result<()> {
    let run_directory = node.directory().join("run");
    eventually(secs(30), || {
        let output = node.agent().command("status").args(["-o", "json", "--run-dir"]).arg(&run_directory).output()?;
        let status: Value = serde_json::from_slice(&output.stdout).context("weft status")?;
        ensure!(status["overlay"]["error"].as_str().is_some_and(|error| error.contains(reason)), "{status:#}");
        Ok(())
    })
    .with_context(|| node.agent().log_tail())?;
    Ok(())
}

fn with_pod_cidrs(cidrs: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\nspec: {{podCIDRs: [{cidrs}]}}\n")
}

/// The plugin as the list has it, for a command that is about no pod.
fn plugin(node: &Node, command: &str) -> Result<(Command, Vec<u8>)> {
    let list: Value = serde_json::from_slice(&fs::read(list(node))?)?;
    let mut configuration = list["plugins"][0].clone();
    configuration["name"] = list["name"].clone();
    configuration["cniVersion"] = json!("1.1.0");
    let directory = node.directory().join("cni-bin");
    let mut plugin = node.command(directory.join("weft-cni"));
    plugin.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", directory);
    plugin.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok((plugin, configuration.to_string().into_bytes()))
}

fn answer(mut child: Child, configuration: &[u8]) -> Result<()> {
    child.stdin.take().context("stdin of the plugin")?.write_all(configuration)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn section_10_the_list_comes_with_the_network_and_stays_until_cleanup() -> Result<()> {
    let builder = Cluster::builder().api_server().without_agents().agent_flag("--components", "overlay,cni");
    let cluster = builder.agent_flag("--subnet-manager", "kube").build()?;
    let (node, nodes) = (cluster.node(1), cluster.manifests());
    node.agent().start()?;
    waits_for(node, "there is no Node")?;
    ensure!(!list(node).exists(), "no Node");
    nodes.apply("n1.yaml", &with_pod_cidrs(""))?;
    waits_for(node, "has no pod CIDR")?;
    ensure!(!list(node).exists(), "no pod CIDR");
    nodes.apply("n1.yaml", &with_pod_cidrs("10.244.1.0/24"))?;
    eventually(secs(30), || {
        ensure!(list(node).exists(), "the list is not there");
        Ok(())
    })?;
    // From the moment on that it is there.
    let (mut status, configuration) = plugin(node, "STATUS")?;
    answer(status.spawn()?, &configuration)?;
    let early = node.pod("early")?;
    let server = early.serve()?;
    node.request(&Request::tcp(early.socket_v4(8080)?))?.all_good()?;

    // It is of the node, not of the agent: whatever that waits for, pods come and go.
    let written = fs::metadata(list(node))?;
    node.agent().stop()?;
    ensure!(list(node).exists(), "the agent took it away");
    nodes.delete("n1.yaml")?;
    node.agent().start()?;
    waits_for(node, "there is no Node")?;
    let late = node.pod("late")?;
    late.request(&Request::tcp(early.socket_v4(8080)?))?.all_good()?;
    late.remove()?;
    nodes.apply("n1.yaml", &with_pod_cidrs("10.244.1.0/24"))?;
    node.agent().wait_ready(secs(30))?;
    let now = fs::metadata(list(node))?;
    ensure!((now.ino(), now.mtime_nsec()) == (written.ino(), written.mtime_nsec()), "the runtime would reload");

    drop(server);
    early.remove()?;
    node.agent().stop()?;
    let output = node.agent().command("cleanup").args(node.agent().arguments()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!list(node).exists(), "cleanup left it");
    ensure!(node.directory().join("cni-bin/weft-cni").exists(), "the runtime still has to call it");
    node.agent().start()?;
    eventually(secs(30), || {
        ensure!(list(node).exists(), "it does not come back");
        Ok(())
    })?;
    cluster.shutdown()
}

/// ADD and DEL need no agent, and `weft cleanup` tells the runtime that there is no network any more.
#[test]
fn section_10_pods_come_and_go_without_the_agent_until_cleanup() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    let text = fs::read_to_string(list(node))?;
    ensure!(text.contains(r#""overlayDevice": "flannel.1""#), "{text}");
    let early = node.pod("early")?;
    node.agent().stop()?;
    let late = node.pod("late")?;
    let server = late.serve()?;
    early.request(&Request::tcp(late.socket_v4(8080)?))?.all_good()?;
    drop(server);
    late.remove()?;
    early.remove()?;
    let output = node.agent().command("cleanup").args(node.agent().arguments()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!list(node).exists(), "{} is still there", list(node).display());
    cluster.shutdown()
}

#[test]
fn section_10_an_older_plugin_is_replaced_under_running_pods() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    let installed = node.directory().join("cni-bin/weft-cni");
    node.agent().stop()?;
    // The kit's link to the binary beside the agent's: what the agent installs.
    let new = fs::read(&installed)?;
    fs::remove_file(&installed)?;
    // It works as the new one does and is not the same, as another build's.
    fs::write(&installed, [&new[..], b"of another build"].concat())?;
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;
    let pod = node.pod("early")?;
    let _server = pod.serve()?;
    // One that has begun when its file is replaced.
    let (mut status, configuration) = plugin(node, "STATUS")?;
    let running = status.spawn()?;
    let program = PathBuf::from(format!("/proc/{}/exe", running.id()));
    eventually(secs(20), || {
        let program = fs::read_link(&program)?;
        ensure!(program == installed, "it runs {}", program.display());
        Ok(())
    })?;

    node.agent().start()?;
    node.agent().wait_ready(secs(30))?;
    eventually(secs(20), || {
        ensure!(fs::read(&installed)? == new, "the older one is still there");
        Ok(())
    })?;
    let mode = fs::metadata(&installed)?.permissions().mode();
    ensure!(mode & 0o777 == 0o755, "{mode:o}");
    ensure!(fs::read_dir(node.directory().join("cni-bin"))?.count() == 1, "something else was left");
    answer(running, &configuration).context("the one that had begun")?;
    let late = node.pod("late")?;
    late.request(&Request::tcp(pod.socket_v4(8080)?))?.all_good()?;
    late.remove()?;
    // What one has made the other removes.
    pod.remove()?;
    let veths = node.run("ip", &["-o", "link", "show", "type", "veth"])?;
    ensure!(veths.lines().all(|line| line.contains(" eth0@")), "{veths}");
    cluster.shutdown()
}
