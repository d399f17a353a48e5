//! What follows the Node object: `nodePortAddresses: primary`, and who counts as local traffic.

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Request, eventually, secs};

use crate::{
    fixture::web_vip,
    single::{Single, answered, fails, node},
};

const SECOND: &str = "192.0.2.101";

#[test]
fn rule_6_3_primary_in_ebpf_mode() -> Result<()> {
    primary_is_the_nodes_own_address("ebpf")
}

#[test]
fn rule_6_3_primary_in_nftables_mode() -> Result<()> {
    primary_is_the_nodes_own_address("nftables")
}

#[test]
fn rule_6_3_primary_in_iptables_mode() -> Result<()> {
    primary_is_the_nodes_own_address("iptables")
}

fn primary_is_the_nodes_own_address(mode: &str) -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", mode).agent_flag("--nodeport-addresses", "primary");
    let first = "192.0.2.1".to_owned();
    let single = Single::with(builder, &node(&[first], ""), 1, &[])?;
    let (outside, host) = (single.cluster.outside(), single.node());
    host.run("ip", &["address", "add", &format!("{SECOND}/24"), "dev", "eth0"])?;
    single.apply_web("  type: NodePort\n", ", nodePort: 30080")?;
    let (first, second) = (host.socket_v4(30080), format!("{SECOND}:30080").parse()?);
    let closed = ["ConnectionRefused"];
    for client in [outside, &*single.client] {
        answered(client, first)?;
        fails(client, second, &closed)?;
    }
    // The node gets another address while the agent runs.
    single.cluster.manifests().apply("node.yaml", &node(&[SECOND.to_owned()], ""))?;
    for client in [outside, &*single.client] {
        answered(client, second)?;
        fails(client, first, &closed)?;
    }
    single.shutdown()
}

#[test]
fn rules_8_1_to_8_8_local_traffic_in_ebpf_mode() -> Result<()> {
    each_detector_tells_local_traffic("ebpf")
}

#[test]
fn rules_8_1_to_8_8_local_traffic_in_nftables_mode() -> Result<()> {
    each_detector_tells_local_traffic("nftables")
}

#[test]
fn rules_8_1_to_8_8_local_traffic_in_iptables_mode() -> Result<()> {
    each_detector_tells_local_traffic("iptables")
}

/// A client outside asks at the ClusterIP: what it is taken for shows in the source address the pod sees.
fn each_detector_tells_local_traffic(mode: &str) -> Result<()> {
    const OUTSIDE: &str = "192.0.2.192/26";
    const OTHERS: &str = "198.51.100.0/24";
    let builder = Cluster::builder().agent_flag("--proxy-mode", mode);
    let single = Single::start(builder, 1)?;
    single.apply_web("", "")?;
    let outside = single.route_outside()?;
    let seen = |keeps_source: bool| -> Result<()> {
        let request = Request::tcp(web_vip()).timeout(secs(1));
        eventually(secs(10), || {
            let answers = outside.request(&request)?.all_good()?;
            let kept = answers.sources.contains_key("192.0.2.200");
            ensure!(kept == keeps_source, "the pod saw {:?}", answers.sources);
            Ok(())
        })?;
        Ok(())
    };
    let node_cidr = ("--detect-local-mode", "NodeCIDR");
    let by_bridge = ("--detect-local-mode", "BridgeInterface");
    let by_prefix = ("--detect-local-mode", "InterfaceNamePrefix");
    type Flags<'a> = &'a [(&'a str, &'a str)];
    let rows: [(Flags<'_>, &str, bool); 9] = [
        (&[], "8.3: no detector", true),
        (&[("--cluster-cidr", OUTSIDE)], "8.1: in the cluster CIDR", true),
        (&[("--cluster-cidr", OTHERS)], "8.2: not in it", false),
        (&[by_bridge, ("--pod-bridge-interface", "eth0")], "8.1: in by the bridge", true),
        (&[by_bridge, ("--pod-bridge-interface", "eth01")], "8.2: not by the bridge", false),
        (&[by_prefix, ("--pod-interface-name-prefix", "eth")], "8.1: in by such an interface", true),
        (&[by_prefix, ("--pod-interface-name-prefix", "veth")], "8.2: by another", false),
        (&[("--cluster-cidr", OUTSIDE), ("--masquerade-all", "true")], "8.4: everybody", false),
        (&[], "8.3: again", true),
    ];
    for (flags, rule, keeps_source) in rows {
        single.restart(flags)?;
        seen(keeps_source).with_context(|| rule.to_owned())?;
    }
    // NodeCIDR waits for the Node, and follows it.
    single.cluster.manifests().apply("node.yaml", &node(&[], OTHERS))?;
    single.restart(&[node_cidr])?;
    seen(false).context("8.2: not in the Node's pod CIDR")?;
    single.cluster.manifests().apply("node.yaml", &node(&[], OUTSIDE))?;
    seen(true).context("8.1: in the Node's pod CIDR, which changed")?;
    single.shutdown()
}
