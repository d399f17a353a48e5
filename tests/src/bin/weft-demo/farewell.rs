//! The end: remove everything and look whether it is gone, or leave it with directions.

use anyhow::{Context, Result, ensure};
use weft_tests::{Binaries, leftovers};

use crate::{
    cluster::Scene,
    transcript::{Details, Transcript},
};

/// Removes the cluster, or keeps it.
pub(crate) fn part(transcript: &mut Transcript, scene: Scene, keep: bool) {
    if !keep {
        transcript.step("Everything is removed", |details| remove(details, scene));
        return;
    }
    let directions = directions(&scene);
    if transcript.step("The cluster stays (--keep)", |_| leave(scene)).is_some() {
        transcript.note(&directions);
    }
}

fn remove(details: &mut Details, scene: Scene) -> Result<(String, ())> {
    let run = scene.cluster.run().name().to_owned();
    drop(scene.servers);
    for pod in scene.web.into_iter().chain(scene.clients) {
        let name = pod.name().to_owned();
        pod.remove().with_context(|| format!("remove pod {name}"))?;
    }
    details.line("weft-cni DEL for 6 pods");
    for node in scene.cluster.nodes() {
        node.agent().stop()?;
    }
    details.line("agents stopped on request, exit code 0");
    scene.cluster.shutdown()?;
    let left = leftovers(&run)?;
    ensure!(left.is_empty(), "left over: {}", left.join(", "));
    Ok(("no namespace, cgroup, mount, process or file is left".to_owned(), ()))
}

fn leave(scene: Scene) -> Result<(String, ())> {
    let directory = scene.cluster.run().directory();
    for server in scene.servers {
        server.keep();
    }
    for pod in scene.web.into_iter().chain(scene.clients) {
        pod.keep();
    }
    scene.cluster.keep()?;
    Ok((format!("its files are in {}", directory.display()), ()))
}

fn directions(scene: &Scene) -> Vec<String> {
    let node = scene.cluster.node(1);
    let weft = Binaries::locate().map_or_else(|_| "weft".to_owned(), |binaries| binaries.agent.display().to_string());
    let run_directory = node.directory().join("run");
    let web = scene.web[0].netns().display();
    vec![
        "Look around:".to_owned(),
        format!("  {weft} status --run-dir {}", run_directory.display()),
        format!("  {weft} services --run-dir {}", run_directory.display()),
        format!("  {} ip route", node.enter_hint()),
        format!("  {} nft list ruleset", node.enter_hint()),
        format!("  nsenter --net={web} ip address"),
        format!("  tail {}", node.directory().join("agent.log").display()),
        format!("  $EDITOR {}/services.yaml", scene.cluster.manifests().directory().display()),
        "Remove it:".to_owned(),
        "  cargo xtask demo --down".to_owned(),
    ]
}
