//! `weft trace` says what becomes of a connection; real connections tell whether that is true.

mod agreement;
mod places;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, Request, Trace, eventually, secs};

use crate::{fixture::web_vip, single::Single};

#[test]
fn who_is_next_is_told_and_true() -> Result<()> {
    let single = Single::start(Cluster::builder(), 3)?;
    single.apply_web("", "")?;
    next_is_true(&single, "turn", 20)?;
    // The client's network namespace is found by its processes.
    let _process = single.client.asker()?;
    single.apply_web("  sessionAffinity: ClientIP\n", "")?;
    eventually(secs(10), || {
        let trace = ask(&single, "default/client", "default/web:http")?;
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "{trace:?}");
        single.client.request(&Request::tcp(web_vip()))?.all_good()?;
        let trace = ask(&single, "default/client", "default/web:http")?;
        ensure!(trace.next.as_ref().is_some_and(|next| next.why.contains("affinity")), "{trace:?}");
        Ok(())
    })?;
    next_is_true(&single, "affinity", 3)?;
    single.shutdown()
}

fn next_is_true(single: &Single, why: &str, times: usize) -> Result<()> {
    eventually(secs(10), || {
        let trace = ask(single, "default/client", "default/web:http")?;
        ensure!(trace.endpoints.len() == 3, "{trace:?}");
        Ok(())
    })?;
    for _ in 0..times {
        let trace = ask(single, "default/client", "default/web:http")?;
        let next = trace.next.with_context(|| format!("nobody is next: {:?}", trace.steps))?;
        ensure!(next.why.contains(why), "{next:?}");
        let answers = single.client.request(&Request::tcp(web_vip()))?.all_good()?;
        let server = single.web.iter().find(|pod| pod.addresses().contains(&next.address)).context("a web pod")?;
        ensure!(answers.order == [server.name()], "{next:?}, but {:?} answered", answers.order);
    }
    Ok(())
}

fn ask(single: &Single, from: &str, to: &str) -> Result<Trace> {
    let mut traces = single.node().agent().trace(&[(from.to_owned(), to.to_owned())])?;
    traces.pop().context("an answer")
}

/// Waits until nothing is found, and then, after the damage, until something is.
fn finds(single: &Single, from: &str, to: &str, damage: impl FnOnce() -> Result<()>, text: &str) -> Result<()> {
    eventually(secs(10), || {
        let trace = ask(single, from, to)?;
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "before the damage: {trace:?}");
        ensure!(trace.verdict == "endpoints" && !trace.endpoints.is_empty(), "before the damage: {trace:?}");
        Ok(())
    })?;
    damage()?;
    let trace = ask(single, from, to)?;
    ensure!(trace.findings.iter().any(|finding| finding.contains(text)), "no {text:?} in {trace:#?}");
    Ok(())
}

#[test]
fn a_lost_route_and_lost_elements_of_bpf_maps_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder(), 2)?;
    single.apply_web("  type: NodePort\n", ", nodePort: 30080")?;
    let (client, service) = ("default/client", "default/web:http");
    let pod = single.web[0].socket_v4(0)?.ip().to_string();
    let route = || single.node().run("ip", &["route", "delete", &pod]).map(drop);
    finds(&single, client, service, route, &pod)?;
    let device = ask_device(&single, &pod)?;
    single.node().run("ip", &["route", "add", &pod, "dev", &device])?;
    let pin = single.node().directory().join("bpf/weft/v2/SERVICES4").display().to_string();
    // 10.96.0.10, port 80, TCP, by address.
    let key = ["0x0a", "0x60", "0x00", "0x0a", "0x00", "0x50", "0x06", "0x00"];
    let delete = [&["map", "delete", "pinned", pin.as_str(), "key"][..], &key].concat();
    let element = || single.node().run("bpftool", &delete).map(drop);
    finds(&single, client, service, element, "the kernel says")?;
    single.shutdown()
}

/// Interface of a pod, by `weft pods`.
fn ask_device(single: &Single, pod: &str) -> Result<String> {
    let mut command = single.node().agent().command("pods");
    command.arg("--state-dir").arg(single.node().directory().join("state")).args(["-o", "json"]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pods: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let pods = pods.as_array().context("a list")?;
    ensure!(pods.iter().all(|pod| pod["name"].as_str().is_some_and(|name| name.starts_with("default/"))), "{pods:?}");
    let found = pods.iter().find(|one| one["addresses"][0] == pod).context("the pod is listed")?;
    Ok(found["hostInterface"].as_str().context("an interface")?.to_owned())
}

#[test]
fn lost_nftables_elements_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "nftables"), 2)?;
    single.apply_web("  type: NodePort\n", ", nodePort: 30080")?;
    let element = |map: &str, key: &str| {
        single.node().run("nft", &["delete", "element", "inet", "weft-proxy", map, &format!("{{ {key} }}")]).map(drop)
    };
    let endpoint = || {
        let table = single.node().run("nft", &["-t", "list", "table", "inet", "weft-proxy"])?;
        let map = table.split_whitespace().find(|word| word.starts_with("endpoints-rr4-tcp-2-"));
        element(map.context("a map of two endpoints")?, "10.96.0.10 . 80 . 1")
    };
    finds(&single, "default/client", "default/web:http", endpoint, "missing")?;
    let outside = weft_tests::OUTSIDE_V4.to_string();
    let node_port = single.node().socket_v4(30080).to_string();
    finds(&single, &outside, &node_port, || element("nodeports4", "6 . 30080"), "the kernel says")?;
    single.shutdown()
}

#[test]
fn lost_iptables_chains_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "iptables"), 2)?;
    single.apply_web("", "")?;
    let damage = || {
        let rules = single.node().run("iptables-save", &["-t", "nat"])?;
        let chain = rules.lines().find_map(|line| line.strip_prefix(":KUBE-SEP-")?.split(' ').next());
        let chain = format!("KUBE-SEP-{}", chain.context("a chain of an endpoint")?);
        single.node().run("iptables", &["-t", "nat", "-F", &chain]).map(drop)
    };
    finds(&single, "default/client", "default/web:http", damage, "leads to no endpoint")?;
    single.shutdown()
}
