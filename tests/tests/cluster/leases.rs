//! Leases from the Kubernetes API and from etcd: agents as users start them, traffic between their pods.

use std::{
    collections::BTreeSet,
    fs::File,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use weft_tests::{Cluster, Load, Node, OUTSIDE_V4, Pod, Request, eventually, secs};

/// Services are tested elsewhere.
const COMPONENTS: (&str, &str) = ("--components", "overlay,cni");

/// A serving pod on each node, and a request from each to each.
fn pods_that_reach_each_other(cluster: &Cluster) -> Result<Vec<(Pod, weft_tests::Server)>> {
    let mut pods = Vec::new();
    for node in cluster.nodes() {
        let pod = node.pod(&format!("web-{}", node.name()))?;
        let server = pod.serve()?;
        pods.push((pod, server));
    }
    for (from, _) in &pods {
        for (to, _) in &pods {
            from.request(&Request::tcp(to.socket_v4(8080)?))?.all_good()?;
        }
    }
    Ok(pods)
}

/// Waits until each node has a subnet of its own and sees the others.
fn all_joined(cluster: &Cluster) -> Result<()> {
    eventually(secs(20), || {
        let mut subnets = BTreeSet::new();
        for node in cluster.nodes() {
            let overlay = node.agent().status()?.overlay.context("no overlay")?;
            let others = cluster.nodes().len() - 1;
            ensure!(overlay.peers_up() == others && overlay.peers.len() == others, "{}: {overlay:?}", node.name());
            subnets.insert(overlay.subnet);
        }
        ensure!(subnets.len() == cluster.nodes().len(), "{subnets:?}");
        Ok(())
    })
    .with_context(|| cluster.nodes().iter().map(|node| node.agent().log_tail()).collect::<Vec<_>>().join("\n\n"))?;
    Ok(())
}

fn node_yaml(number: usize) -> String {
    let cidr = format!("10.244.{}.0/24", 10 + number);
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\nspec: {{podCIDR: {cidr}, podCIDRs: [{cidr}]}}\n"
    )
}

/// What keeps a node's network from starting.
fn waiting_for(node: &Node) -> Result<String> {
    let mut command = node.agent().command("status");
    let output = command.args(["-o", "json", "--run-dir"]).arg(node.directory().join("run")).output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    status["overlay"]["error"].as_str().map(str::to_owned).with_context(|| status.to_string())
}

/// The API server's view of a Node.
fn node_object(cluster: &Cluster, name: &str) -> Result<Value> {
    cluster.manifests().get(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
}

#[test]
fn kube_leases_follow_the_nodes_of_the_api_server() -> Result<()> {
    let builder = Cluster::builder().nodes(3).api_server().without_agents().agent_flag(COMPONENTS.0, COMPONENTS.1);
    let mut cluster = builder.agent_flag("--subnet-manager", "kube").build()?;
    for node in cluster.nodes() {
        node.agent().start()?;
    }
    // Nodes come, and get their pod CIDRs, after the agents: these wait and say so.
    eventually(secs(10), || {
        let error = waiting_for(cluster.node(1))?;
        ensure!(error == "there is no Node \"n1\"", "{error}");
        Ok(())
    })?;
    for number in 1..=3 {
        cluster.manifests().apply(&format!("n{number}.yaml"), &node_yaml(number))?;
    }
    all_joined(&cluster)?;
    let status = |cluster: &Cluster| cluster.node(1).agent().status()?.overlay.context("no overlay");
    ensure!(status(&cluster)?.subnet == "10.244.11.0/24", "{:?}", status(&cluster));
    let pods = pods_that_reach_each_other(&cluster)?;
    let object = node_object(&cluster, "n2")?;
    let annotation = |key: &str| object["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")].as_str();
    ensure!(annotation("public-ip") == Some("192.0.2.2") && annotation("backend-type") == Some("vxlan"), "{object}");
    eventually(secs(5), || {
        let object = node_object(&cluster, "n2")?;
        let condition = &object["status"]["conditions"][0];
        ensure!(condition["type"] == "NetworkUnavailable" && condition["status"] == "False", "{object}");
        Ok(())
    })?;

    // A Node deleted and re-created is announced again, without a restart (flannel-defects.md C.4).
    cluster.manifests().delete("n2.yaml")?;
    eventually(secs(5), || {
        let status = status(&cluster)?;
        ensure!(status.peers.len() == 1, "{status:?}");
        Ok(())
    })?;
    cluster.manifests().apply("n2.yaml", &node_yaml(2))?;
    all_joined(&cluster)?;
    let target = pods[1].0.socket_v4(8080)?;
    pods[0].0.request(&Request::tcp(target))?.all_good()?;

    // The API server goes for good: nobody notices.
    let load = pods[0].0.load(&Load::new(target, 200))?;
    cluster.manifests_mut().kill_api_server()?;
    pods[2].0.request(&Request::tcp(target).count(50))?.all_good()?;
    load.finish()?.all_good()?;
    drop(pods);
    cluster.shutdown()
}

#[test]
fn an_agent_that_starts_beside_an_emptied_api_server_keeps_its_peers_until_someone_says_so() -> Result<()> {
    let builder = Cluster::builder().nodes(3).api_server().without_agents().agent_flag(COMPONENTS.0, COMPONENTS.1);
    let mut cluster = builder.agent_flag("--subnet-manager", "kube").build()?;
    for number in 1..=3 {
        cluster.manifests().apply(&format!("n{number}.yaml"), &node_yaml(number))?;
    }
    for node in cluster.nodes() {
        node.agent().start()?;
    }
    all_joined(&cluster)?;
    let pods = pods_that_reach_each_other(&cluster)?;
    let load = pods[0].0.load(&Load::new(pods[1].0.socket_v4(8080)?, 200))?;
    // An old backup: one Node is back, as kubelet registers it.
    cluster.manifests_mut().kill_api_server()?;
    cluster.manifests_mut().restart_api_server_empty()?;
    cluster.manifests().apply("n1.yaml", &node_yaml(1))?;
    let agent = cluster.node(1).agent();
    agent.kill()?;
    agent.start()?;
    let routes = || cluster.node(1).run("ip", &["route", "show", "dev", "flannel.1"]);
    eventually(secs(20), || {
        let error = waiting_for(cluster.node(1))?;
        ensure!(error.contains("Nodes: the API server lists 1 where there were 3"), "{error}");
        Ok(())
    })?;
    agent.wait_ready(secs(20))?;
    ensure!(routes()?.lines().count() == 2, "{}", routes()?);
    pods[0].0.request(&Request::tcp(pods[2].0.socket_v4(8080)?).count(20))?.all_good()?;
    load.finish()?.all_good()?;

    agent.kill()?;
    agent.start_with(&[("--trust-empty-lists", "true")])?;
    eventually(secs(20), || {
        let routes = routes()?;
        ensure!(routes.is_empty(), "{routes}");
        Ok(())
    })?;
    drop(pods);
    cluster.shutdown()
}

/// Status and reason of a Node's condition NetworkUnavailable.
fn network_unavailable(cluster: &Cluster, name: &str) -> Result<(String, String)> {
    let object = node_object(cluster, name)?;
    let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
    let ours = conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable");
    let ours = ours.with_context(|| object.to_string())?;
    let text = |key: &str| ours[key].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("message")))
}

#[test]
fn defect_d3_a_node_whose_network_is_down_says_so_and_takes_it_back() -> Result<()> {
    let builder = Cluster::builder().nodes(2).api_server().without_agents().agent_flag(COMPONENTS.0, COMPONENTS.1);
    let cluster = builder.agent_flag("--subnet-manager", "kube").build()?;
    for number in 1..=2 {
        cluster.manifests().apply(&format!("n{number}.yaml"), &node_yaml(number))?;
    }
    for node in cluster.nodes() {
        node.agent().start()?;
    }
    all_joined(&cluster)?;
    let pods = pods_that_reach_each_other(&cluster)?;
    let is = |status: &str, message: &str| {
        eventually(secs(40), || {
            let now = network_unavailable(&cluster, "n1")?;
            ensure!(now.0 == status && now.1.contains(message), "{now:?}");
            Ok(())
        })
    };
    is("False", "")?;
    // VNI and port are taken by a device of another name: ours cannot be made again, and pods are cut off.
    cluster.node(1).run("ip", &["link", "set", "flannel.1", "name", "thief"])?;
    is("True", "flannel.1")?;
    ensure!(network_unavailable(&cluster, "n2")?.0 == "False", "the other node's network is up");
    cluster.node(1).run("ip", &["link", "delete", "thief"])?;
    is("False", "")?;
    pods[0].0.request(&Request::tcp(pods[1].0.socket_v4(8080)?))?.all_good()?;
    drop(pods);
    cluster.shutdown()
}

/// etcd on the outside host.
fn start_etcd(cluster: &Cluster) -> Result<Child> {
    let url = format!("http://{OUTSIDE_V4}:2379");
    let data = cluster.run().directory().join("etcd");
    let mut command = cluster.outside().command("etcd");
    command.arg("--data-dir").arg(&data).args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    // A single member need not wait long before it elects itself.
    command.args(["--heartbeat-interval", "20", "--election-timeout", "100"]);
    command.args(["--logger", "zap", "--log-level", "panic"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start etcd")
}

/// Writes a key through etcd's JSON gateway, as soon as it answers.
fn put(cluster: &Cluster, key: &str, value: &str) -> Result<()> {
    let script = format!(
        "curl -sf -m 2 http://{OUTSIDE_V4}:2379/v3/kv/put -d \
         '{{\"key\":\"'$(printf %s '{key}' | base64 -w0)'\",\"value\":\"'$(printf %s '{value}' | base64 -w0)'\"}}'"
    );
    eventually(secs(10), || cluster.outside().run("sh", &["-c", &script]))?;
    Ok(())
}

/// The kit's agents always have a file with the network configuration; this one looks for it in etcd.
fn start_without_net_conf(node: &Node) -> Result<Child> {
    let log = File::create(node.directory().join("agent.log"))?;
    let arguments = node.agent().arguments().into_iter().filter(|argument| !argument.starts_with("--net-conf="));
    let mut command = node.agent().command("agent");
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("start the agent")
}

/// How long etcd is frozen: long enough for every agent to notice (it pings every 5 s, and waits 5 s).
const FROZEN: Duration = secs(12);

/// How long it is dead, while other tests run: the time that issue 4 names.
const DEAD: Duration = secs(60);

#[test]
fn etcd_leases_survive_an_outage_of_etcd_without_a_lost_packet() -> Result<()> {
    let endpoints = format!("http://{OUTSIDE_V4}:4001,http://{OUTSIDE_V4}:2379");
    let builder = Cluster::builder().nodes(3).without_agents().agent_flag(COMPONENTS.0, COMPONENTS.1);
    let builder = builder.agent_flag("--subnet-manager", "etcd").agent_flag("--etcd-endpoints", &endpoints);
    let cluster = builder.build()?;
    // Before etcd: they wait for it, and then for the network configuration.
    let mut agents = cluster.nodes().iter().map(start_without_net_conf).collect::<Result<Vec<_>>>()?;
    let mut etcd = start_etcd(&cluster)?;
    put(&cluster, "/coreos.com/network/config", r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#)?;
    all_joined(&cluster)?;
    let pods = pods_that_reach_each_other(&cluster)?;

    let load = pods[0].0.load(&Load::new(pods[1].0.socket_v4(8080)?, 200))?;
    let between = || pods[2].0.request(&Request::tcp(pods[0].0.socket_v4(8080)?).count(50))?.all_good();
    let etcd_pid = Pid::from_raw(i32::try_from(etcd.id())?);
    kill(etcd_pid, Signal::SIGSTOP)?;
    std::thread::sleep(FROZEN);
    between()?;
    kill(etcd_pid, Signal::SIGCONT)?;
    etcd.kill()?;
    etcd.wait()?;
    std::thread::sleep(DEAD);
    between()?;
    let mut etcd = start_etcd(&cluster)?;
    // They follow again: a peer that looks like flannel's is programmed everywhere.
    let peer = r#"{"PublicIP":"192.0.2.77","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}}"#;
    put(&cluster, "/coreos.com/network/subnets/10.244.77.0-24", peer)?;
    eventually(secs(15), || {
        for node in cluster.nodes() {
            let overlay = node.agent().status()?.overlay.context("no overlay")?;
            ensure!(overlay.peers_up() == 3, "{}: {overlay:?}", node.name());
        }
        Ok(())
    })?;
    load.finish()?.all_good()?;
    drop(pods);
    for child in &mut agents {
        child.kill()?;
        child.wait()?;
    }
    cleanup_gives_the_lease_back(&cluster)?;
    etcd.kill()?;
    etcd.wait()?;
    cluster.shutdown()
}

/// `weft cleanup` is another process than the one that took the lease.
fn cleanup_gives_the_lease_back(cluster: &Cluster) -> Result<()> {
    // All keys below subnets/, in base64.
    let script = format!(
        "curl -sf -m 5 http://{OUTSIDE_V4}:2379/v3/kv/range -d \
         '{{\"key\":\"'$(printf /coreos.com/network/subnets/ | base64 -w0)'\",\
           \"range_end\":\"'$(printf /coreos.com/network/subnets0 | base64 -w0)'\",\"count_only\":true}}'"
    );
    let count = || -> Result<Value> {
        let answer: Value = serde_json::from_str(&cluster.outside().run("sh", &["-c", &script])?)?;
        Ok(answer["count"].clone())
    };
    // Three nodes and the peer that looks like flannel's.
    ensure!(count()? == "4", "{:?}", count());
    let node = cluster.node(1);
    let arguments = node.agent().arguments().into_iter().filter(|argument| !argument.starts_with("--net-conf="));
    let output = node.agent().command("cleanup").args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(count()? == "3", "{:?}", count());
    Ok(())
}
