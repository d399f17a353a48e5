//! Services: who answers, in what order, and that the shares are exact.

use anyhow::{Result, ensure};
use weft_tests::{Answers, Place, Request};

use crate::{
    cluster::Scene,
    transcript::{Details, Transcript},
};

const WEB_NODE_PORT: u16 = 30080;
const NAMES_NODE_PORT: u16 = 30053;

/// All steps about Services.
pub(crate) fn show(transcript: &mut Transcript, scene: &Scene) {
    let client = &scene.clients[0];
    let outside = scene.cluster.outside();
    let node_port = scene.cluster.node(1).socket_v4(WEB_NODE_PORT);
    transcript.step("12 requests from client-1 to the ClusterIP 10.96.0.10:80", |details| {
        in_turn(details, client, Request::tcp(Scene::web_vip()))
    });
    transcript.step("12 requests from the host outside to the NodePort 192.0.2.1:30080", |details| {
        in_turn(details, outside, Request::tcp(node_port))
    });
    transcript.step("600 connections by 4 clients at once: exactly 200 for each pod", |details| {
        let names_port = scene.cluster.node(1).socket_v4(NAMES_NODE_PORT);
        exact(details, "ClusterIP, TCP", client, Request::tcp(Scene::web_vip()))?;
        exact(details, "ClusterIP, UDP", client, Request::udp(Scene::names_vip()))?;
        exact(details, "NodePort, TCP", outside, Request::tcp(node_port))?;
        exact(details, "NodePort, UDP", outside, Request::udp(names_port))?;
        Ok(("strict round robin, also among concurrent clients".to_owned(), ()))
    });
    transcript.step("A Service without endpoints refuses at once", |details| {
        let answers = client.request(&Request::tcp(Scene::nobody_vip()))?;
        let refused = answers.failures.first().filter(|failure| failure.error.starts_with("ConnectionRefused"));
        ensure!(refused.is_some(), "10.96.0.99:80 answered {answers:?}");
        let took = refused.map_or(0, |failure| failure.at_ms);
        details.line(format!("client-1 -> 10.96.0.99:80  connection refused after {took} ms"));
        Ok(("no waiting for a time-out".to_owned(), ()))
    });
}

/// Twelve requests one after the other visit three pods four times, always in the same order.
fn in_turn(details: &mut Details, client: &Place, request: Request) -> Result<(String, ())> {
    let answers = client.request(&request.count(12))?.all_good()?;
    details.line(answers.order.join(" "));
    details.value("order", answers.order.clone());
    let round = &answers.order[..3];
    ensure!(answers.by_name.len() == 3, "three pods serve it, answers came from {}", answers.counts());
    ensure!(answers.order.chunks(3).all(|chunk| chunk == round), "the order is no round robin");
    Ok((format!("in turn; {}", answers.counts()), ()))
}

fn exact(details: &mut Details, what: &str, client: &Place, request: Request) -> Result<()> {
    let answers: Answers = client.request(&request.count(600).parallel(4))?.all_good()?;
    details.line(format!("{what:<16}{}", answers.counts()));
    details.value(what, serde_json::to_value(&answers.by_name)?);
    let even = answers.by_name.len() == 3 && answers.by_name.values().all(|&count| count == 200);
    ensure!(even, "{what}: {} instead of 200 each", answers.counts());
    Ok(())
}
