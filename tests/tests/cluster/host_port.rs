//! A pod's hostPort and a Service's NodePort of the same number: the same one wins in every mode (docs/modes.md). And pods while
//! no agent runs.

use std::fs;

use anyhow::{Result, bail, ensure};
use serde_json::json;
use weft_tests::{Cluster, Place, Request, eventually, secs};

use crate::single::Single;

const PORT: u16 = 30080;

#[test]
fn the_node_port_wins_in_ebpf_mode() -> Result<()> {
    the_node_port_wins("ebpf")
}

#[test]
fn the_node_port_wins_in_nftables_mode() -> Result<()> {
    the_node_port_wins("nftables")
}

#[test]
fn the_node_port_wins_in_iptables_mode() -> Result<()> {
    the_node_port_wins("iptables")
}

fn the_node_port_wins(mode: &str) -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", mode), 1)?;
    let mapping = json!({"portMappings": [{"hostPort": PORT, "containerPort": 8080, "protocol": "tcp"}]});
    let pod = single.node().pod_with("host-port", mapping)?;
    let server = pod.serve()?;
    let clients: [&Place; 3] = [single.cluster.outside(), &single.client, single.node()];
    let all_get = |wanted: &str| clients.iter().try_for_each(|client| gets(client, &single, wanted));

    all_get("host-port")?;
    single.apply_web("  type: NodePort\n", &format!(", nodePort: {PORT}"))?;
    all_get("web-1")?;
    // Packets find no rule of the Service that translates them; sockets of the node are refused before there is a packet.
    single.set_endpoints(0)?;
    let [outside, on_node @ ..] = clients;
    gets(outside, &single, "host-port")?;
    let refused_or_not = if mode == "ebpf" { "ConnectionRefused" } else { "host-port" };
    on_node.iter().try_for_each(|client| gets(client, &single, refused_or_not))?;
    single.set_endpoints(1)?;
    all_get("web-1")?;
    single.cluster.manifests().delete("web.yaml")?;
    all_get("host-port")?;

    drop(server);
    pod.remove()?;
    all_get("ConnectionRefused")?;
    single.shutdown()
}

/// Section 10 of cni.md: ADD and DEL need no agent, and `weft cleanup` tells the runtime that there is no network any more.
#[test]
fn pods_come_and_go_without_the_agent_until_cleanup() -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let node = cluster.node(1);
    let list = node.directory().join("cni-conf/10-weft.conflist");
    ensure!(fs::read_to_string(&list)?.contains(r#""overlayDevice": "flannel.1""#), "{}", fs::read_to_string(&list)?);
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
    ensure!(!list.exists(), "{} is still there", list.display());
    cluster.shutdown()
}

/// Waits until the port is answered by a pod, or fails, so.
fn gets(client: &Place, single: &Single, wanted: &str) -> Result<()> {
    let request = Request::tcp(single.node().socket_v4(PORT)).timeout(secs(1));
    let look = || -> Result<()> {
        let answers = client.request(&request)?;
        let failure = answers.failures.first().map(|failure| failure.error.clone());
        let Some(got) = answers.by_name.keys().next().cloned().or(failure) else { bail!("{answers:?}") };
        ensure!(got.starts_with(wanted), "{client} got {got:?} instead of {wanted:?}");
        Ok(())
    };
    eventually(secs(15), look).map(drop)
}
