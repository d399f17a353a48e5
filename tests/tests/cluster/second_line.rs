//! ClusterIPs for packets that no socket of the node made (virtual machines, gVisor), in ebpf mode. The client is a host
//! outside whose packets the node forwards: no socket program ever sees it.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Load, Request, eventually, secs};

use crate::{
    fixture::{assert_exact, web_vip},
    single::{Single, answered, fails},
};

fn start(second_line: &str) -> Result<Single> {
    // Masqueraded, as a client outside the cluster CIDR is.
    let builder =
        Cluster::builder().agent_flag("--cluster-cidr", "10.244.0.0/16").agent_flag("--ebpf-second-line", second_line);
    let single = Single::start(builder, 3)?;
    single.apply_web("", "")?;
    Ok(single)
}

#[test]
fn a_raw_client_is_balanced_exactly_and_refused_like_any_other() -> Result<()> {
    let single = start("true")?;
    let raw = single.route_outside()?;
    answered(raw, web_vip())?;
    eventually(secs(10), || assert_exact(raw, &Request::tcp(web_vip())).map(drop))?;
    assert_exact(&single.client, &Request::tcp(web_vip()))?;
    single.set_endpoints(0)?;
    fails(raw, web_vip(), &["ConnectionRefused"])?;
    single.set_endpoints(1)?;
    answered(raw, web_vip())?;
    single.shutdown()
}

#[test]
fn restarts_and_changes_take_it_from_nobody() -> Result<()> {
    let single = start("true")?;
    let raw = single.route_outside()?;
    answered(raw, web_vip())?;
    let load = raw.load(&Load::new(web_vip(), 200))?;
    for count in [2, 3] {
        single.restart(&[])?;
        single.set_endpoints(count)?;
        eventually(secs(10), || {
            let answers = raw.request(&Request::tcp(web_vip()).count(12))?.all_good()?;
            ensure!(answers.by_name.len() == count, "{}", answers.counts());
            Ok(())
        })?;
    }
    load.finish()?.all_good()?;
    single.shutdown()
}

#[test]
fn it_can_be_switched_off() -> Result<()> {
    let single = start("false")?;
    let raw = single.route_outside()?;
    answered(&single.client, web_vip())?;
    fails(raw, web_vip(), &["ConnectionRefused"])?;
    single.restart(&[("--ebpf-second-line", "true")])?;
    answered(raw, web_vip())?;
    single.restart(&[])?;
    fails(raw, web_vip(), &["ConnectionRefused"])?;
    single.shutdown()
}
