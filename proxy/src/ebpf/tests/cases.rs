//! One rule each.

use std::{sync::Arc, time::Duration};

use ipnetwork::IpNetwork;

use weft_ebpf::MapSizes;

use super::{cluster_ip, fake::FakeMaps, key, service, to};
use crate::{
    dataplane::{Changed, Desired},
    ebpf::{frontend::frontends, port::endpoint, table::Table},
    model::{IpFamily, Protocol},
    plan::{Frontend, Outcome, PlanKey, ServicePortPlan},
};

const A: &str = "10.244.0.1:8080";
const B: &str = "10.244.0.2:8080";
const C: &str = "10.244.0.3:8080";

fn desired(plans: &[ServicePortPlan]) -> Desired {
    let ports = plans.iter().map(|plan| (plan.key.clone(), Arc::new(plan.clone()))).collect();
    Desired { ports, ..Desired::default() }
}

fn changed(plan: &ServicePortPlan) -> Changed {
    Changed::Ports(vec![plan.key.clone()])
}

fn value(maps: &FakeMaps, plan: &ServicePortPlan, index: usize) -> weft_ebpf_abi::ServiceValue {
    maps.services[&frontends(plan)[index].0]
}

#[test]
fn a_change_of_endpoints_keeps_the_turn_and_the_counts_of_those_that_stay() {
    let mut maps = FakeMaps::new();
    let before = service("web", &[cluster_ip("10.96.0.1:80")], to(&[A, B]));
    let (mut table, _) = maps.restart(&desired(std::slice::from_ref(&before)));
    let first = value(&maps, &before, 0);
    let counter_of_b = table.port(&before.key).unwrap().counter(&endpoint(B.parse().unwrap())).unwrap();

    let after = service("web", &[cluster_ip("10.96.0.1:80")], to(&[B, C]));
    let planned = maps.bring_to(&mut table, &desired(std::slice::from_ref(&after)), &changed(&after));
    let second = value(&maps, &after, 0);
    assert_eq!(second.set_id, first.set_id);
    assert_ne!(second.base, first.base);
    assert_eq!(planned.writes.slots4.len(), 2, "only the new block");
    assert_eq!(planned.writes.counters.len(), 1, "only the new endpoint's");
    assert_eq!(table.port(&after.key).unwrap().counter(&endpoint(B.parse().unwrap())), Some(counter_of_b));
}

#[test]
fn frontends_share_their_set_only_while_the_outcomes_are_equal() {
    let mut maps = FakeMaps::new();
    let ports = [cluster_ip("10.96.0.1:80"), Frontend::NodePort(30080)];
    let mut plan = service("web", &ports, to(&[A, B]));
    let (mut table, _) = maps.restart(&desired(std::slice::from_ref(&plan)));
    let set = |maps: &FakeMaps, index| value(maps, &service("web", &ports, to(&[A])), index).set_id;
    let (node_port, cluster) = (0, 1);
    let shared = set(&maps, cluster);
    assert_eq!(set(&maps, node_port), shared);

    plan.external_from_node = to(&[A]);
    maps.bring_to(&mut table, &desired(std::slice::from_ref(&plan)), &changed(&plan));
    assert_eq!(set(&maps, cluster), shared);
    assert_ne!(set(&maps, node_port), shared);
    maps.assert_is(&desired(std::slice::from_ref(&plan)));

    plan.external_from_node = plan.internal.clone();
    maps.bring_to(&mut table, &desired(std::slice::from_ref(&plan)), &changed(&plan));
    assert_eq!((set(&maps, cluster), set(&maps, node_port)), (shared, shared));
}

#[test]
fn without_endpoints_it_is_reject_or_drop_and_the_turn_is_kept() {
    let mut maps = FakeMaps::new();
    let mut plan = service("web", &[cluster_ip("10.96.0.1:80")], to(&[A]));
    let (mut table, _) = maps.restart(&desired(std::slice::from_ref(&plan)));
    let id = value(&maps, &plan, 0).set_id;
    for outcome in [Outcome::Reject, Outcome::Drop, to(&[A, B])] {
        plan.internal = outcome.clone();
        plan.external_from_node = outcome;
        maps.bring_to(&mut table, &desired(std::slice::from_ref(&plan)), &changed(&plan));
        maps.assert_is(&desired(std::slice::from_ref(&plan)));
        assert_eq!(value(&maps, &plan, 0).set_id, id);
    }
}

#[test]
fn what_a_socket_cannot_decide_is_left_to_the_packet_path() {
    let vip = Frontend::LoadBalancer("192.0.2.1:80".parse().unwrap());
    let mut plan = service("web", &[cluster_ip("10.96.0.1:80"), vip], to(&[A]));
    assert_eq!(frontends(&plan).len(), 2);
    plan.source_ranges = vec!["198.51.100.0/24".parse::<IpNetwork>().unwrap()];
    assert_eq!(frontends(&plan).len(), 1, "source ranges");
    plan.key = key("web", IpFamily::V4, Protocol::Sctp);
    assert_eq!(frontends(&plan).len(), 0, "SCTP");
}

#[test]
fn an_address_two_services_claim_goes_to_the_first_by_name_in_any_order() {
    let external = Frontend::ExternalIp("192.0.2.1:80".parse().unwrap());
    let (a, b) = (service("a", &[external], to(&[A])), service("b", &[external], to(&[B])));
    for order in [[&a, &b], [&b, &a]] {
        let mut maps = FakeMaps::new();
        let (mut table, _) = maps.restart(&Desired::default());
        maps.bring_to(&mut table, &desired(std::slice::from_ref(order[0])), &changed(order[0]));
        let both = desired(&[a.clone(), b.clone()]);
        maps.bring_to(&mut table, &both, &changed(order[1]));
        maps.assert_is(&both);
        maps.bring_to(&mut table, &desired(std::slice::from_ref(&b)), &changed(&a));
        maps.assert_is(&desired(std::slice::from_ref(&b)));
    }
}

#[test]
fn a_new_agent_finds_everything_as_it_should_be_and_writes_nothing() {
    let mut maps = FakeMaps::new();
    let mut web = service("web", &[cluster_ip("10.96.0.1:80"), Frontend::NodePort(30080)], to(&[A, B]));
    web.external_from_node = to(&[B]);
    let plans = [
        web,
        service("none", &[cluster_ip("10.96.0.2:80")], Outcome::Reject),
        service("six", &[cluster_ip("[fd00:10::1]:80")], to(&["[fd00::1]:80", "[fd00::2]:80"])),
    ];
    let mut state = desired(&plans);
    state.node_port_addresses = ["172.30.0.1".parse().unwrap()].into();
    let (old, planned) = maps.restart(&state);
    assert_eq!(planned.writes.services.len(), 4);
    let (new, planned) = maps.restart(&state);
    assert_eq!(planned, Default::default());
    for plan in &plans {
        let port = |table: &Table| format!("{:?}", table.port(&plan.key).unwrap());
        assert_eq!(port(&old), port(&new), "as if it had never stopped");
    }
}

#[test]
fn a_new_agent_writes_only_what_changed_meanwhile() {
    let mut maps = FakeMaps::new();
    let old = [
        service("kept", &[cluster_ip("10.96.0.1:80")], to(&[A, B])),
        service("gone", &[cluster_ip("10.96.0.2:80")], to(&[A])),
        service("grown", &[cluster_ip("10.96.0.3:80")], to(&[A])),
    ];
    maps.restart(&desired(&old));
    let grown = value(&maps, &old[2], 0);
    let new = [old[0].clone(), service("grown", &[cluster_ip("10.96.0.3:80")], to(&[A, C]))];
    let (_, planned) = maps.restart(&desired(&new));
    assert_eq!(planned.writes.services.len(), 1);
    assert_eq!(planned.writes.removed_services.len(), 1);
    assert_eq!(planned.writes.counters.len(), 1);
    assert_eq!(value(&maps, &new[1], 0).set_id, grown.set_id);
    maps.assert_is(&desired(&new));
}

#[test]
fn a_service_that_finds_no_room_is_named_and_the_others_are_served() {
    let mut maps = FakeMaps::new();
    let many: Vec<String> =
        (0..40_000_u32).map(|n| format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // Each takes 65,536 elements of 262,144.
    let big: Vec<_> =
        (1..=5).map(|n| service(&format!("big{n}"), &[cluster_ip(&format!("10.96.0.{n}:80"))], to(&many))).collect();
    let small = service("small", &[cluster_ip("10.96.1.1:80")], to(&[A]));
    let mut plans = big.clone();
    plans.push(small.clone());
    let mut table = Table::new(MapSizes::default());
    let planned = table.take_over(&Default::default(), &desired(&plans), maps.now);
    let refused: Vec<&PlanKey> = planned.refused.iter().map(|refused| &refused.key).collect();
    assert_eq!(refused, [&big[4].key, &small.key]);
    assert_eq!(
        planned.refused[0].reason.to_string(),
        "map BACKENDS4 is full: 262144 elements; raise --ebpf-max-backends"
    );

    // Freed elements can be had after a second.
    let rest = desired(&plans[1..]);
    let planned = table.plan(&rest, &changed(&big[0]), maps.now);
    assert_eq!(planned.writes.removed_services.len(), 1);
    maps.pass(Duration::from_millis(999));
    let retry = Changed::Ports(vec![small.key.clone()]);
    assert_eq!(table.plan(&rest, &retry, maps.now).refused.len(), 1);
    maps.pass(Duration::from_millis(1));
    assert_eq!(table.plan(&rest, &retry, maps.now).refused.len(), 0);
}

#[test]
fn node_ports_are_accepted_at_the_desired_addresses_and_at_the_hosts_loopback() {
    let mut maps = FakeMaps::new();
    let mut state = desired(&[service("web", &[Frontend::NodePort(30080)], to(&[A]))]);
    state.node_port_addresses = ["172.30.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into();
    let (mut table, _) = maps.restart(&state);
    let host_only: Vec<_> = maps.node_addresses.iter().map(|(ip, host_only)| (ip.to_string(), *host_only)).collect();
    let expected = [("127.0.0.1", true), ("172.30.0.1", false), ("::1", true), ("fd00::1", false)];
    assert_eq!(host_only, expected.map(|(ip, host_only)| (ip.to_owned(), host_only)));
    assert_eq!((maps.node_ports.first, maps.node_ports.last), (30080, 30080));

    state.node_port_addresses = ["172.30.0.2".parse().unwrap()].into();
    let planned = maps.bring_to(&mut table, &state, &Changed::NodePortAddresses);
    maps.assert_is(&state);
    assert_eq!(planned.writes.removed_node_addresses.len(), 2);
    assert!(planned.writes.services.is_empty());
}

#[test]
fn rule_6_6_loopback_can_be_left_out_and_stays_out() {
    let mut maps = FakeMaps::new();
    let mut state = desired(&[service("web", &[Frontend::NodePort(30080)], to(&[A]))]);
    state.node_port_addresses = ["172.30.0.1".parse().unwrap()].into();
    let (mut table, _) = maps.restart(&state);
    table.serve_node_ports_at_localhost(false);
    for changed in [Changed::NodePortAddresses, Changed::Everything] {
        maps.bring_to(&mut table, &state, &changed);
        let left: Vec<_> = maps.node_addresses.keys().map(ToString::to_string).collect();
        assert_eq!(left, ["172.30.0.1"], "{changed:?}");
    }
}

#[test]
fn a_port_keeps_its_affinity_whatever_else_changes() {
    let mut maps = FakeMaps::new();
    let ports = [cluster_ip("10.96.0.1:80"), Frontend::NodePort(30080)];
    let mut plan = service("web", &ports, to(&[A, B]));
    plan.affinity = Some(Duration::from_secs(10_800));
    let other = ServicePortPlan { affinity: plan.affinity, ..service("z", &[cluster_ip("10.96.0.2:80")], to(&[A, B])) };
    let both = |plan: &ServicePortPlan| desired(&[plan.clone(), other.clone()]);
    let (mut table, _) = maps.restart(&both(&plan));
    let id = value(&maps, &plan, 0).affinity_id;
    // Endpoints of one role only, none at all, one frontend less, another timeout: 7.1, 7.2, 7.6.
    let internal_only = ServicePortPlan { external_from_node: to(&[A]), ..plan.clone() };
    let refused = ServicePortPlan { internal: Outcome::Reject, external_from_node: Outcome::Reject, ..plan.clone() };
    let node_port_only = ServicePortPlan { frontends: vec![ports[1]], ..internal_only.clone() };
    let shorter = ServicePortPlan { affinity: Some(Duration::from_secs(1)), ..plan.clone() };
    for next in [internal_only, refused, node_port_only, shorter, plan.clone()] {
        maps.bring_to(&mut table, &both(&next), &changed(&next));
        maps.assert_is(&both(&next));
        assert_eq!(value(&maps, &next, 0).affinity_id, id);
        // 7.7. By then no program reads what the former agent gave up.
        maps.pass(Duration::from_secs(1));
        table = maps.restart(&both(&next)).0;
        assert_eq!(value(&maps, &next, 0).affinity_id, id);
    }
    let set = value(&maps, &plan, 0).set_id;
    plan.affinity = None;
    maps.bring_to(&mut table, &both(&plan), &changed(&plan));
    maps.assert_is(&both(&plan));
    assert_eq!(value(&maps, &plan, 0).set_id, set, "turns go on");
}

#[test]
fn sizes_are_the_operators_and_what_is_taken_is_known() {
    let mut maps = FakeMaps::new();
    let sizes = MapSizes { frontends: 64, backends: 64, sets: 64, endpoints: 64, ..MapSizes::default() };
    let mut table = Table::new(sizes);
    let services: Vec<_> = (1..=65)
        .map(|n| service(&format!("s{n:02}"), &[cluster_ip(&format!("10.96.0.{n}:80"))], Outcome::Reject))
        .collect();
    let planned = table.take_over(&Default::default(), &desired(&services[..64]), maps.now);
    assert_eq!(planned.refused, []);
    planned.writes.write(&mut maps).unwrap();
    let planned = table.plan(&desired(&services), &changed(&services[64]), maps.now);
    assert_eq!(planned.refused[0].reason.to_string(), "map SERVICES4 is full: 64 elements; raise --ebpf-max-frontends");
    let used = |table: &Table, map| table.used().into_iter().find(|(name, _)| *name == map).unwrap().1;
    assert_eq!((used(&table, "SERVICES4"), used(&table, "SERVICES6"), used(&table, "ROUND_ROBIN")), (64, 0, 64));
    assert_eq!((used(&table, "NODE_ADDRESSES4"), used(&table, "NODE_ADDRESSES6")), (1, 1));

    let web = service("s01", &[cluster_ip("10.96.0.1:80")], to(&[A, B, C]));
    table.plan(&desired(std::slice::from_ref(&web)), &Changed::Everything, maps.now);
    assert_eq!((used(&table, "BACKENDS4"), used(&table, "CONNECTIONS")), (4, 3));
}
