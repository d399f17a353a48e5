//! The test kit itself: traffic between its hosts, and that nothing of a run stays, however it ends.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Result, bail, ensure};
use weft_tests::{Cluster, Hold, Load, Protocol, Request, eventually, leftovers, secs};

#[test]
fn hosts_reach_each_other_over_both_families_and_all_protocols() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).without_agents().build()?;
    let node = cluster.node(1);
    let _server = node.serve_as("n1", 8080)?;
    for target in [node.socket_v4(8080), node.socket_v6(8080)] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::UdpUnconnected] {
            let request = Request::new(protocol, target).count(10).parallel(3).bytes(1400);
            let answers = cluster.node(2).request(&request)?.all_good()?;
            assert_eq!(answers.counts(), "n1 10", "{protocol:?} to {target}");
            let expected = if target.is_ipv4() { "192.0.2.2" } else { "2001:db8::2" };
            assert_eq!(answers.sources[expected], 10, "{answers:?}");
            assert_eq!(answers.peers[&target.to_string()], 10, "{answers:?}");
        }
    }
    let megabyte = Request::tcp(node.socket_v4(8080)).bytes(1 << 20);
    cluster.outside().request(&megabyte)?.all_good()?;
    cluster.shutdown()
}

#[test]
fn failures_are_told_by_kind() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).without_agents().build()?;
    let closed = Request::tcp(cluster.node(1).socket_v4(1));
    let answers = cluster.outside().request(&closed)?;
    ensure!(answers.failures[0].error.starts_with("ConnectionRefused: connect"), "{answers:?}");
    let nobody = "192.0.2.99:1".parse()?;
    let silent = Request::udp(nobody).timeout(std::time::Duration::from_millis(200));
    let answers = cluster.outside().request(&silent)?;
    ensure!(answers.failures[0].error.starts_with("WouldBlock: receive"), "{answers:?}");
    cluster.shutdown()
}

#[test]
fn a_load_keeps_its_rate_and_counts_what_fails() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).without_agents().alone().build()?;
    let node = cluster.node(1);
    let server = node.serve_as("n1", 8080)?;
    let hold = cluster.outside().hold(&Hold::new(node.socket_v4(8080)))?;
    let load = Load::new(node.socket_v4(8080), 6000).time(secs(2));
    let report = cluster.outside().load(&load)?.finish()?.all_good()?;
    ensure!(report.rate > 5500.0, "{report:?}");
    let held = hold.finish()?;
    ensure!(held.broken.is_none() && held.round_trips > 50, "{held:?}");

    let load = cluster.outside().load(&Load::new(node.socket_v4(8080), 500))?;
    let hold = cluster.outside().hold(&Hold::new(node.socket_v4(8080)))?;
    drop(server);
    let (report, held) = (load.finish()?, hold.finish()?);
    ensure!(report.failed > 0 && held.broken.is_some(), "{report:?} {held:?}");
    cluster.shutdown()
}

#[test]
fn nothing_stays_after_shutdown() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).without_agents().build()?;
    let run = cluster.run().name().to_owned();
    let _server = cluster.node(1).serve_as("n1", 8080)?;
    ensure!(leftovers(&run)?.len() > 4, "{:?}", leftovers(&run)?);
    cluster.shutdown()?;
    nothing_left(&run)
}

#[test]
fn nothing_stays_after_a_panic() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).without_agents().build()?;
    let run = cluster.run().name().to_owned();
    std::thread::spawn(move || {
        let _cluster = cluster;
        // Not panic!, which would print a trace that looks like a failed test.
        std::panic::resume_unwind(Box::new(()));
    })
    .join()
    .expect_err("the thread panics");
    nothing_left(&run)
}

#[test]
fn nothing_stays_after_kill_9() -> Result<()> {
    let (mut owner, run) = owner()?;
    ensure!(!leftovers(&run)?.is_empty());
    owner.kill()?;
    owner.wait()?;
    eventually(secs(10), || nothing_left(&run))?;
    Ok(())
}

#[test]
fn nothing_stays_after_sigterm() -> Result<()> {
    let (mut owner, run) = owner()?;
    Command::new("kill").arg(owner.id().to_string()).status()?;
    owner.wait()?;
    eventually(secs(10), || nothing_left(&run))?;
    Ok(())
}

#[test]
fn what_a_run_left_whose_janitor_died_too_is_swept_by_the_next() -> Result<()> {
    let (mut owner, run) = owner()?;
    let pattern = format!("^[^ ]*weft-testkit janitor {run}$");
    let janitor = Command::new("pgrep").args(["-f", &pattern]).output()?;
    let janitor = String::from_utf8(janitor.stdout)?;
    ensure!(Command::new("kill").args(["-9", janitor.trim()]).status()?.success(), "no janitor {janitor:?}");
    owner.kill()?;
    owner.wait()?;
    Cluster::builder().without_agents().build()?.shutdown()?;
    nothing_left(&run)
}

/// Another process that owns a cluster.
fn owner() -> Result<(Child, String)> {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_weft-testkit"))
        .arg("cluster")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = owner.stdout.take().expect("stdout is piped");
    let mut run = String::new();
    BufReader::new(stdout).read_line(&mut run)?;
    ensure!(!run.trim().is_empty(), "the owner could not build its cluster");
    Ok((owner, run.trim().to_owned()))
}

fn nothing_left(run: &str) -> Result<()> {
    let left = leftovers(run)?;
    if left.is_empty() {
        return Ok(());
    }
    bail!("left of {run}: {left:#?}")
}
