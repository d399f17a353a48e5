//! Random histories: whatever happens, the maps end up as desired, and nothing leaks.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{fake::FakeMaps, key};
use crate::{
    dataplane::{Changed, Desired},
    ebpf::{table::Table, writes::Target},
    model::{IpFamily, Protocol},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

/// Service ports in play; few, so that they meet.
const PORTS: u8 = 5;

#[derive(Clone, Debug)]
struct Shape {
    internal: Option<Vec<u8>>,
    external: Option<Vec<u8>>,
    external_ip: Option<u8>,
    node_port: Option<u16>,
    affinity: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    /// One batch of Services that change; `None` removes.
    Change(Vec<(u8, Option<Shape>)>),
    /// The agent is killed and started again; Services may have changed meanwhile.
    Restart(Vec<(u8, Option<Shape>)>),
    /// A write fails after this many; the agent reads the kernel and goes on.
    Fail(usize, Vec<(u8, Option<Shape>)>),
    NodeAddresses(Vec<u8>),
    Pass(u64),
}

fn shape() -> impl Strategy<Value = Shape> {
    let outcome = || prop::option::weighted(0.85, prop::collection::btree_set(0_u8..12, 0..9));
    let affinity = prop::option::of(1_u64..4);
    (outcome(), outcome(), any::<bool>(), prop::option::of(0_u8..2), prop::option::of(0_u8..PORTS), affinity).prop_map(
        |(internal, external, same, external_ip, node_port, affinity)| {
            let internal = internal.map(|set| set.into_iter().collect::<Vec<_>>());
            let external = external.map(|set| set.into_iter().collect::<Vec<_>>());
            Shape {
                external: if same { internal.clone() } else { external },
                internal,
                external_ip,
                node_port: node_port.map(|n| 30000 + u16::from(n)),
                affinity,
            }
        },
    )
}

fn changes() -> impl Strategy<Value = Vec<(u8, Option<Shape>)>> {
    prop::collection::vec((0..PORTS * 2, prop::option::weighted(0.8, shape())), 1..5)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => changes().prop_map(Step::Change),
        2 => changes().prop_map(Step::Restart),
        2 => (0_usize..25, changes()).prop_map(|(calls, changes)| Step::Fail(calls, changes)),
        1 => prop::collection::vec(1_u8..6, 0..4).prop_map(Step::NodeAddresses),
        2 => (0_u64..1500).prop_map(Step::Pass),
    ]
}

fn ip(family: IpFamily, network: u8, host: u8) -> IpAddr {
    match family {
        IpFamily::V4 => [10, network, 0, host].into(),
        IpFamily::V6 => [0xfd00, u16::from(network), 0, 0, 0, 0, 0, u16::from(host)].into(),
    }
}

fn outcome(family: IpFamily, hosts: Option<&Vec<u8>>) -> Outcome {
    match hosts {
        None => Outcome::Drop,
        Some(hosts) if hosts.is_empty() => Outcome::Reject,
        Some(hosts) => {
            let endpoint =
                |host: &u8| Endpoint { address: ip(family, 244, *host), port: 80, local: host.is_multiple_of(2) };
            Outcome::Endpoints(hosts.iter().map(endpoint).collect())
        }
    }
}

/// Even numbers are IPv4.
fn plan(number: u8, shape: &Shape) -> ServicePortPlan {
    let family = if number.is_multiple_of(2) { IpFamily::V4 } else { IpFamily::V6 };
    let mut frontends = vec![Frontend::ClusterIp(SocketAddr::new(ip(family, 96, number), 80))];
    frontends.extend(shape.external_ip.map(|n| Frontend::ExternalIp(SocketAddr::new(ip(family, 192, n), 80))));
    frontends.extend(shape.node_port.map(Frontend::NodePort));
    frontends.sort_unstable();
    let external = outcome(family, shape.external.as_ref());
    ServicePortPlan {
        key: plan_key(number),
        frontends,
        internal: outcome(family, shape.internal.as_ref()),
        external: external.clone(),
        external_from_node: external,
        masquerade_external: true,
        health_check_port: None,
        affinity: shape.affinity.map(Duration::from_secs),
        source_ranges: Vec::new(),
    }
}

fn plan_key(number: u8) -> PlanKey {
    let family = if number.is_multiple_of(2) { IpFamily::V4 } else { IpFamily::V6 };
    key(&format!("s{number}"), family, Protocol::Tcp)
}

fn change(desired: &mut Desired, changes: &[(u8, Option<Shape>)]) -> Changed {
    for (number, shape) in changes {
        match shape {
            Some(shape) => desired.ports.insert(plan_key(*number), Arc::new(plan(*number, shape))),
            None => desired.ports.remove(&plan_key(*number)),
        };
    }
    Changed::Ports(changes.iter().map(|(number, _)| plan_key(*number)).collect())
}

fn carry_out(step: &Step, maps: &mut FakeMaps, table: &mut Table, desired: &mut Desired) {
    match step {
        Step::Change(changes) => {
            let changed = change(desired, changes);
            maps.bring_to(table, desired, &changed);
        }
        Step::Restart(changes) => {
            change(desired, changes);
            // Longer than a program runs.
            maps.pass(Duration::from_secs(1));
            *table = maps.restart(desired).0;
        }
        Step::Fail(calls, changes) => {
            let changed = change(desired, changes);
            let planned = table.plan(desired, &changed, maps.now);
            maps.fail_in = Some(*calls);
            let _ = planned.writes.write(maps);
            maps.fail_in = None;
            let observed = maps.observe().unwrap();
            let planned = table.take_over(&observed, desired, maps.now);
            planned.writes.write(maps).unwrap();
        }
        Step::NodeAddresses(hosts) => {
            desired.node_port_addresses = hosts.iter().map(|host| ip(IpFamily::V4, 30, *host)).collect();
            maps.bring_to(table, desired, &Changed::NodePortAddresses);
        }
        Step::Pass(milliseconds) => maps.pass(Duration::from_millis(*milliseconds)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_as_desired_and_leaks_nothing(steps in prop::collection::vec(step(), 1..30)) {
        let mut maps = FakeMaps::new();
        let mut desired = Desired::default();
        let (mut table, _) = maps.restart(&desired);
        for step in &steps {
            carry_out(step, &mut maps, &mut table, &mut desired);
            maps.assert_is(&desired);
        }
        // A Service all of whose frontends belong to others has sets no frontend shows, which are made anew.
        let again = table.take_over(&maps.observe().unwrap(), &desired, maps.now).writes;
        prop_assert!(again.services.is_empty() && again.removed_services.is_empty(), "the shadow was right: {:?}", again);
        again.write(&mut maps).unwrap();

        let keys = std::mem::take(&mut desired.ports).into_keys().collect();
        maps.bring_to(&mut table, &desired, &Changed::Ports(keys));
        prop_assert_eq!(&maps.services, &BTreeMap::new());
        maps.pass(Duration::from_secs(1));
        table.plan(&desired, &Changed::Ports(Vec::new()), maps.now);
        prop_assert!(table.is_empty(), "something was never given back: {:?}", table);
    }
}
