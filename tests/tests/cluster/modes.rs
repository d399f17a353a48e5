//! The same Services by each data plane, and the change from one to another.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Load, Place, Request, eventually, secs};

use crate::fixture::{NAMES_NODE_PORT, Serving, WEB_NODE_PORT, assert_exact, names_vip, shares, web_vip};

#[test]
fn nftables_alone_serves_everything() -> Result<()> {
    serves_everything("nftables")
}

#[test]
fn iptables_alone_serves_everything() -> Result<()> {
    serves_everything("iptables")
}

fn serves_everything(mode: &str) -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", mode).agent_flag("--cluster-cidr", "10.244.0.0/16");
    let serving = Serving::on(builder)?;
    let (node, outside) = (serving.cluster.node(1), serving.cluster.outside());
    let own = serving.clients[0].socket_v4(0)?.ip().to_string();
    let answers = assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    ensure!(answers.sources == shares(&[&own], 600), "pods saw {:?}, not {own}", answers.sources);
    assert_exact(node, &Request::tcp(web_vip()))?;
    assert_exact(outside, &Request::tcp(node.socket_v4(WEB_NODE_PORT)))?;
    for (client, target) in [(&*serving.clients[0], names_vip()), (outside, node.socket_v4(NAMES_NODE_PORT))] {
        let answers = client.request(&Request::udp(target).count(60))?.all_good()?;
        ensure!(answers.by_name.len() == 3, "{}", answers.counts());
    }
    // A pod that serves can reach itself through its Service.
    assert_exact(&serving.web[0], &Request::tcp(web_vip()))?;
    serving.shutdown()
}

#[test]
fn changing_the_mode_breaks_no_connection_and_leaves_nothing_of_the_old_one() -> Result<()> {
    let serving = Serving::on(Cluster::builder().alone())?;
    let node = serving.cluster.node(1);
    let load = serving.clients[0].load(&Load::new(web_vip(), 500))?;
    for mode in ["nftables", "iptables", "ebpf", "iptables", "nftables", "ebpf"] {
        node.agent().stop()?;
        node.agent().start_with(&[("--proxy-mode", mode)])?;
        eventually(secs(10), || only_this_mode(node, node.directory(), mode))?;
        let answers = serving.clients[0].request(&Request::tcp(web_vip()).count(30))?.all_good()?;
        ensure!(answers.by_name.len() == 3, "{mode}: {}", answers.counts());
    }
    load.finish()?.all_good()?;
    serving.shutdown()
}

/// Looks at the kernel, not at what the agent says.
fn only_this_mode(node: &Place, directory: &std::path::Path, mode: &str) -> Result<()> {
    let pins = std::fs::read_dir(directory.join("bpf/weft")).map_or(0, |entries| entries.count());
    let tables = node.run("nft", &["list", "tables"])?;
    let rules = node.run("iptables-save", &[])? + &node.run("iptables-legacy-save", &[])?;
    ensure!((pins > 0) == (mode == "ebpf"), "{mode}: {pins} directories of pins");
    ensure!(tables.contains("weft-proxy") == (mode != "iptables"), "{mode}: {tables}");
    ensure!(rules.contains("KUBE-SVC") == (mode == "iptables"), "{mode}: {rules}");
    Ok(())
}
