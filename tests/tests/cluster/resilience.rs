//! The data plane outlives its agent.

use std::{thread, time::Duration};

use crate::fixture::{Serving, WEB_NODE_PORT, assert_exact, web_vip};
use anyhow::{Result, ensure};
use weft_tests::{Cluster, Hold, Load, Request, secs};

const RESTARTS: usize = 10;

#[test]
fn ten_kills_and_restarts_under_load_fail_no_connection() -> Result<()> {
    let serving = Serving::on(Cluster::builder().alone())?;
    let (client, agent) = (&serving.clients[0], serving.cluster.node(1).agent());
    let hold = client.hold(&Hold::new(web_vip()))?;
    let load = client.load(&Load::new(web_vip(), 5500))?;
    for _ in 0..RESTARTS {
        agent.kill()?;
        // The point of it: connections while no agent is there.
        thread::sleep(Duration::from_millis(200));
        agent.start()?;
        agent.wait_ready(secs(10))?;
    }
    let (report, held) = (load.finish()?.all_good()?, hold.finish()?);
    ensure!(report.rate >= 5000.0, "only {:.0} connections a second: {report:?}", report.rate);
    ensure!(held.broken.is_none() && held.round_trips > 100, "{held:?}");
    assert_exact(client, &Request::tcp(web_vip()))?;
    serving.shutdown()
}

#[test]
fn kills_amid_changes_fail_no_connection_in_nftables_mode() -> Result<()> {
    kills_amid_changes_fail_no_connection("nftables")
}

#[test]
fn kills_amid_changes_fail_no_connection_in_iptables_mode() -> Result<()> {
    kills_amid_changes_fail_no_connection("iptables")
}

/// The agent is killed while it, or a program it runs, works on other Services.
fn kills_amid_changes_fail_no_connection(mode: &str) -> Result<()> {
    let serving = Serving::on(Cluster::builder().agent_flag("--proxy-mode", mode).alone())?;
    let (client, agent) = (&serving.clients[0], serving.cluster.node(1).agent());
    let load = client.load(&Load::new(web_vip(), 1000))?;
    for round in 0..RESTARTS {
        // Each time another number of endpoints, for which rules have to be made.
        let endpoints: String = (0..=round).map(|n| format!("- addresses: [10.250.{round}.{n}]\n")).collect();
        serving.cluster.manifests().apply("others.yaml", &others(round, &endpoints))?;
        thread::sleep(Duration::from_millis(7 * u64::try_from(round)?));
        agent.kill()?;
        agent.start()?;
        agent.wait_ready(secs(10))?;
    }
    load.finish()?.all_good()?;
    assert_exact(client, &Request::tcp(web_vip()))?;
    serving.shutdown()
}

/// Twenty Services with these endpoints.
fn others(round: usize, endpoints: &str) -> String {
    let other = |n: usize| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: other-{n}, namespace: default}}
spec: {{clusterIP: 10.96.{round}.{n}, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: other-{n}, namespace: default, labels: {{kubernetes.io/service-name: other-{n}}}}}
addressType: IPv4
ports: [{{port: 80}}]
endpoints:
{endpoints}"
        )
    };
    (100..120).map(other).collect()
}

#[test]
fn node_port_and_overlay_outlive_the_agents() -> Result<()> {
    let serving = Serving::on(Cluster::builder().alone())?;
    let target = serving.cluster.node(1).socket_v4(WEB_NODE_PORT);
    let outside = serving.cluster.outside();
    let hold = outside.hold(&Hold::new(target))?;
    let load = outside.load(&Load::new(target, 1000))?;
    for _ in 0..3 {
        for node in serving.cluster.nodes() {
            node.agent().kill()?;
        }
        thread::sleep(Duration::from_millis(200));
        for node in serving.cluster.nodes() {
            node.agent().start()?;
        }
        for node in serving.cluster.nodes() {
            node.agent().wait_ready(secs(10))?;
        }
    }
    let held = hold.finish()?;
    load.finish()?.all_good()?;
    ensure!(held.broken.is_none(), "{held:?}");
    serving.shutdown()
}

#[test]
fn an_agent_that_is_asked_to_stop_leaves_the_data_plane() -> Result<()> {
    let serving = Serving::start()?;
    for node in serving.cluster.nodes() {
        node.agent().stop()?;
    }
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    assert_exact(serving.cluster.outside(), &Request::tcp(serving.cluster.node(1).socket_v4(WEB_NODE_PORT)))?;
    serving.shutdown()
}

#[test]
fn a_restarted_agent_keeps_its_subnet_and_its_vtep() -> Result<()> {
    let serving = Serving::start()?;
    let agent = serving.cluster.node(2).agent();
    let before = agent.status()?.overlay;
    agent.kill()?;
    agent.start()?;
    agent.wait_ready(secs(10))?;
    let after = agent.status()?.overlay;
    let identity = |overlay: Option<weft_tests::OverlayStatus>| overlay.map(|o| (o.subnet, o.vtep_mac, o.public_ip));
    let (before, after) = (identity(before), identity(after));
    ensure!(before == after && before.is_some(), "before {before:?}, after {after:?}");
    serving.shutdown()
}
