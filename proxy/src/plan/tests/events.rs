//! The planner between events: order, full lists, objects that are rejected.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::{Change, PLAIN, World, node, service, slice, slice_of};
use crate::{
    model::{
        IpFamily, ObjectKind,
        api::{EndpointSlice, Object},
    },
    plan::{Counts, EndpointsChange},
};

const BAD: &str = "{clusterIP: nonsense, ports: [{port: 80}]}";

#[test]
fn slices_wait_for_their_service() {
    let mut world = World::new([slice("a", &["10.1.0.1"])]);
    assert!(world.keys().is_empty());
    assert_eq!(world.apply(service("web", PLAIN)), ["web/TCP IPv4"]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");
    assert_eq!(world.delete(&service("web", PLAIN)), ["web/TCP IPv4"]);
    assert_eq!(world.apply(service("web", PLAIN)), ["web/TCP IPv4"]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");
}

#[test]
fn only_the_changed_ports_of_the_changed_service_are_named() {
    let two = "{clusterIP: 10.0.0.1, ports: [{name: a, port: 80}, {name: b, port: 81}]}";
    let mut world = World::new([
        service("web", two),
        service("other", "{clusterIP: 10.0.0.2, ports: [{port: 80}]}"),
        slice_of("web", "a", "[{name: a, port: 8080}]", &["10.1.0.1"]),
    ]);
    let more = slice_of("web", "a", "[{name: a, port: 8080}]", &["10.1.0.1", "10.1.0.2"]);
    assert_eq!(world.apply(more), ["web:a/TCP IPv4"]);
    let one = "{clusterIP: 10.0.0.1, ports: [{name: a, port: 80}]}";
    assert_eq!(world.apply(service("web", one)), ["web:b/TCP IPv4"]);
}

#[test]
fn names_that_begin_alike_are_different_services() {
    let at = |name: &str, ip: &str| service(name, &format!("{{clusterIP: {ip}, ports: [{{port: 80}}]}}"));
    let mut world =
        World::new([at("web", "10.0.0.1"), at("web-2", "10.0.0.2"), at("we", "10.0.0.3"), at("web.x", "10.0.0.4")]);
    assert_eq!(world.delete(&service("web", PLAIN)), ["web/TCP IPv4"]);
    assert_eq!(world.keys(), ["we/TCP IPv4", "web-2/TCP IPv4", "web.x/TCP IPv4"]);
}

#[test]
fn an_address_asked_for_twice_is_in_one_plan_only() {
    let taker = "{clusterIP: 10.0.0.2, externalIPs: [10.0.0.1, 192.0.2.1], ports: [{port: 80, nodePort: 30080}]}";
    let third = "{clusterIP: 10.0.0.3, externalIPs: [192.0.2.1], ports: [{port: 80, nodePort: 30080}]}";
    let mut world = World::new([service("a-taker", taker), service("third", third), service("web", PLAIN)]);
    let owned = |world: &World, key: &str| super::frontends(&world.plan(key)).join(", ");
    // Nobody takes over a ClusterIP, whatever the names.
    assert_eq!(owned(&world, "web/TCP IPv4"), "ClusterIP 10.0.0.1:80");
    assert_eq!(owned(&world, "a-taker/TCP IPv4"), "ClusterIP 10.0.0.2:80, ExternalIP 192.0.2.1:80, NodePort 30080");
    assert_eq!(owned(&world, "third/TCP IPv4"), "ClusterIP 10.0.0.3:80");
    assert_eq!(world.0.contested().count(), 3);

    // What the winner gives up goes to the next one, and both are named.
    assert_eq!(world.delete(&service("a-taker", taker)), ["a-taker/TCP IPv4", "third/TCP IPv4"]);
    assert_eq!(owned(&world, "third/TCP IPv4"), "ClusterIP 10.0.0.3:80, ExternalIP 192.0.2.1:80, NodePort 30080");
    assert_eq!(world.0.contested().count(), 0);
    assert_eq!(world.apply(service("a-taker", taker)), ["a-taker/TCP IPv4", "third/TCP IPv4"]);
    // A frontend that changes hands twice between two looks ends where it was, and the one it passed is not named.
    let stronger = "{clusterIP: 192.0.2.1, ports: [{port: 80}]}";
    let weaker = "{clusterIP: 10.0.0.2, ports: [{port: 80}]}";
    let again = "{clusterIP: 10.0.0.3, externalIPs: [192.0.2.1, 192.0.2.9], ports: [{port: 80}]}";
    world.apply(service("third", &again.replace(", 192.0.2.9", "")));
    for (name, spec) in [("a-taker", weaker), ("third", &again.replace(", 192.0.2.9", "")), ("z", stronger)] {
        world.0.apply(Change::Apply(service(name, spec))).expect("accepted");
    }
    assert_eq!(world.changes(), ["a-taker/TCP IPv4", "z/TCP IPv4"]);
    // Another port or protocol at the same address is another frontend.
    let udp = "{clusterIP: 10.0.0.1, ports: [{port: 80, protocol: UDP}, {port: 81, name: b}]}";
    assert_eq!(world.apply(service("udp", udp)), ["udp/UDP IPv4", "udp:b/TCP IPv4"]);
}

#[test]
fn rejected_object_keeps_its_last_good_state() {
    let mut world = World::new([service("web", PLAIN)]);
    let error = world.0.apply(Change::Apply(service("web", BAD))).expect_err("bad ClusterIP");
    assert_eq!(
        error.to_string(),
        "Service default/web: spec.clusterIP: \"nonsense\" is not allowed, must be an IP address"
    );
    assert_eq!(world.changes(), [""; 0]);
    assert_eq!(world.keys(), ["web/TCP IPv4"]);
    assert_eq!(world.0.rejected().collect::<Vec<_>>(), [&error]);
    assert_eq!(world.0.counts().rejected, 1);

    // Repaired, then broken and deleted: nothing is left of it.
    world.apply(service("web", PLAIN));
    assert_eq!(world.0.counts().rejected, 0);
    world.0.apply(Change::Apply(service("web", BAD))).expect_err("bad ClusterIP");
    assert_eq!(world.delete(&service("web", PLAIN)), ["web/TCP IPv4"]);
    assert_eq!(world.0.counts(), Counts::default());
}

#[test]
fn warnings_are_returned_once_and_remembered() {
    let spec = "{clusterIP: 10.0.0.1, externalIPs: [nonsense], ports: [{port: 80}]}";
    let mut world = World::new([]);
    let mut apply = |object: Object| world.0.apply(Change::Apply(object)).expect("accepted").len();
    assert_eq!(apply(service("web", spec)), 1);
    assert_eq!(apply(service("web", spec)), 0);
    assert_eq!(apply(service("web", &spec.replace("nonsense", "more"))), 1);
    assert_eq!(world.0.warnings().count(), 1);
    world.apply(service("web", PLAIN));
    assert_eq!(world.0.warnings().count(), 0);
}

#[test]
fn full_list_deletes_what_is_not_in_it() {
    let other = "{clusterIP: 10.0.0.2, ports: [{port: 80}]}";
    let mut world = World::new([service("web", PLAIN), service("other", other), slice("a", &["10.1.0.1"])]);
    let third = service("third", "{clusterIP: 10.0.0.3, ports: [{port: 80}]}");
    let replaced = world.0.replace(ObjectKind::Service, [service("web", BAD), third.clone()]);
    // A rejected object is there, so its last good state stays.
    assert_eq!(replaced.rejected.len(), 1);
    assert_eq!(world.changes(), ["other/TCP IPv4", "third/TCP IPv4"]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");

    world.0.replace(ObjectKind::Service, [third]);
    assert_eq!(world.changes(), ["web/TCP IPv4"]);
    assert_eq!(world.0.counts().rejected, 0);
    world.apply(service("web", PLAIN));
    assert_eq!(world.web().internal, "10.1.0.1:8080");
    world.0.replace(ObjectKind::EndpointSlice, []);
    assert_eq!(world.changes(), ["web/TCP IPv4"]);
    assert_eq!(world.web().internal, "reject");
}

#[test]
fn counts_are_of_what_is_in_use() {
    let dual = "{clusterIPs: [10.0.0.1, 'fd00::1'], ports: [{port: 80}]}";
    let world = World::new([
        service("web", dual),
        service("headless", "{clusterIP: None, ports: [{port: 80}]}"),
        slice("a", &["10.1.0.1", "10.1.0.2", "10.1.0.3 not-ready"]),
        slice("b", &["fd01::1"]),
        node("n1", "a"),
    ]);
    assert_eq!(world.0.counts(), Counts { services: 1, service_ports: 2, endpoints: 3, rejected: 0 });
}

#[test]
fn node_port_addresses_are_part_of_the_desired_state() {
    let mut world = World::new([]);
    let addresses = BTreeSet::from(["192.0.2.1".parse().expect("an address")]);
    assert!(world.0.set_node_port_addresses(addresses.clone()));
    assert!(!world.0.set_node_port_addresses(addresses.clone()));
    assert_eq!(world.0.desired().node_port_addresses, addresses);
}

#[test]
fn section_17_a_change_of_endpoints_is_told_once_and_with_its_time() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let changed = |endpoints: &[&str], seconds| match slice("a", endpoints) {
        Object::EndpointSlice(slice) => Object::from(EndpointSlice { changed_at: Some(at(seconds)), ..slice }),
        other => other,
    };
    let change = |family, seconds| EndpointsChange { family, at: at(seconds) };
    let mut world = World::new([changed(&["10.1.0.1"], 1)]);
    assert_eq!(world.0.take_endpoints_changes(), [change(IpFamily::V4, 1)]);
    // Listed again as it was, as after a lost connection; without a time; deleted.
    world.0.replace(ObjectKind::EndpointSlice, [changed(&["10.1.0.1"], 2)]);
    world.apply(slice("a", &["10.1.0.2"]));
    world.delete(&slice("a", &["10.1.0.2"]));
    assert_eq!(world.0.take_endpoints_changes(), []);
    world.apply(changed(&["fd00::1"], 3));
    world.apply(changed(&["fd00::2"], 4));
    assert_eq!(world.0.take_endpoints_changes(), [change(IpFamily::V6, 3), change(IpFamily::V6, 4)]);
}
