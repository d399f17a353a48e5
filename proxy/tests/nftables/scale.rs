//! As many Services as the targets are set for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{node_with, plane, web};
use weft_proxy::{
    dataplane::Changed,
    model::{IpFamily, Protocol, ServiceName},
    nftables::PacketScope,
    plan::{Endpoint, Frontend, Outcome, ServicePortPlan},
};

#[test]
fn ten_thousand_services_come_and_change_in_time() {
    let mut node = node_with(PacketScope::All);
    node.desired.ports = (0..SERVICES).map(|n| many(n, 0)).map(|plan| (plan.key.clone(), Arc::new(plan))).collect();
    let started = Instant::now();
    node.apply(&Changed::Everything);
    eprintln!("all: {:?}", started.elapsed());
    let mut times: Vec<Duration> = (0..100)
        .map(|round| {
            let plan = many(round * 97 % SERVICES, 1 + round % 2);
            let started = Instant::now();
            node.put(&plan);
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[50] < Duration::from_millis(20), "half of the changes take longer than {:?}", times[50]);
    eprintln!("a change: p50 {:?}, p99 {:?}", times[50], times[98]);
    let started = Instant::now();
    assert!(node.is_intact());
    eprintln!("a look: {:?}", started.elapsed());
    let started = Instant::now();
    node.restart(plane(PacketScope::All));
    eprintln!("restart: {:?}", started.elapsed());
    node.net.nft("flush ruleset");
    let started = Instant::now();
    assert!(!node.is_intact());
    node.apply(&Changed::Everything);
    eprintln!("repair: {:?}", started.elapsed());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("{:?}", status.lines().find(|line| line.starts_with("VmHWM")));
}

/// ClusterIPs of ebpf mode: what is urgent takes next to no time, and no change has to wait for the rest.
#[test]
fn ten_thousand_second_lines_come_in_small_parts() {
    let scope = PacketScope::External { second_line: true };
    let mut node = node_with(scope);
    node.desired.ports = (0..SERVICES).map(|n| many(n, 0)).map(|plan| (plan.key.clone(), Arc::new(plan))).collect();
    let started = Instant::now();
    node.apply(&Changed::Everything);
    eprintln!("urgent: {:?}", started.elapsed());
    let (mut parts, mut longest, started) = (0, Duration::ZERO, Instant::now());
    loop {
        let part = Instant::now();
        if !node.catch_up() {
            break;
        }
        longest = longest.max(part.elapsed());
        parts += 1;
    }
    eprintln!("second line: {:?} in {parts} parts, the longest {longest:?}", started.elapsed());
    assert_eq!(parts, usize::from(SERVICES).div_ceil(128));
    node.restart(plane(scope));
    assert!(!node.catch_up(), "a restart has nothing to add");
}

const SERVICES: u16 = 10_000;

fn many(n: u16, round: u16) -> ServicePortPlan {
    let mut plan = web(Protocol::Tcp, IpFamily::V4, &[]);
    let [high, low] = n.to_be_bytes();
    plan.key.port.service = ServiceName::new("default", format!("s{n:05}"));
    plan.frontends = vec![Frontend::ClusterIp(([10, 96, high, low], 80).into())];
    let endpoint = |slot: u8| Endpoint {
        address: [10, 128 + slot + 10 * (round as u8), high, low].into(),
        port: 8080,
        local: false,
    };
    plan.internal = Outcome::Endpoints((0..10).map(endpoint).collect());
    plan.external = plan.internal.clone();
    plan.external_from_node = plan.internal.clone();
    plan
}
