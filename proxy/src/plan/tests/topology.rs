//! Section 5: hints for zones and nodes. This node `n1` is in zone `a`.

use super::{PLAIN, World, node, service, slice};

const LOCAL: &str = "{type: NodePort, clusterIP: 10.0.0.1, internalTrafficPolicy: Local, externalTrafficPolicy: Local,
    ports: [{port: 80, nodePort: 30080}]}";

/// Last digits of the addresses that the cluster list has.
fn chosen(zone: &str, endpoints: &[&str]) -> String {
    let world = World::new([service("web", PLAIN), slice("x", endpoints), node("n1", zone)]);
    let plan = world.plan("web/TCP IPv4");
    let digits = plan.internal.endpoints().iter().map(|e| e.address.to_string().split_off("10.1.0.".len()));
    digits.collect()
}

#[test]
fn rule_5_1_only_hints_count_not_what_the_service_asks_for() {
    let slice = || slice("x", &["10.1.0.1 @n1", "10.1.0.2 @n2"]);
    for wish in ["PreferSameZone", "PreferSameNode", "PreferClose"] {
        let spec = PLAIN.replace("{clusterIP", &format!("{{trafficDistribution: {wish}, clusterIP"));
        let world = World::new([service("web", &spec), slice(), node("n1", "a")]);
        assert_eq!(world.web().internal, "10.1.0.1:8080* 10.1.0.2:8080", "{wish}");
    }
}

#[test]
fn rule_5_2_and_5_3_same_zone() {
    assert_eq!(chosen("a", &["10.1.0.1 zone=a", "10.1.0.2 zone=b", "10.1.0.3 zone=b zone=a"]), "13");
    assert_eq!(chosen("b", &["10.1.0.1 zone=a", "10.1.0.2 zone=b", "10.1.0.3 zone=b zone=a"]), "23");
}

#[test]
fn rule_5_2_and_5_3_same_node_comes_first() {
    let endpoints = ["10.1.0.1 zone=b node=n1", "10.1.0.2 zone=a node=n2", "10.1.0.3 zone=a node=n2 node=n1"];
    assert_eq!(chosen("a", &endpoints), "13");
    // Hints count, not where the endpoint runs.
    assert_eq!(chosen("a", &["10.1.0.1 @n1 node=n2", "10.1.0.2 @n2 node=n1"]), "2");
}

#[test]
fn rule_5_2_one_unhinted_ready_endpoint_disables_that_kind() {
    assert_eq!(chosen("a", &["10.1.0.1 zone=a", "10.1.0.2 zone=b", "10.1.0.3"]), "123");
    assert_eq!(chosen("a", &["10.1.0.1 zone=a node=n1", "10.1.0.2 zone=a node=n2", "10.1.0.3 zone=b"]), "12");
}

#[test]
fn rule_5_4_fallbacks_to_all() {
    let zones = ["10.1.0.1 zone=a", "10.1.0.2 zone=b"];
    assert_eq!(chosen("", &zones), "12");
    assert_eq!(chosen("c", &zones), "12");
    assert_eq!(chosen("a", &["10.1.0.1 zone=a not-ready", "10.1.0.2 zone=b"]), "2");
    assert_eq!(chosen("a", &["10.1.0.1 zone=a not-ready", "10.1.0.2 zone=b", "10.1.0.3 zone=c"]), "23");
    // A hint for the empty zone is not this node's, whose zone is unknown.
    assert_eq!(chosen("", &["10.1.0.1 zone=", "10.1.0.2 zone=b"]), "12");
    // No Node seen at all.
    let world = World::new([service("web", PLAIN), slice("x", &zones)]);
    assert_eq!(world.web().internal, "10.1.0.1:8080 10.1.0.2:8080");
}

#[test]
fn rule_5_4_node_hints_for_others_only_fall_to_the_zone_rule() {
    assert_eq!(chosen("a", &["10.1.0.1 zone=a node=n2", "10.1.0.2 zone=b node=n3"]), "1");
    assert_eq!(chosen("a", &["10.1.0.1 node=n2", "10.1.0.2 node=n3"]), "12");
}

#[test]
fn rule_5_5_hints_never_filter_the_local_list() {
    let endpoints = ["10.1.0.1 @n1 zone=b node=n2", "10.1.0.2 @n2 zone=a node=n1"];
    let web = World::new([service("web", LOCAL), slice("x", &endpoints), node("n1", "a")]).web();
    assert_eq!((web.internal.as_str(), web.external.as_str()), ("10.1.0.1:8080*", "10.1.0.1:8080*"));
    // The short circuit of 3.5 uses the cluster list, which they do filter.
    assert_eq!(web.from_node, "10.1.0.2:8080");
}

#[test]
fn rule_5_6_unready_endpoints_without_hints_do_not_matter() {
    assert_eq!(chosen("a", &["10.1.0.1 zone=a", "10.1.0.2 zone=b", "10.1.0.3 not-ready"]), "1");
    assert_eq!(chosen("a", &["10.1.0.1 zone=a", "10.1.0.2 zone=b", "10.1.0.3 not-ready terminating"]), "1");
}

#[test]
fn rule_4_3_hints_are_ignored_in_the_fallback_to_terminating() {
    let endpoints = ["10.1.0.1 zone=a node=n1 not-ready terminating", "10.1.0.2 zone=b node=n2 not-ready terminating"];
    assert_eq!(chosen("a", &endpoints), "12");
}

#[test]
fn rule_5_7_zone_change_plans_everything_again() {
    let endpoints = ["10.1.0.1 zone=a", "10.1.0.2 zone=b"];
    let mut world = World::new([service("web", PLAIN), slice("x", &endpoints), node("n1", "a")]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");
    assert_eq!(world.apply(node("n1", "b")), ["web/TCP IPv4"]);
    assert_eq!(world.web().internal, "10.1.0.2:8080");
    assert_eq!(world.apply(node("n1", "b")), [""; 0]);
    // A Node object that goes leaves the zone as it was (14.5: only logged).
    assert_eq!(world.delete(&node("n1", "b")), [""; 0]);
    assert_eq!(world.web().internal, "10.1.0.2:8080");
}
