//! Section 4: conditions, terminating endpoints, duplicates.

use super::{PLAIN, World, service, slice, slice_of, yaml};
use crate::model::api::Object;

fn internal(endpoints: &[&str]) -> String {
    World::new([service("web", PLAIN), slice("a", endpoints)]).web().internal
}

/// A Service with both policies Local.
const LOCAL: &str = "{type: NodePort, clusterIP: 10.0.0.1, internalTrafficPolicy: Local, externalTrafficPolicy: Local,
    ports: [{port: 80, nodePort: 30080}]}";

#[test]
fn rule_4_1_absent_conditions() {
    assert_eq!(internal(&["10.1.0.1"]), "10.1.0.1:8080");
    // serving absent = true, so this one may be used while it terminates.
    assert_eq!(internal(&["10.1.0.1 not-ready terminating"]), "10.1.0.1:8080");
    // terminating absent = false.
    assert_eq!(internal(&["10.1.0.1 not-ready"]), "reject");
    let nulls: Object = yaml(
        "{kind: EndpointSlice, addressType: IPv4, metadata: {name: a, labels: {kubernetes.io/service-name: web}},
          ports: [{port: 8080, name: null, protocol: null}],
          endpoints: [{addresses: [10.1.0.1], conditions: null, hints: null, nodeName: null},
                      {addresses: [10.1.0.2], conditions: {ready: null, serving: null, terminating: null}}]}",
    );
    let world = World::new([service("web", PLAIN), nulls]);
    assert_eq!(world.web().internal, "10.1.0.1:8080 10.1.0.2:8080");
}

#[test]
fn rule_4_1_ready_is_used_even_while_terminating() {
    assert_eq!(internal(&["10.1.0.1 ready terminating", "10.1.0.2"]), "10.1.0.1:8080 10.1.0.2:8080");
}

#[test]
fn rule_4_2_only_ready_endpoints() {
    assert_eq!(internal(&["10.1.0.1 not-ready", "10.1.0.2", "10.1.0.3 not-ready terminating"]), "10.1.0.2:8080");
}

#[test]
fn rule_4_3_fallback_to_serving_and_terminating() {
    let endpoints = [
        "10.1.0.1 not-ready terminating",
        "10.1.0.2 not-ready",
        "10.1.0.3 not-ready not-serving terminating",
        "10.1.0.4 not-ready terminating zone=far",
    ];
    assert_eq!(internal(&endpoints), "10.1.0.1:8080 10.1.0.4:8080");
}

#[test]
fn rule_4_3_fallback_is_decided_for_each_list() {
    let world =
        World::new([service("web", LOCAL), slice("a", &["10.1.0.1 @n1 not-ready terminating", "10.1.0.2 @n2"])]);
    let web = world.web();
    assert_eq!((web.internal.as_str(), web.from_node.as_str()), ("10.1.0.1:8080*", "10.1.0.2:8080"));
}

#[test]
fn rule_4_4_a_terminating_local_one_beats_a_ready_remote_one_for_policy_local_only() {
    let slice = || slice("a", &["10.1.0.1 @n1 not-ready terminating", "10.1.0.2 @n2"]);
    let web = World::new([service("web", LOCAL), slice()]).web();
    assert_eq!((web.internal.as_str(), web.external.as_str()), ("10.1.0.1:8080*", "10.1.0.1:8080*"));
    let cluster = LOCAL.replace("Policy: Local", "Policy: Cluster");
    let web = World::new([service("web", &cluster), slice()]).web();
    assert_eq!((web.internal.as_str(), web.external.as_str()), ("10.1.0.2:8080", "10.1.0.2:8080"));
}

#[test]
fn rule_4_5_remote_terminating_only_drops() {
    let web = World::new([service("web", LOCAL), slice("a", &["10.1.0.2 @n2 not-ready terminating"])]).web();
    assert_eq!((web.internal.as_str(), web.external.as_str()), ("drop", "drop"));
    assert_eq!(web.from_node, "10.1.0.2:8080");
}

#[test]
fn rule_4_6_only_non_serving_terminating_rejects() {
    let endpoints =
        ["10.1.0.1 @n1 not-ready not-serving terminating", "10.1.0.2 @n2 not-ready not-serving terminating"];
    let web = World::new([service("web", LOCAL), slice("a", &endpoints)]).web();
    assert_eq!((web.internal.as_str(), web.external.as_str()), ("reject", "reject"));
}

#[test]
fn rule_4_7_local_is_by_node_name() {
    assert_eq!(internal(&["10.1.0.1 @n1", "10.1.0.2 @n2", "10.1.0.3"]), "10.1.0.1:8080* 10.1.0.2:8080 10.1.0.3:8080");
}

#[test]
fn rule_4_8_only_the_first_address_counts() {
    let object: Object = yaml(
        "{kind: EndpointSlice, addressType: IPv4, metadata: {name: a, labels: {kubernetes.io/service-name: web}},
          ports: [{port: 8080}],
          endpoints: [{addresses: [10.1.0.1, 10.1.0.2]}, {addresses: []}, {addresses: null}, {}]}",
    );
    assert_eq!(World::new([service("web", PLAIN), object]).web().internal, "10.1.0.1:8080");
}

#[test]
fn rule_4_9_address_type() {
    let of_type = |address_type: &str, address: &str| -> Object {
        yaml(&format!(
            "{{kind: EndpointSlice, addressType: {address_type}, ports: [{{port: 8080}}],
               metadata: {{name: {}, labels: {{kubernetes.io/service-name: web}}}},
               endpoints: [{{addresses: ['{address}']}}]}}",
            address_type.to_lowercase()
        ))
    };
    let mut world = World::new([
        service("web", "{clusterIPs: [10.0.0.1, 'fd00::1'], ports: [{port: 80}]}"),
        of_type("IPv4", "10.1.0.1"),
        of_type("IPv6", "fd01::1"),
    ]);
    assert_eq!(super::shown(&world.plan("web/TCP IPv4").internal), "10.1.0.1:8080");
    assert_eq!(super::shown(&world.plan("web/TCP IPv6").internal), "fd01::1:8080");
    assert_eq!(world.apply(of_type("FQDN", "pod.test")), [""; 0]);
    // An address of the wrong family costs only itself.
    world.apply(of_type("IPv4", "fd01::2"));
    assert_eq!(super::shown(&world.plan("web/TCP IPv4").internal), "reject");
    assert_eq!(world.0.warnings().count(), 2);
}

#[test]
fn endpoints_on_the_node_itself_or_link_local_are_skipped() {
    // The API server refuses these; from a manifest they would open the node's own services to pods.
    for address in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "fe80::1"] {
        let world = World::new([service("web", PLAIN), slice("a", &[address])]);
        assert_eq!(world.web().internal, "reject", "{address}");
        assert_eq!(world.0.warnings().count(), 1, "{address}");
    }
}

#[test]
fn rule_4_10_slices_are_united_by_address_and_port() {
    let world = World::new([
        service("web", PLAIN),
        slice("a", &["10.1.0.1", "10.1.0.2"]),
        slice("b", &["10.1.0.2", "10.1.0.3"]),
        slice_of("web", "c", "[{port: 9090}, {port: 9091}]", &["10.1.0.1"]),
    ]);
    assert_eq!(world.web().internal, "10.1.0.1:8080 10.1.0.1:9090 10.1.0.1:9091 10.1.0.2:8080 10.1.0.3:8080");
}

#[test]
fn rule_4_11_running_beats_terminating_with_the_same_address() {
    let running = "10.1.0.1 @n1";
    let ending = "10.1.0.1 @n2 not-ready terminating";
    let ready_but_ending = "10.1.0.1 @n2 ready terminating";
    for other in [ending, ready_but_ending] {
        for slices in [[running, other], [other, running]] {
            let objects = [service("web", PLAIN), slice("a", &slices[..1]), slice("b", &slices[1..])];
            assert_eq!(World::new(objects).web().internal, "10.1.0.1:8080*", "{slices:?}");
            assert_eq!(internal(&slices), "10.1.0.1:8080*", "{slices:?}");
        }
    }
    // It wins even if it is not ready yet: the address is no longer the terminating pod's.
    assert_eq!(internal(&["10.1.0.1 not-ready", "10.1.0.1 not-ready terminating"]), "reject");
}

#[test]
fn rule_4_12_no_op_updates_change_nothing() {
    let mut world = World::new([service("web", PLAIN), slice("a", &["10.1.0.1", "10.1.0.2"])]);
    assert_eq!(world.apply(slice("a", &["10.1.0.1", "10.1.0.2"])), [""; 0]);
    assert_eq!(world.apply(slice("a", &["10.1.0.2", "10.1.0.1"])), [""; 0]);
    assert_eq!(world.apply(service("web", PLAIN)), [""; 0]);
    // A slice that moves an endpoint to another slice changes nothing either.
    assert_eq!(world.apply(slice("b", &["10.1.0.2"])), [""; 0]);
    assert_eq!(world.apply(slice("a", &["10.1.0.1"])), [""; 0]);
}
