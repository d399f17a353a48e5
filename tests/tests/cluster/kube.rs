//! The same Services from a Kubernetes API server: `--source kube` with `--kubeconfig`.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Load, Request, eventually, secs};

use crate::fixture::{Serving, WEB_NODE_PORT, assert_exact, names_vip, shares, web_vip};

#[test]
fn the_services_of_an_api_server_are_listed_and_watched() -> Result<()> {
    let serving = Serving::on(Cluster::builder().api_server())?;
    assert_exact(&serving.clients[0], &Request::tcp(web_vip()))?;
    assert_exact(&serving.clients[1], &Request::udp(names_vip()))?;
    let node_port = serving.cluster.node(2).socket_v4(WEB_NODE_PORT);
    assert_exact(serving.cluster.outside(), &Request::tcp(node_port))?;

    serving.set_endpoints(&[0, 2])?;
    served_by(&serving, &["web-1", "web-3"])?;
    serving.set_endpoints(&[0, 1, 2])?;
    served_by(&serving, &["web-1", "web-2", "web-3"])?;

    serving.cluster.manifests().delete("web.yaml")?;
    eventually(secs(5), || {
        let services = serving.cluster.node(1).agent().services()?;
        ensure!(services.iter().all(|service| service.name != "web"), "{services:?}");
        Ok(())
    })?;
    let status = serving.cluster.node(1).agent().status()?;
    ensure!(status.source.as_ref().is_some_and(|source| source.kind == "kube"), "{status:?}");
    serving.shutdown()
}

#[test]
fn an_api_server_that_dies_and_comes_back_does_not_touch_traffic() -> Result<()> {
    let mut serving = Serving::on(Cluster::builder().api_server())?;
    let load = serving.clients[0].load(&Load::new(web_vip(), 500))?;
    // So many changes that the versions of the server that comes back are older than those the agents know.
    for _ in 0..10 {
        serving.set_endpoints(&[0, 1])?;
        serving.set_endpoints(&[0, 1, 2])?;
    }
    served_by(&serving, &["web-1", "web-2", "web-3"])?;
    serving.cluster.manifests_mut().kill_api_server()?;
    assert_exact(&serving.clients[1], &Request::tcp(web_vip()))?;
    serving.cluster.node(1).agent().kill()?;
    serving.cluster.node(1).agent().start()?;
    assert_exact(&serving.clients[2], &Request::tcp(web_vip()))?;
    serving.cluster.manifests_mut().restart_api_server()?;
    serving.set_endpoints(&[1])?;
    served_by(&serving, &["web-2"])?;
    load.finish()?.all_good()?;
    serving.shutdown()
}

/// Waits until a client of another node than the load's is served by exactly these pods, evenly.
fn served_by(serving: &Serving, pods: &[&str]) -> Result<()> {
    let expected = shares(pods, 12 / u64::try_from(pods.len())?);
    eventually(secs(10), || {
        let answers = serving.clients[2].request(&Request::tcp(web_vip()).count(12))?.all_good()?;
        ensure!(answers.by_name == expected, "{} instead of {expected:?}", answers.counts());
        Ok(())
    })?;
    Ok(())
}
