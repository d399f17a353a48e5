//! Pods reach each other.

use anyhow::{Context, Result, ensure};
use weft_tests::{Pod, Request};

use crate::{
    cluster::Scene,
    transcript::{Details, Transcript},
};

/// IPv4 and UDP headers, in bytes.
const HEADERS: u32 = 28;

/// Same node, other nodes, full-size packets, and a megabyte.
pub(crate) fn pods_reach_each_other(transcript: &mut Transcript, scene: &Scene) {
    transcript.step("Pods reach each other, on one node and across nodes, without NAT", |details| {
        let client = &scene.clients[0];
        for web in &scene.web {
            reach(details, client, web)?;
        }
        full_size(details, scene)?;
        Ok(("every pod saw the client's own address".to_owned(), ()))
    });
}

fn reach(details: &mut Details, client: &Pod, web: &Pod) -> Result<()> {
    let target = web.socket_v4(8080)?;
    let answers = client.request(&Request::tcp(target))?.all_good()?;
    let own = client.socket_v4(0)?.ip().to_string();
    let path = if web.node() == client.node() { "same node" } else { "over the overlay" };
    ensure!(answers.by_name.contains_key(web.name()), "{target} answered as {}", answers.counts());
    ensure!(answers.sources.contains_key(&own), "{} saw {:?} instead of {own}", web.name(), answers.sources);
    details.line(format!("{} {own}  ->  {} {:<12} {path}", client.name(), web.name(), target.ip()));
    Ok(())
}

fn full_size(details: &mut Details, scene: &Scene) -> Result<()> {
    let status = scene.cluster.node(1).agent().status()?;
    let mtu = status.overlay.context("the agent has no overlay")?.mtu;
    let (client, web) = (&scene.clients[0], &scene.web[1]);
    let datagram = usize::try_from(mtu - HEADERS)?;
    let target = web.socket_v4(8080)?;
    client.request(&Request::udp(target).bytes(datagram))?.all_good()?;
    client.request(&Request::tcp(target).bytes(1 << 20))?.all_good()?;
    details.line(format!("{} -> {}: a packet of {mtu} bytes, and 1 MiB, there and back", client.name(), web.name()));
    Ok(())
}
