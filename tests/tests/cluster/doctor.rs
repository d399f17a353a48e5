//! `weft doctor` on nodes that are well, and on nodes that somebody has broken in one way.

use std::{collections::BTreeSet, fs, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use weft_tests::{Cluster, Node, OUTSIDE_V4};

/// As `-o json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Finding {
    check: String,
    verdict: String,
    seen: String,
    advice: Option<String>,
}

/// What it finds on a node that needs something to be done, and whether it says so by its exit code.
fn doctor(node: &Node) -> Result<BTreeSet<Finding>> {
    doctor_with(node, &[])
}

fn doctor_with(node: &Node, flags: &[&str]) -> Result<BTreeSet<Finding>> {
    let path = |part: &str| node.directory().join(part).display().to_string();
    let mut command = node.agent().command("doctor");
    command.args(["-o", "json", "--hostname-override", node.name()]);
    for (flag, part) in [
        ("--bpffs", "bpf"),
        ("--run-dir", "run"),
        ("--state-dir", "state"),
        ("--subnet-file", "run/subnet.env"),
        ("--cni-conf-dir", "cni-conf"),
        ("--cni-bin-dir", "cni-bin"),
    ] {
        command.args([flag, &path(part)]);
    }
    let output = command.arg("--cgroup-root").arg(node.cgroup()).args(flags).output().context("weft doctor")?;
    let findings: Vec<Finding> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("weft doctor: {}", String::from_utf8_lossy(&output.stderr)))?;
    let problem = findings.iter().any(|finding| finding.verdict == "problem");
    ensure!(output.status.code() == Some(i32::from(problem)), "{}: {findings:#?}", output.status);
    Ok(findings.into_iter().filter(|finding| ["warning", "problem"].contains(&finding.verdict.as_str())).collect())
}

/// The only finding that was not there before.
fn only_new(node: &Node, before: &BTreeSet<Finding>) -> Result<Finding> {
    let after = doctor(node)?;
    let new: Vec<&Finding> = after.difference(before).collect();
    ensure!(new.len() == 1, "{new:#?}");
    ensure!(new[0].advice.is_some(), "{new:#?}");
    Ok(new[0].clone())
}

fn expect(finding: &Finding, check: &str, verdict: &str, seen: &str) -> Result<()> {
    let as_expected = finding.check == check && finding.verdict == verdict && finding.seen.contains(seen);
    ensure!(as_expected, "{finding:#?} instead of a {verdict} of {check} with {seen:?}");
    Ok(())
}

#[test]
fn a_healthy_cluster_has_no_problem_and_each_broken_thing_is_one_finding() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let node = cluster.node(1);
    let healthy = doctor(node)?;
    ensure!(healthy.iter().all(|finding| finding.verdict != "problem"), "{healthy:#?}");

    // A configuration that comes first by its name.
    let foreign = node.directory().join("cni-conf/05-other.conflist");
    fs::write(&foreign, r#"{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}"#)?;
    expect(&only_new(node, &healthy)?, "configuration-order", "problem", "05-other.conflist")?;
    fs::remove_file(foreign)?;

    node.run("ip", &["link", "add", "cni0", "type", "bridge"])?;
    expect(&only_new(node, &healthy)?, "flannel", "warning", "cni0")?;
    node.run("ip", &["link", "delete", "cni0"])?;

    node.run("nft", &["add", "table", "ip", "flannel-ipv4"])?;
    expect(&only_new(node, &healthy)?, "flannel", "warning", "flannel-ipv4")?;
    node.run("nft", &["delete", "table", "ip", "flannel-ipv4"])?;

    node.run("nft", &["add", "table", "ip", "kube-proxy"])?;
    expect(&only_new(node, &healthy)?, "kube-proxy", "warning", "nftables table ip kube-proxy")?;
    node.run("nft", &["delete", "table", "ip", "kube-proxy"])?;

    node.run("ip", &["link", "add", "kube-ipvs0", "type", "bridge"])?;
    expect(&only_new(node, &healthy)?, "kube-proxy", "problem", "kube-ipvs0")?;
    node.run("ip", &["link", "delete", "kube-ipvs0"])?;

    ensure!(doctor(node)? == healthy, "something is left: {:#?}", doctor(node)?);
    cluster.shutdown()
}

#[test]
fn packets_that_do_not_arrive_are_measured() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (node, other) = (cluster.node(1), cluster.node(2));
    let healthy = doctor(node)?;
    ensure!(healthy.iter().all(|finding| finding.verdict != "problem"), "{healthy:#?}");

    // A network that drops larger packets without a word.
    let filter = "add table netdev narrow; add chain netdev narrow in { type filter hook ingress device eth0 priority 0; }; \
                  add rule netdev narrow in ip length > 1400 drop";
    other.run("nft", &[filter])?;
    let found = only_new(node, &healthy)?;
    expect(&found, "mtu", "problem", &format!("({}): packets of 1500 bytes do not arrive", other.v4()))?;
    expect(&found, "mtu", "problem", "only those up to 1400")?;
    ensure!(found.advice.as_ref().is_some_and(|advice| advice.contains("lower it by 100")), "{found:#?}");
    other.run("nft", &["delete table netdev narrow"])?;

    // Stands for hardware that spoils checksums: the datagram whose checksum is left to it does not arrive.
    let filter = "add table inet card; add chain inet card in { type filter hook prerouting priority -400; }; \
                  add rule inet card in iifname flannel.1 udp length 41 drop";
    other.run("nft", &[filter])?;
    expect(&only_new(node, &healthy)?, "checksum-offload", "problem", "checksums left to the hardware")?;
    other.run("nft", &["delete table inet card"])?;

    let filter = "add table inet wall; add chain inet wall in { type filter hook input priority -400; }; \
                  add rule inet wall in udp dport 8472 drop";
    other.run("nft", &[filter])?;
    expect(&only_new(node, &healthy)?, "path", "problem", "the node answers, but not through the tunnel")?;
    other.run("nft", &["delete table inet wall"])?;
    ensure!(doctor(node)? == healthy, "something is left");
    cluster.shutdown()
}

#[test]
fn before_the_agent_runs_what_would_stop_it_is_found() -> Result<()> {
    let cluster = Cluster::builder().without_agents().build()?;
    let node = cluster.node(1);
    node.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
    let before = doctor(node)?;
    ensure!(before.iter().all(|finding| finding.verdict != "problem"), "{before:#?}");

    node.run("sh", &["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])?;
    expect(&only_new(node, &before)?, "ip-forward", "warning", "ip_forward is not 1")?;
    node.run("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;

    let tunnel = "ip link add flannel.1 type vxlan id 1 dstport 8472 local $0 dev eth0 nolearning && \
                  echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter && echo 1 > /proc/sys/net/ipv4/conf/flannel.1/rp_filter";
    node.run("sh", &["-c", tunnel, &node.v4().to_string()])?;
    expect(&only_new(node, &before)?, "rp-filter", "warning", "strict on flannel.1")?;
    node.run("ip", &["link", "delete", "flannel.1"])?;

    // Somebody else at the port of the health checks: a program of another name than the agent's.
    let server = node.serve_as("other", 10256)?;
    expect(&only_new(node, &before)?, "port", "problem", "10256/tcp (health) is taken by weft-testkit")?;
    drop(server);
    // With other flags another port matters.
    let server = node.serve_as("other", 20256)?;
    ensure!(doctor(node)? == before, "nobody asked for that port");
    let found = doctor_with(node, &["--healthz-bind-address=0.0.0.0:20256"])?;
    let taken = |finding: &&Finding| finding.seen.contains("20256/tcp (health) is taken by weft-testkit");
    ensure!(found.iter().filter(taken).count() == 1, "{found:#?}");
    drop(server);

    let mut unreachable = node.agent().command("doctor");
    let url = format!("http://{}:1", Ipv4Addr::LOCALHOST);
    let output = unreachable.args(["--master", &url, "--run-dir", "/nonexistent"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1), "{text}");
    ensure!(text.contains("API server\n  PROBLEM  api: http://127.0.0.1:1/ does not answer"), "{text}");
    cluster.shutdown()
}

#[test]
fn the_api_server_is_asked_for_what_the_agent_needs() -> Result<()> {
    let cluster = Cluster::builder().api_server().build()?;
    let node = cluster.node(1);
    let kubeconfig = cluster.run().directory().join("kubeconfig").display().to_string();
    let problems = || -> Result<Vec<Finding>> {
        let found = doctor_with(node, &["--kubeconfig", &kubeconfig])?;
        Ok(found.into_iter().filter(|finding| finding.verdict == "problem").collect())
    };
    let one = |check: &str, seen: &str| -> Result<()> {
        let found = problems()?;
        ensure!(found.len() == 1, "{found:#?}");
        expect(&found[0], check, "problem", seen)
    };
    one("node", "there is no Node n1")?;
    let object =
        |name: &str, spec: &str| format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    let manifests = cluster.manifests();
    manifests.apply("n1.yaml", &object("n1", "{}"))?;
    one("pod-cidr", "Node n1 has no podCIDR")?;
    manifests.apply("n1.yaml", &object("n1", "{podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}"))?;
    ensure!(problems()?.is_empty(), "{:#?}", problems()?);
    manifests.apply("n2.yaml", &object("n2", "{podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}"))?;
    one("duplicate", "podCIDR 10.244.1.0/24 belongs to n1 and n2")?;
    cluster.shutdown()
}

#[test]
fn before_the_install_the_network_between_the_nodes_is_tried() -> Result<()> {
    let cluster = Cluster::builder().api_server().nodes(2).without_agents().build()?;
    let (node, other) = (cluster.node(1), cluster.node(2));
    for node in cluster.nodes() {
        let object = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: 10.244.{last}.0/24}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n",
            name = node.name(),
            last = node.v4().octets()[3],
            address = node.v4(),
        );
        cluster.manifests().apply(&format!("{}.yaml", node.name()), &object)?;
    }
    let kubeconfig = cluster.run().directory().join("kubeconfig").display().to_string();
    let find = || doctor_with(node, &["--kubeconfig", &kubeconfig]);
    // As if the kubeconfig named the Service: who serves that after a reboot?
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: kubernetes, namespace: default}}\n\
         spec: {{clusterIP: {OUTSIDE_V4}, clusterIPs: [{OUTSIDE_V4}], ports: [{{port: 443}}]}}\n"
    );
    cluster.manifests().apply("kubernetes.yaml", &service)?;
    let found = find()?;
    ensure!(found.iter().any(|one| one.check == "api-address" && one.verdict == "warning"), "{found:#?}");
    cluster.manifests().delete("kubernetes.yaml")?;
    let well = find()?;
    ensure!(well.iter().all(|finding| finding.verdict != "problem"), "{well:#?}");
    let filter = "add table netdev narrow; add chain netdev narrow in { type filter hook ingress device eth0 priority 0; }; \
                  add rule netdev narrow in ip length > 1300 drop";
    other.run("nft", &[filter])?;
    let found = find()?;
    let new: Vec<&Finding> = found.difference(&well).collect();
    ensure!(new.len() == 1, "{new:#?}");
    expect(new[0], "mtu", "problem", &format!("Node n2 ({}): packets of 1500 bytes do not arrive", other.v4()))?;
    cluster.shutdown()
}
