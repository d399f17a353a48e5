//! Pods come, work, outlive what restarts around them, and go.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use weft_tests::{Request, eventually, secs};

use crate::{
    cri::PodSpec,
    fixture::{CriPod, Fixture, PORT, with_containerd},
    image::TESTKIT,
};

/// Pods started at once.
const CROWD: usize = 50;

#[test]
fn a_pod_gets_an_address_of_the_node_and_talks_to_other_nodes() -> Result<()> {
    with_containerd(|fixture| {
        let installed = std::fs::symlink_metadata(fixture.node().directory().join("cni-bin/weft-cni"))?;
        ensure!(installed.is_file() && installed.permissions().mode() & 0o111 == 0o111, "{installed:?}");
        let (pod, container) = fixture.serving_pod(&PodSpec::named("web"))?;
        in_subnet_of_node(fixture, &pod)?;
        let far = fixture.cluster.node(2).pod("far")?;
        let _server = far.serve()?;
        let answers = far.request(&Request::tcp(pod.socket(PORT)?).count(5))?.all_good()?;
        let far_address = far.socket_v4(0)?.ip().to_string();
        ensure!(answers.by_name["web"] == 5 && answers.sources[&far_address] == 5, "{answers:?}");
        let answers = fixture.request_in(&container, &Request::tcp(far.socket_v4(PORT)?).count(5))?.all_good()?;
        ensure!(answers.by_name["far"] == 5 && answers.sources[&pod.address] == 5, "{answers:?}");
        let help = fixture.cri.exec(&container, &[TESTKIT.to_owned(), "--help".to_owned()])?;
        ensure!(help.contains("Usage"), "{help}");
        fixture.remove(&pod)?;
        fixture.nothing_left()
    })
}

#[test]
fn pods_outlive_containerd_and_the_agent_and_are_removed_after_it() -> Result<()> {
    with_containerd(|fixture| {
        let (before, container) = fixture.serving_pod(&PodSpec::named("before"))?;
        let far = fixture.cluster.node(2).pod("far")?;
        let request = Request::tcp(before.socket(PORT)?).count(3);

        fixture.containerd.stop()?;
        far.request(&request)?.all_good().context("while containerd is stopped")?;
        fixture.containerd.start_again()?;
        fixture.containerd.kill()?;
        far.request(&request)?.all_good().context("while containerd is dead")?;
        fixture.node().agent().kill()?;
        far.request(&request)?.all_good().context("while the agent is dead too")?;
        fixture.containerd.start_again()?;
        ready_again(fixture, "before")?;

        // ADD and DEL do not need the agent.
        let (without_agent, _) = fixture.serving_pod(&PodSpec::named("without-agent"))?;
        far.request(&Request::tcp(without_agent.socket(PORT)?))?.all_good().context("a pod made without the agent")?;
        fixture.remove(&without_agent)?;
        fixture.node().agent().start()?;
        fixture.node().agent().wait_ready(secs(30))?;
        far.request(&request)?.all_good().context("after all restarts")?;
        fixture.request_in(&container, &Request::tcp(before.socket(PORT)?))?.all_good()?;

        // A pod that containerd made before it was restarted is removed by its successor.
        fixture.remove(&before)?;
        fixture.nothing_left()
    })
}

#[test]
fn fifty_pods_at_once_have_addresses_of_their_own_and_leave_nothing() -> Result<()> {
    with_containerd(|fixture| {
        let pods = at_once(CROWD, |index| fixture.pod(&PodSpec::named(&format!("crowd-{index}"))))?;
        let mut addresses: Vec<&str> = pods.iter().map(|pod| pod.address.as_str()).collect();
        addresses.sort();
        ensure!(fixture.reserved()? == addresses, "reserved {:?}, in use {addresses:?}", fixture.reserved()?);
        addresses.dedup();
        ensure!(addresses.len() == CROWD, "{CROWD} pods, {} addresses", addresses.len());
        ensure!(fixture.containerd.shims()?.len() == CROWD, "{:?}", fixture.containerd.shims()?);
        let far = fixture.cluster.node(2);
        for pod in &pods {
            in_subnet_of_node(fixture, pod)?;
            let answers = far.request(&pod.probe()?)?.all_good().with_context(|| format!("{pod:?}"))?;
            ensure!(answers.by_name.contains_key("sandbox"), "{answers:?}");
        }
        at_once(CROWD, |index| fixture.remove(&pods[index]))?;
        fixture.nothing_left()
    })
}

/// Does `count` things, each on a thread of its own.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no worker panics")).collect()
    })
}

fn ready_again(fixture: &Fixture, pod: &str) -> Result<()> {
    eventually(secs(30), || fixture.cri.network_ready())?;
    let ready = fixture.cri.ready_pods()?;
    ensure!(ready == [pod], "containerd knows {ready:?} after its restart");
    Ok(())
}

/// The node's subnet is a /24.
fn in_subnet_of_node(fixture: &Fixture, pod: &CriPod) -> Result<()> {
    let subnet = fixture.node().agent().status()?.overlay.context("no overlay")?.subnet;
    let network: Ipv4Addr = subnet.trim_end_matches("/24").parse().with_context(|| format!("subnet {subnet}"))?;
    let address: Ipv4Addr = pod.address.parse().with_context(|| format!("{pod:?}"))?;
    ensure!(address.octets()[..3] == network.octets()[..3], "{pod:?} is not in {subnet}");
    Ok(())
}
