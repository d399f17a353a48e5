//! What API servers and the networks to them do to an agent, under load: nothing of it reaches a connection.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;
use weft_tests::{Cluster, Load, Request, eventually, secs};

use crate::fixture::{Serving, assert_exact, shares, web_vip};

fn serving() -> Result<Serving> {
    Serving::on(Cluster::builder().small_api_server())
}

/// Waits until a client of another node than the load's is served by exactly these pods, evenly.
fn served_by(serving: &Serving, pods: &[&str]) -> Result<()> {
    let expected = shares(pods, 12 / u64::try_from(pods.len())?);
    eventually(secs(30), || {
        let answers = serving.clients[2].request(&Request::tcp(web_vip()).count(12))?.all_good()?;
        ensure!(answers.by_name == expected, "{} instead of {expected:?}", answers.counts());
        Ok(())
    })?;
    Ok(())
}

/// Waits until the agent of node 3 warns of its source, or until it does not.
fn warned(serving: &Serving, wanted: &str) -> Result<()> {
    // Longer than a minute: so often a client reads its token again (kube 5.0).
    eventually(secs(90), || {
        let source = serving.cluster.node(3).agent().status()?.source;
        let warnings = source.map(|source| source.warnings).unwrap_or_default();
        let is =
            if wanted.is_empty() { warnings.is_empty() } else { warnings.iter().any(|text| text.contains(wanted)) };
        ensure!(is, "warnings are {warnings:?}, wanted: {wanted:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn watches_that_are_late_doubled_cut_or_dropped_are_followed_all_the_same() -> Result<()> {
    let serving = serving()?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 200))?;
    let faults = json!({"delayMs": 10, "duplicateEvery": 2, "dropEvery": 5, "truncateEvery": 7});
    serving.cluster.manifests().api_server_faults(&faults)?;
    for _ in 0..10 {
        serving.set_endpoints(&[0, 1])?;
        serving.set_endpoints(&[0, 1, 2])?;
    }
    serving.set_endpoints(&[0, 2])?;
    served_by(&serving, &["web-1", "web-3"])?;
    load.finish()?.all_good()?;
    serving.shutdown()
}

#[test]
fn an_agent_lists_in_pages_where_there_are_no_streaming_lists() -> Result<()> {
    let mut serving = serving()?;
    // More than fit on a page.
    let many: Vec<String> = (0..600)
        .map(|number| {
            let ip = format!("10.96.{}.{}", 100 + number / 250, number % 250 + 1);
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: many-{number}}}\n\
                 spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
            )
        })
        .collect();
    serving.cluster.manifests_mut().kill_api_server()?;
    fs::write(serving.cluster.manifests().directory().join("many.yaml"), many.join("---\n"))?;
    serving.cluster.manifests_mut().restart_api_server()?;
    serving.cluster.manifests().api_server_faults(&json!({"noStreamingLists": true}))?;
    let agent = serving.cluster.node(3).agent();
    agent.kill()?;
    agent.start()?;
    eventually(secs(30), || {
        let count = agent.status()?.proxy.map_or(0, |proxy| proxy.services);
        ensure!(count == 602, "{count} Services");
        Ok(())
    })?;
    serving.set_endpoints(&[1])?;
    served_by(&serving, &["web-2"])?;
    serving.shutdown()
}

#[test]
fn an_api_server_that_flaps_does_not_touch_traffic() -> Result<()> {
    let mut serving = serving()?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 200))?;
    for round in 0..5 {
        serving.cluster.manifests_mut().kill_api_server()?;
        assert_exact(&serving.clients[1], &Request::tcp(web_vip()))?;
        // Older and newer versions in turn, as from several servers that are not equally far.
        serving.cluster.manifests_mut().restart_api_server_from(if round % 2 == 0 { 1_000_000 } else { 1 })?;
        serving.set_endpoints(&[0, 1])?;
        serving.set_endpoints(&[0, 1, 2])?;
    }
    serving.set_endpoints(&[2])?;
    served_by(&serving, &["web-3"])?;
    load.finish()?.all_good()?;
    serving.shutdown()
}

#[test]
fn versions_that_expire_are_listed_again() -> Result<()> {
    let serving = serving()?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 200))?;
    serving.cluster.manifests().api_server_faults(&json!({"expire": true, "dropEvery": 1}))?;
    serving.set_endpoints(&[0, 1])?;
    served_by(&serving, &["web-1", "web-2"])?;
    serving.cluster.manifests().api_server_faults(&json!({"refuse": true}))?;
    warned(&serving, "cannot be watched")?;
    served_by(&serving, &["web-1", "web-2"])?;
    serving.cluster.manifests().api_server_faults(&json!({}))?;
    serving.set_endpoints(&[0, 1, 2])?;
    served_by(&serving, &["web-1", "web-2", "web-3"])?;
    load.finish()?.all_good()?;
    serving.shutdown()
}

#[test]
fn an_empty_backup_deletes_nothing_until_someone_says_so() -> Result<()> {
    let mut serving = serving()?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 200))?;
    serving.cluster.manifests_mut().kill_api_server()?;
    serving.cluster.manifests_mut().restart_api_server_empty()?;
    warned(&serving, "restored backup")?;
    assert_exact(&serving.clients[2], &Request::tcp(web_vip()))?;
    // A new process knows no more than the file says, and leaves the kernel as it is.
    let agent = serving.cluster.node(3).agent();
    agent.kill()?;
    agent.start()?;
    warned(&serving, "restored backup")?;
    assert_exact(&serving.clients[2], &Request::tcp(web_vip()))?;

    serving.cluster.manifests_mut().kill_api_server()?;
    serving.cluster.manifests_mut().restart_api_server_from(2_000_000)?;
    warned(&serving, "")?;
    serving.set_endpoints(&[0, 2])?;
    served_by(&serving, &["web-1", "web-3"])?;
    load.finish()?.all_good()?;

    serving.cluster.manifests_mut().kill_api_server()?;
    serving.cluster.manifests_mut().restart_api_server_empty()?;
    warned(&serving, "restored backup")?;
    let agent = serving.cluster.node(3).agent();
    agent.kill()?;
    agent.start_with(&[("--trust-empty-lists", "true")])?;
    eventually(secs(30), || {
        let services = agent.services()?;
        ensure!(services.is_empty(), "{services:?}");
        Ok(())
    })?;
    serving.shutdown()
}

#[test]
fn a_malformed_object_costs_only_itself() -> Result<()> {
    let serving = serving()?;
    let manifests = serving.cluster.manifests();
    manifests
        .apply("strange.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: strange}\nspec: {ports: eighty}\n")?;
    let rejected = |serving: &Serving| -> Result<()> {
        eventually(secs(30), || {
            let source = serving.cluster.node(3).agent().status()?.source;
            let rejected = source.map(|source| source.rejected).unwrap_or_default();
            ensure!(rejected.iter().any(|object| object.object == "Service default/strange"), "{rejected:?}");
            Ok(())
        })?;
        Ok(())
    };
    rejected(&serving)?;
    // Also in a list.
    let agent = serving.cluster.node(3).agent();
    agent.kill()?;
    agent.start()?;
    rejected(&serving)?;
    serving.set_endpoints(&[0, 2])?;
    served_by(&serving, &["web-1", "web-3"])?;
    serving.shutdown()
}

#[test]
fn a_rotated_token_is_read_again() -> Result<()> {
    let mut serving = serving()?;
    let directory = serving.cluster.run().directory();
    let token = directory.join("token");
    fs::write(&token, "first")?;
    let kubeconfig = directory.join("kubeconfig");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&kubeconfig)?)?;
    config["users"][0]["user"] = json!({"tokenFile": token});
    fs::write(&kubeconfig, config.to_string())?;
    serving.cluster.manifests_mut().kill_api_server()?;
    serving.cluster.manifests_mut().restart_api_server_with_token(&token)?;
    let agent = serving.cluster.node(3).agent();
    agent.kill()?;
    agent.start()?;
    agent.wait_ready(secs(30))?;
    warned(&serving, "")?;
    fs::write(&token, "second")?;
    // A new connection, which has to show the new one.
    serving.cluster.manifests_mut().kill_api_server()?;
    warned(&serving, "cannot be watched")?;
    serving.cluster.manifests_mut().restart_api_server_with_token(&token)?;
    warned(&serving, "")?;
    serving.shutdown()
}
