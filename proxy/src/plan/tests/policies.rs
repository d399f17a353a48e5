//! Sections 3, 8.5, 8.6, 9.1 and 9.4: traffic policies, REJECT and DROP, masquerade.

use super::{Shown, World, load_balancer, service, slice};
use crate::{model::IpFamily, plan::NoLocalEndpoints};

/// Outcomes of a NodePort Service with these policies (`C` or `L`: internal, external) and endpoints.
fn node_port(internal: char, external: char, endpoints: &[&str]) -> Shown {
    let policy = |letter| if letter == 'L' { "Local" } else { "Cluster" };
    let spec = format!(
        "{{type: NodePort, clusterIP: 10.0.0.1, internalTrafficPolicy: {}, externalTrafficPolicy: {},
          ports: [{{port: 80, nodePort: 30080}}]}}",
        policy(internal),
        policy(external)
    );
    World::new([service("web", &spec), slice("a", endpoints)]).web()
}

fn shown(internal: &str, external: &str, from_node: &str) -> Shown {
    Shown { internal: internal.to_owned(), external: external.to_owned(), from_node: from_node.to_owned() }
}

const MIXED: &[&str] = &["10.1.0.1 @n1", "10.1.0.2 @n2"];
const REMOTE: &[&str] = &["10.1.0.2 @n2"];
const BOTH: &str = "10.1.0.1:8080* 10.1.0.2:8080";
const ONLY_LOCAL: &str = "10.1.0.1:8080*";
const ONLY_REMOTE: &str = "10.1.0.2:8080";

#[test]
fn rule_3_1_internal_policy_has_no_effect_outside() {
    assert_eq!(node_port('C', 'C', MIXED), shown(BOTH, BOTH, BOTH));
    assert_eq!(node_port('L', 'C', MIXED), shown(ONLY_LOCAL, BOTH, BOTH));
}

#[test]
fn rule_3_2_internal_local_without_local_endpoint() {
    assert_eq!(node_port('L', 'C', REMOTE), shown("drop", ONLY_REMOTE, ONLY_REMOTE));
    assert_eq!(node_port('L', 'C', &[]), shown("reject", "reject", "reject"));
    let only_unusable = &["10.1.0.2 @n2 not-ready"];
    assert_eq!(node_port('L', 'C', only_unusable), shown("reject", "reject", "reject"));
}

#[test]
fn rule_3_3_external_policy_applies_to_every_external_address_and_no_other() {
    let spec = "{clusterIP: 10.0.0.1, externalTrafficPolicy: Local, ports: [{port: 80}]}";
    let external_ip = spec.replace("ports", "externalIPs: [192.0.2.1], ports");
    let vip = spec.replacen('{', "{type: LoadBalancer, ", 1);
    for (object, external) in [
        (service("web", spec), ONLY_REMOTE),
        (service("web", &external_ip), "drop"),
        (load_balancer("web", &vip, "[{ip: 203.0.113.1}]"), "drop"),
    ] {
        let world = World::new([object, slice("a", REMOTE)]);
        assert_eq!(world.web(), shown(ONLY_REMOTE, external, ONLY_REMOTE));
    }
}

#[test]
fn rule_3_4_external_local_from_outside() {
    assert_eq!(node_port('C', 'L', MIXED).external, ONLY_LOCAL);
    assert_eq!(node_port('C', 'L', REMOTE).external, "drop");
    assert_eq!(node_port('C', 'L', &[]).external, "reject");
}

#[test]
fn rules_3_5_and_3_6_short_circuit_from_pods_and_the_node() {
    assert_eq!(node_port('C', 'L', MIXED).from_node, BOTH);
    assert_eq!(node_port('C', 'L', REMOTE).from_node, ONLY_REMOTE);
    assert_eq!(node_port('C', 'L', &[]).from_node, "reject");
    // The internal policy does not limit it.
    assert_eq!(node_port('L', 'L', MIXED).from_node, BOTH);
}

#[test]
fn rule_3_8_policies_are_independent() {
    assert_eq!(node_port('L', 'C', MIXED), shown(ONLY_LOCAL, BOTH, BOTH));
    assert_eq!(node_port('C', 'L', MIXED), shown(BOTH, ONLY_LOCAL, BOTH));
    assert_eq!(node_port('L', 'L', MIXED), shown(ONLY_LOCAL, ONLY_LOCAL, BOTH));
    assert_eq!(node_port('L', 'L', REMOTE), shown("drop", "drop", ONLY_REMOTE));
}

#[test]
fn internal_local_service_without_external_address_never_names_remote_endpoints() {
    let spec = "{clusterIP: 10.0.0.1, internalTrafficPolicy: Local, ports: [{port: 80}]}";
    let world = World::new([service("web", spec), slice("a", MIXED)]);
    assert_eq!(world.web(), shown(ONLY_LOCAL, ONLY_LOCAL, ONLY_LOCAL));
}

#[test]
fn unknown_policy_counts_as_cluster_and_is_reported() {
    let spec = "{clusterIP: 10.0.0.1, internalTrafficPolicy: local, ports: [{port: 80}]}";
    let world = World::new([service("web", spec), slice("a", REMOTE)]);
    assert_eq!(world.web().internal, ONLY_REMOTE);
    let warnings: Vec<_> = world.0.warnings().map(|warning| warning.field.as_str()).collect();
    assert_eq!(warnings, ["spec.internalTrafficPolicy"]);
}

#[test]
fn rules_8_5_and_8_6_masquerade_follows_the_external_policy() {
    for (policy, masquerade) in [("Cluster", true), ("Local", false), ("null", true)] {
        let spec = format!(
            "{{type: NodePort, clusterIP: 10.0.0.1, externalTrafficPolicy: {policy}, ports: [{{port: 80, nodePort: 30080}}]}}"
        );
        let world = World::new([service("web", &spec)]);
        assert_eq!(world.plan("web/TCP IPv4").masquerade_external, masquerade, "{policy}");
    }
}

#[test]
fn rule_9_1_no_endpoints_rejects_everyone() {
    for (internal, external) in [('C', 'C'), ('L', 'C'), ('C', 'L'), ('L', 'L')] {
        assert_eq!(node_port(internal, external, &[]), shown("reject", "reject", "reject"));
    }
}

#[test]
fn rule_9_4_drop_only_for_policy_local_with_endpoints_elsewhere() {
    for endpoints in [&[] as &[&str], MIXED, REMOTE, &["10.1.0.2 @n2 not-ready terminating"], &["10.1.0.1 @n1"]] {
        assert!(node_port('C', 'C', endpoints).internal != "drop", "{endpoints:?}");
        assert!(node_port('C', 'C', endpoints).external != "drop", "{endpoints:?}");
        assert!(node_port('L', 'L', endpoints).from_node != "drop", "{endpoints:?}");
    }
}

#[test]
fn rule_3_9_dropping_ports_are_counted_and_rejecting_ones_are_not() {
    for (internal, external, endpoints, counted) in [
        ("Local", "Local", REMOTE, (1, 1)),
        ("Cluster", "Local", REMOTE, (0, 1)),
        ("Local", "Cluster", REMOTE, (1, 0)),
        ("Local", "Local", MIXED, (0, 0)),
        ("Local", "Local", &[], (0, 0)),
    ] {
        let policies = format!("internalTrafficPolicy: {internal}, externalTrafficPolicy: {external}");
        let exposed =
            format!("{{type: NodePort, clusterIP: 10.0.0.1, {policies}, ports: [{{port: 80, nodePort: 30080}}]}}");
        let count = |spec: &str| {
            let world = World::new([service("web", spec), slice("a", endpoints)]);
            let both = [IpFamily::V4, IpFamily::V6].map(|family| world.0.no_local_endpoints(family));
            assert_eq!(both[1], NoLocalEndpoints::default());
            (both[0].internal, both[0].external)
        };
        assert_eq!(count(&exposed), counted, "{policies} {endpoints:?}");
        // Without an external address its policy drops nothing.
        assert_eq!(count(&exposed.replace(", nodePort: 30080", "")), (counted.0, 0), "{policies} {endpoints:?}");
    }
}
