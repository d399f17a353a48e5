//! What a node is short of, and what it says then: room in BPF maps, kernel parameters.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Request, eventually, secs};

use crate::{
    fixture::web_vip,
    single::{Single, answered},
};

#[test]
fn a_full_map_is_an_error_with_its_name_and_what_was_served_still_is() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--ebpf-max-frontends", "64"), 1)?;
    single.apply_web("", "")?;
    answered(&single.client, web_vip())?;
    let proxy = || single.node().agent().status()?.proxy.ok_or_else(|| anyhow::anyhow!("no proxy"));
    let fill = |name: &str| -> Result<(u32, u32)> {
        let maps = proxy()?.maps;
        let map = maps.iter().find(|map| map.name == name).ok_or_else(|| anyhow::anyhow!("{maps:?}"))?;
        Ok((map.used, map.max))
    };
    ensure!(fill("SERVICES4")? == (1, 64), "{:?}", fill("SERVICES4"));
    // Numbered from 20, so that the first 63 of them fit.
    let many: String = (20..100)
        .map(|number| {
            let service = crate::single::web("", "").replace("name: web", &format!("name: web-{number}"));
            format!("---\n{}", service.replace("10.96.0.10", &format!("10.96.0.{number}")))
        })
        .collect();
    single.cluster.manifests().apply("many.yaml", &many)?;
    eventually(secs(10), || {
        let proxy = proxy()?;
        let error = proxy.last_error.clone().unwrap_or_default();
        let says = error.contains("map SERVICES4 is full: 64 elements; raise --ebpf-max-frontends");
        ensure!(!proxy.synced && says, "{proxy:?}");
        Ok(())
    })?;
    ensure!(fill("SERVICES4")? == (64, 64), "{:?}", fill("SERVICES4"));
    single.client.request(&Request::tcp(web_vip()).count(30))?.all_good()?;
    let text =
        single.node().agent().command("status").arg("--run-dir").arg(single.node().directory().join("run")).output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.contains("map SERVICES4 has 64 of 64 elements; raise --ebpf-max-frontends"), "{text}");

    // Room again, or more of it.
    single.cluster.manifests().delete("many.yaml")?;
    eventually(secs(40), || {
        let proxy = proxy()?;
        ensure!(proxy.synced && proxy.last_error.is_none(), "{proxy:?}");
        Ok(())
    })?;
    single.cluster.manifests().apply("many.yaml", &many)?;
    single.restart(&[("--ebpf-max-frontends", "128")])?;
    eventually(secs(10), || {
        ensure!(fill("SERVICES4")? == (81, 128), "{:?}", fill("SERVICES4"));
        Ok(())
    })?;
    single.client.request(&Request::tcp(web_vip()).count(30))?.all_good()?;
    single.shutdown()
}

#[test]
fn rule_10_10_conntrack_parameters_are_set_at_start_and_reported() -> Result<()> {
    let flags = ("--conntrack-tcp-timeout-close-wait", "61s");
    let builder = Cluster::builder().agent_flag(flags.0, flags.1).agent_flag("--conntrack-udp-timeout", "17s");
    let cluster = builder.build()?;
    let node = cluster.node(1);
    for (name, value) in [
        ("nf_conntrack_tcp_timeout_established", "86400"),
        ("nf_conntrack_tcp_timeout_close_wait", "61"),
        ("nf_conntrack_udp_timeout", "17"),
        // Not asked for.
        ("nf_conntrack_tcp_be_liberal", "0"),
    ] {
        let found = node.run("sysctl", &["-n", &format!("net.netfilter.{name}")])?;
        ensure!(found.trim() == value, "{name} is {found}, not {value}");
    }
    let parameters = node.agent().status()?.proxy.map(|proxy| proxy.conntrack).unwrap_or_default();
    let state = |name: &str| parameters.iter().find(|parameter| parameter.name.ends_with(name));
    let close_wait = state("close_wait").map(|parameter| (parameter.value, parameter.error.clone()));
    ensure!(close_wait == Some((61, None)), "{parameters:?}");
    // The size of the table is the machine's: no network namespace but the first can set it. That is no reason to stop.
    let max = state("nf_conntrack_max");
    ensure!(max.is_some_and(|parameter| parameter.error.is_some()), "{parameters:?}");
    ensure!(node.agent().log_tail().contains("nf_conntrack_max") || node.agent().status()?.ready, "a warning");
    cluster.shutdown()
}
