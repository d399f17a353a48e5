//! Section 10, the planner's part: which endpoints serve UDP, what changed, who is gone.

use super::{World, load_balancer, service, slice_of};
use crate::model::IpFamily;

const DNS: &str = "{type: LoadBalancer, clusterIPs: [10.0.0.10, 'fd00::10'], externalIPs: [192.0.2.1],
    ports: [{name: dns, port: 53, protocol: UDP, nodePort: 30053}, {name: tcp, port: 53}]}";
const PORTS: &str = "[{name: dns, port: 5353, protocol: UDP}, {name: tcp, port: 5353}]";

fn dns(endpoints: &[&str]) -> World {
    let mut world =
        World::new([load_balancer("dns", DNS, "[{ip: 203.0.113.1}]"), slice_of("dns", "a", PORTS, endpoints)]);
    world.0.take_udp_changes();
    world
}

/// Serving endpoints of every UDP port of a family.
fn serving(world: &World, family: IpFamily) -> Vec<String> {
    let shown = world.0.udp_flows(family).map(|flows| {
        let endpoints: Vec<_> = flows.serving.iter().map(ToString::to_string).collect();
        format!("{}: {}", super::short_key(flows.key), endpoints.join(" "))
    });
    shown.collect()
}

fn changes(world: &mut World) -> Vec<String> {
    world.0.take_udp_changes().iter().map(super::short_key).collect()
}

fn gone(world: &mut World) -> Vec<String> {
    world.0.take_gone_udp_endpoints().iter().map(ToString::to_string).collect()
}

#[test]
fn rules_10_2_and_10_7_udp_ports_only_with_all_their_frontends() {
    let world = dns(&["10.1.0.1"]);
    assert_eq!(serving(&world, IpFamily::V4), ["dns:dns/UDP IPv4: 10.1.0.1:5353"]);
    assert_eq!(serving(&world, IpFamily::V6), ["dns:dns/UDP IPv6: "]);
    let flows = world.0.udp_flows(IpFamily::V4).next().expect("one UDP port");
    assert_eq!(flows.frontends, world.plan("dns:dns/UDP IPv4").frontends);
    assert_eq!(flows.frontends.len(), 4);
}

#[test]
fn rules_4_13_and_10_7_only_udp_flows_of_a_gone_endpoint_are_ended() {
    let mut world = dns(&["10.1.0.1", "10.1.0.2"]);
    gone(&mut world);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.2"]));
    assert_eq!(gone(&mut world), ["10.1.0.1:5353"]);
    let mut world = World::new([service("web", super::PLAIN), super::slice("b", &["10.1.0.1", "10.1.0.2"])]);
    world.apply(super::slice("b", &["10.1.0.2"]));
    assert_eq!((gone(&mut world), changes(&mut world)), (Vec::new(), Vec::new()), "TCP connections are left alone");
}

#[test]
fn rule_10_3_serving_whatever_else_holds() {
    let endpoints = [
        "10.1.0.1 not-ready terminating",
        "10.1.0.2 @n2",
        "10.1.0.3 not-ready",
        "10.1.0.4 ready not-serving",
        "10.1.0.5 not-ready not-serving terminating",
        "10.1.0.6 zone=far node=n9",
    ];
    let expected = "dns:dns/UDP IPv4: 10.1.0.1:5353 10.1.0.2:5353 10.1.0.3:5353 10.1.0.6:5353";
    assert_eq!(serving(&dns(&endpoints), IpFamily::V4), [expected]);
}

#[test]
fn rule_10_1_slices_of_services_with_udp_ports_count_as_changes() {
    let both = ["dns:dns/UDP IPv4", "dns:dns/UDP IPv6"];
    let mut world = World::new([load_balancer("dns", DNS, "[]"), service("web", super::PLAIN)]);
    // Not a Service.
    assert_eq!(changes(&mut world), [""; 0]);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.1"]));
    assert_eq!(changes(&mut world), both);
    // Also where the serving endpoints stay the same.
    world.apply(slice_of("dns", "b", PORTS, &["10.1.0.1"]));
    assert_eq!(changes(&mut world), both);
    assert_eq!(changes(&mut world), [""; 0]);
    // Not an equal slice, not one of a Service without UDP, not a Service that changes.
    world.apply(slice_of("dns", "b", PORTS, &["10.1.0.1"]));
    world.apply(slice_of("web", "c", "[{port: 80}]", &["10.1.0.1"]));
    world.apply(load_balancer("dns", DNS, "[{ip: 203.0.113.9}]"));
    assert_eq!(changes(&mut world), [""; 0]);
    // A UDP port before the change is enough.
    world.0.apply(super::Change::Apply(service("dns", super::PLAIN))).expect("accepted");
    world.apply(slice_of("dns", "b", PORTS, &["10.1.0.2"]));
    assert_eq!(changes(&mut world), both);
    assert!(serving(&world, IpFamily::V4).is_empty());
}

#[test]
fn rules_9_5_and_10_1_slices_that_come_before_their_service_count_with_it() {
    let mut world = World::new([slice_of("dns", "a", PORTS, &["10.1.0.1"])]);
    assert_eq!(changes(&mut world), [""; 0], "nobody knows yet that it is about UDP");
    world.apply(load_balancer("dns", DNS, "[]"));
    assert_eq!(changes(&mut world), ["dns:dns/UDP IPv4"], "where there is an endpoint");
    world.apply(load_balancer("dns", DNS, "[{ip: 203.0.113.9}]"));
    assert_eq!(changes(&mut world), [""; 0]);
}

#[test]
fn endpoints_that_others_take_over_from_are_gone() {
    let mut world = dns(&["10.1.0.1", "10.1.0.2"]);
    assert_eq!(gone(&mut world), [""; 0]);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.2", "10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.1:5353"]);
    assert_eq!(gone(&mut world), [""; 0]);
    // 10.3: it goes only when it no longer serves.
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.2 not-ready terminating", "10.1.0.3"]));
    assert_eq!(gone(&mut world), [""; 0]);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.2 not-ready not-serving terminating", "10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.2:5353"]);
    // 10.4: another port is another endpoint.
    world.apply(slice_of("dns", "a", &PORTS.replace("5353", "5300"), &["10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.3:5353"]);
    // It came back in time.
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.4"]));
    world.apply(slice_of("dns", "a", &PORTS.replace("5353", "5300"), &["10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.4:5353"]);
}

#[test]
fn rule_10_6_nobody_is_gone_while_nobody_serves() {
    let mut world = dns(&["10.1.0.1", "10.1.0.2"]);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.1 not-ready not-serving"]));
    assert_eq!(serving(&world, IpFamily::V4), ["dns:dns/UDP IPv4: "]);
    assert_eq!(gone(&mut world), [""; 0]);
    // Who serves again is not gone; the other one is.
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.1"]));
    assert_eq!(gone(&mut world), ["10.1.0.2:5353"]);
    world.delete(&load_balancer("dns", DNS, "[]"));
    assert_eq!(gone(&mut world), [""; 0]);
}

#[test]
fn rule_10_8_endpoints_that_are_used_without_serving_are_gone_when_they_go() {
    let published = "10.1.0.1 ready not-serving";
    let mut world = dns(&[published, "10.1.0.2"]);
    assert_eq!(serving(&world, IpFamily::V4), ["dns:dns/UDP IPv4: 10.1.0.2:5353"]);
    world.apply(slice_of("dns", "a", PORTS, &[published, "10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.2:5353"]);
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.3"]));
    assert_eq!(gone(&mut world), ["10.1.0.1:5353"]);
}

#[test]
fn an_endpoint_of_two_services_is_gone_when_both_lost_it() {
    let other = "{clusterIP: 10.0.0.11, ports: [{name: dns, port: 53, protocol: UDP}]}";
    let mut world = dns(&["10.1.0.1", "10.1.0.2"]);
    world.apply(service("other", other));
    world.apply(slice_of("other", "b", PORTS, &["10.1.0.1"]));
    world.apply(slice_of("dns", "a", PORTS, &["10.1.0.2"]));
    assert_eq!(gone(&mut world), [""; 0]);
    world.apply(slice_of("other", "b", PORTS, &["10.1.0.2"]));
    assert_eq!(gone(&mut world), ["10.1.0.1:5353"]);
}
