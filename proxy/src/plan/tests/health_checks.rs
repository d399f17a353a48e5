//! Section 11.3: which Services have a health-check node port, and what is counted there.

use super::{World, load_balancer, node, service, slice_of};

const HEALTH: &str = "{type: LoadBalancer, clusterIPs: IPS, externalTrafficPolicy: Local, healthCheckNodePort: 32000,
    ports: [{name: a, port: 80}, {name: b, port: 443}]}";

const PORTS: &str = "[{name: a, port: 8080}, {name: b, port: 8443}]";

/// `32000 IPv4=1 IPv6=0`, or nothing.
fn shown(world: &World, name: &str) -> String {
    let checks = world.0.health_checks().values().filter(|check| &*check.service.name == name);
    let text = checks.map(|check| {
        let counts = check.local_ready_endpoints.iter().map(|(family, count)| format!(" {family}={count}"));
        format!("{}{}", check.port, counts.collect::<String>())
    });
    text.collect::<Vec<_>>().join(", ")
}

fn changed(world: &mut World) -> Vec<String> {
    world.0.take_health_check_changes().iter().map(ToString::to_string).collect()
}

#[test]
fn rule_11_3_only_load_balancers_with_policy_local_and_a_number() {
    for (from, to, exists) in [
        ("", "", true),
        ("type: LoadBalancer", "type: NodePort", false),
        ("externalTrafficPolicy: Local", "externalTrafficPolicy: Cluster", false),
        ("healthCheckNodePort: 32000", "healthCheckNodePort: 0", false),
        ("ports: [{name: a, port: 80}, {name: b, port: 443}]", "ports: []", false),
        // A number that could not be listened at does no harm where it is ignored.
        ("externalTrafficPolicy: Local, healthCheckNodePort: 32000", "healthCheckNodePort: 99999", false),
    ] {
        let spec = HEALTH.replace("IPS", "[10.0.0.1]").replace(from, to);
        assert_eq!(
            shown(&World::new([service("web", &spec)]), "web"),
            if exists { "32000 IPv4=0" } else { "" },
            "{to}"
        );
    }
}

#[test]
fn rule_11_3_each_family_the_service_has_is_counted() {
    for (ips, expected) in [
        ("[10.0.0.1]", "32000 IPv4=2"),
        ("['fd00::1']", "32000 IPv6=1"),
        ("[10.0.0.1, 'fd00::1']", "32000 IPv4=2 IPv6=1"),
    ] {
        let world = World::new([
            load_balancer("web", &HEALTH.replace("IPS", ips), "[]"),
            slice_of("web", "a", PORTS, &["10.1.0.1 @n1", "10.1.0.2 @n1"]),
            slice_of("web", "b", PORTS, &["fd01::1 @n1"]),
        ]);
        assert_eq!(shown(&world, "web"), expected, "{ips}");
    }
}

#[test]
fn rule_11_3_distinct_ready_addresses_on_this_node_over_all_ports() {
    for (a, b, count) in [
        (vec!["10.1.0.1 @n1"], vec!["10.1.0.1 @n1"], 1),
        (vec!["10.1.0.1 @n1"], vec!["10.1.0.2 @n1"], 2),
        (vec!["10.1.0.1 @n1", "10.1.0.2 @n2", "10.1.0.3"], vec![], 1),
        // Terminating but serving do not count, although they may still get traffic.
        (vec!["10.1.0.1 @n1 not-ready terminating"], vec!["10.1.0.2 @n1 not-ready"], 0),
        (vec!["10.1.0.1 @n1 ready terminating"], vec![], 1),
    ] {
        let world = World::new([
            service("web", &HEALTH.replace("IPS", "[10.0.0.1]")),
            slice_of("web", "a", "[{name: a, port: 8080}]", &a),
            slice_of("web", "b", "[{name: b, port: 8443}]", &b),
        ]);
        assert_eq!(shown(&world, "web"), format!("32000 IPv4={count}"), "{a:?} {b:?}");
    }
}

#[test]
fn changes_are_named_once() {
    let spec = HEALTH.replace("IPS", "[10.0.0.1]");
    let mut world = World::new([service("web", &spec), service("other", super::PLAIN)]);
    assert_eq!(changed(&mut world), ["default/web"]);
    assert_eq!(changed(&mut world), [""; 0]);
    // Neither a remote endpoint nor one of another Service.
    world.apply(slice_of("web", "a", PORTS, &["10.1.0.2 @n2"]));
    world.apply(slice_of("other", "b", "[{port: 80}]", &["10.1.0.3 @n1"]));
    world.apply(node("n1", "a"));
    assert_eq!(changed(&mut world), [""; 0]);
    world.apply(slice_of("web", "a", PORTS, &["10.1.0.1 @n1"]));
    assert_eq!(changed(&mut world), ["default/web"]);
    world.apply(service("web", &spec.replace("32000", "32001")));
    assert_eq!(
        (changed(&mut world), shown(&world, "web")),
        (vec!["default/web".to_owned()], "32001 IPv4=1".to_owned())
    );
    world.delete(&service("web", &spec));
    assert_eq!((changed(&mut world), shown(&world, "web")), (vec!["default/web".to_owned()], String::new()));
}
