//! A pod's hostPort and a Service's NodePort of the same number: the same one wins, whatever the proxy's mode and whichever
//! backend the host ports have (docs/modes.md).

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use weft_tests::{Cluster, Node, Place, Pod, Request, eventually, secs};

use crate::single::Single;

const PORT: u16 = 30080;

/// In each mode of the proxy.
macro_rules! tests {
    ($($backend:ident)*) => {
        $(mod $backend {
            #[test] fn the_node_port_wins_in_ebpf_mode() -> anyhow::Result<()> { super::the_node_port_wins("ebpf", stringify!($backend)) }
            #[test] fn the_node_port_wins_in_nftables_mode() -> anyhow::Result<()> { super::the_node_port_wins("nftables", stringify!($backend)) }
            #[test] fn the_node_port_wins_in_iptables_mode() -> anyhow::Result<()> { super::the_node_port_wins("iptables", stringify!($backend)) }
        })*
    };
}

tests! { nftables iptables }

/// Makes the runtime take another list than the agent's: its own, with a backend of host ports.
fn choose_backend(node: &Node, backend: &str) -> Result<()> {
    let lists = node.directory().join("cni-conf");
    let mut list: Value = serde_json::from_slice(&fs::read(lists.join("10-weft.conflist"))?)?;
    list["plugins"][0]["backend"] = backend.into();
    fs::write(lists.join("05-own.conflist"), list.to_string()).context("a list of our own")
}

fn pod_with_host_port(node: &Node, name: &str, port: u16) -> Result<Pod> {
    node.pod_with(name, json!({"portMappings": [{"hostPort": port, "containerPort": 8080, "protocol": "tcp"}]}))
}

fn the_node_port_wins(mode: &str, backend: &str) -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", mode), 1)?;
    choose_backend(single.node(), backend)?;
    let pod = pod_with_host_port(single.node(), "host-port", PORT)?;
    let server = pod.serve()?;
    let rules = single.node().run("iptables-save", &["-t", "nat"])?;
    ensure!(rules.contains("WEFT-HOSTPORTS") == (backend == "iptables"), "{rules}");
    let clients: [&Place; 3] = [single.cluster.outside(), &single.client, single.node()];
    let all_get = |wanted: &str| clients.iter().try_for_each(|client| gets_at(client, single.node(), PORT, wanted));

    all_get("host-port")?;
    single.apply_web("  type: NodePort\n", &format!(", nodePort: {PORT}"))?;
    all_get("web-1")?;
    // Packets find no rule of the Service that translates them; sockets of the node are refused before there is a packet.
    single.set_endpoints(0)?;
    let [outside, on_node @ ..] = clients;
    gets_at(outside, single.node(), PORT, "host-port")?;
    let refused_or_not = if mode == "ebpf" { "ConnectionRefused" } else { "host-port" };
    on_node.iter().try_for_each(|client| gets_at(client, single.node(), PORT, refused_or_not))?;
    single.set_endpoints(1)?;
    all_get("web-1")?;
    single.cluster.manifests().delete("web.yaml")?;
    all_get("host-port")?;

    drop(server);
    pod.remove()?;
    all_get("ConnectionRefused")?;
    single.shutdown()
}

/// Host ports of pods that run on are put back, within seconds.
#[test]
fn flushed_rules_come_back() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "nftables"), 1)?;
    let (node, outside) = (single.node(), single.cluster.outside());
    single.apply_web("  type: NodePort\n", &format!(", nodePort: {PORT}"))?;
    let pod = pod_with_host_port(node, "pod-1", PORT + 1)?;
    let _server = pod.serve()?;
    let both_serve = || -> Result<()> {
        gets_at(outside, node, PORT, "web-1")?;
        gets_at(outside, node, PORT + 1, "pod-1")
    };
    both_serve()?;
    node.run("nft", &["flush", "ruleset"])?;
    both_serve()?;
    // Whatever happened while no agent ran.
    node.agent().stop()?;
    node.run("nft", &["flush", "ruleset"])?;
    gets_at(outside, node, PORT + 1, "ConnectionRefused")?;
    node.agent().start()?;
    both_serve()?;
    pod.remove()?;
    let tables = node.run("nft", &["list", "tables"])?;
    ensure!(!tables.contains("weft-hostports"), "{tables}");
    single.shutdown()
}

/// Both have their rules in the same chains of table nat, and neither minds the other's.
#[test]
fn in_iptables_mode_both_live_side_by_side() -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", "iptables");
    let single = Single::start(builder, 1)?;
    let (node, outside) = (single.node(), single.cluster.outside());
    choose_backend(node, "iptables")?;
    single.apply_web("  type: NodePort\n", &format!(", nodePort: {PORT}"))?;
    let pods =
        [(1, PORT), (2, PORT + 1)].map(|(number, port)| pod_with_host_port(node, &format!("pod-{number}"), port));
    let [hidden, pod] = pods;
    let (hidden, pod) = (hidden?, pod?);
    let _servers = (hidden.serve()?, pod.serve()?);
    let both_serve = || -> Result<()> {
        gets_at(outside, node, PORT, "web-1")?;
        gets_at(&single.client, node, PORT, "web-1")?;
        gets_at(outside, node, PORT + 1, "pod-2")
    };
    both_serve()?;
    let rules = |whose: &str| -> Result<Vec<String>> {
        let saved = node.run("iptables-save", &[])?;
        Ok(saved.lines().filter(|line| line.starts_with('-') && line.contains(whose)).map(str::to_owned).collect())
    };
    let (of_host_ports, of_services) = (rules("WEFT-HOSTPORTS")?, rules("KUBE-")?);

    // A pod that comes and goes, an agent that goes and comes.
    let third = pod_with_host_port(node, "pod-3", PORT + 2)?;
    ensure!(rules("WEFT-HOSTPORTS")?.len() > of_host_ports.len(), "{:#?}", rules("WEFT-HOSTPORTS"));
    third.remove()?;
    ensure!(rules("KUBE-")? == of_services, "a pod changed rules of Services: {:#?}", rules("KUBE-"));
    single.restart(&[])?;
    both_serve()?;
    ensure!(rules("WEFT-HOSTPORTS")? == of_host_ports, "the agent changed {:#?}", rules("WEFT-HOSTPORTS"));

    // Table filter flushed: the agent repairs what is its own.
    node.run("iptables", &["-F"])?;
    eventually(secs(20), || {
        ensure!(rules("KUBE-")? == of_services, "not repaired: {:#?}", rules("KUBE-"));
        Ok(())
    })?;
    both_serve()?;
    // Table nat: and a host port that is mapped then comes after the Services again; the restarted agent puts those of before back.
    node.run("iptables", &["-t", "nat", "-F"])?;
    let fourth = pod_with_host_port(node, "pod-4", PORT)?;
    let _server = fourth.serve()?;
    eventually(secs(20), || {
        ensure!(rules("KUBE-")? == of_services, "not repaired: {:#?}", rules("KUBE-"));
        Ok(())
    })?;
    gets_at(outside, node, PORT, "web-1")?;
    single.restart(&[])?;
    both_serve()?;
    // Without Services the port is the pod's.
    node.agent().stop()?;
    let output = node.agent().command("cleanup").args(node.agent().arguments()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(rules("KUBE-SERVICES")?.is_empty(), "{:#?}", rules("KUBE-SERVICES"));
    gets_at(outside, node, PORT, "pod-")?;
    for pod in [hidden, pod, fourth] {
        pod.remove()?;
    }
    ensure!(rules("WEFT")?.is_empty(), "{:#?}", rules("WEFT"));
    single.shutdown()
}

/// Waits until the port is answered by a pod, or fails, so.
fn gets_at(client: &Place, node: &Node, port: u16, wanted: &str) -> Result<()> {
    let request = Request::tcp(node.socket_v4(port)).timeout(secs(1));
    let look = || -> Result<()> {
        let answers = client.request(&request)?;
        let failure = answers.failures.first().map(|failure| failure.error.clone());
        let Some(got) = answers.by_name.keys().next().cloned().or(failure) else { bail!("{answers:?}") };
        ensure!(got.starts_with(wanted), "{client} got {got:?} instead of {wanted:?}");
        Ok(())
    };
    eventually(secs(15), look).map(drop)
}
