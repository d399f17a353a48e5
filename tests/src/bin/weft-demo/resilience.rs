//! Changes and crashes under load.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use weft_tests::{Hold, Load, LoadReport, Request, secs, unix_us};

use crate::{
    cluster::Scene,
    transcript::{Details, Transcript},
};

/// New connections a second while endpoints change.
const GENTLE: u32 = 2000;
/// The same while the agent is killed; a little above what the demo promises.
const HEAVY: u32 = 5500;
/// What it promises.
const PROMISED: f64 = 5000.0;
const KILLS: usize = 3;
/// Time for the load to run between two events.
const BREATH: Duration = Duration::from_millis(300);

/// All steps about change and failure.
pub(crate) fn show(transcript: &mut Transcript, scene: &Scene) {
    transcript.step("An endpoint leaves and comes back while requests run", |details| endpoints(details, scene));
    transcript.step("The agent of n1 is killed with -9 and started again, under load", |details| kill(details, scene));
}

fn endpoints(details: &mut Details, scene: &Scene) -> Result<(String, ())> {
    let mut connections = 0;
    for (what, pods, shown) in
        [("web-2 leaves", &[0, 2][..], "its last"), ("web-2 returns", &[0, 1, 2][..], "its first")]
    {
        let load = scene.clients[0].load(&Load::new(Scene::web_vip(), GENTLE))?;
        thread::sleep(BREATH);
        let change = unix_us();
        scene.set_endpoints(pods)?;
        thread::sleep(BREATH);
        let report = load.finish()?.all_good()?;
        connections += report.good;
        let seen = report.seen.get("web-2").copied();
        let seen = seen.with_context(|| format!("{what}: answers came from {:?}", report.by_name))?;
        let at = if pods.len() == 2 { seen.last_us } else { seen.first_us };
        let took = ms(at.saturating_sub(change));
        ensure!(ms(seen.last_us.abs_diff(seen.first_us)) > 100.0, "web-2 was seen for a moment only");
        let counts = follow(scene, pods.len())?;
        let after = if took < 1.0 { "within 1 ms".to_owned() } else { format!("{took:.1} ms later") };
        details.line(format!("{what:<14} {shown} connection {after};  12 requests: {counts}"));
        details.value(what, took);
    }
    Ok((format!("{connections} connections at {GENTLE} a second meanwhile, 0 failed"), ()))
}

/// Twelve requests are shared evenly by `pods` pods.
fn follow(scene: &Scene, pods: usize) -> Result<String> {
    let answers = scene.clients[0].request(&Request::tcp(Scene::web_vip()).count(12))?.all_good()?;
    let share = u64::try_from(12 / pods)?;
    let even = answers.by_name.len() == pods && answers.by_name.values().all(|&count| count == share);
    ensure!(even, "answers came from {}", answers.counts());
    Ok(answers.counts())
}

fn kill(details: &mut Details, scene: &Scene) -> Result<(String, ())> {
    let agent = scene.cluster.node(1).agent();
    let hold = scene.clients[0].hold(&Hold::new(Scene::web_vip()))?;
    let load = scene.clients[0].load(&Load::new(Scene::web_vip(), HEAVY))?;
    for round in 1..=KILLS {
        thread::sleep(BREATH);
        agent.kill()?;
        // Long enough that connections are made while nobody is there.
        thread::sleep(Duration::from_millis(500));
        agent.start()?;
        let took = agent.wait_ready(secs(10))?;
        details.line(format!(
            "kill -9 no. {round}, half a second without agent, ready again after {} ms",
            took.as_millis()
        ));
    }
    thread::sleep(BREATH);
    let (report, held) = (load.finish()?, hold.finish()?);
    summarize(details, &report);
    details.line(format!(
        "one long connection: {} round trips, slowest {:.1} ms, {}",
        held.round_trips,
        ms(held.slowest_us),
        held.broken.as_ref().map_or("never broken".to_owned(), |failure| format!("BROKEN: {failure}")),
    ));
    details.value("load", serde_json::to_value(&report)?);
    details.value("longConnection", serde_json::to_value(&held)?);
    let report = report.all_good()?;
    ensure!(held.broken.is_none(), "the long connection broke");
    ensure!(report.rate >= PROMISED, "only {:.0} connections a second were made", report.rate);
    Ok((format!("{} connections at {:.0} a second, 0 failed", report.good, report.rate), ()))
}

fn summarize(details: &mut Details, report: &LoadReport) {
    details.line(format!(
        "load: {} connections in {:.1} s = {:.0}/s, {} failed; median {:.2} ms, 99 % {:.2} ms",
        report.good + report.failed,
        report.seconds,
        report.rate,
        report.failed,
        ms(report.p50_us),
        ms(report.p99_us)
    ));
}

fn ms(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64() * 1000.0
}
