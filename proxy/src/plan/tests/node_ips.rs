//! Sections 14.2 and 9.7: the node's own addresses, and what source ranges make of them.

use std::net::IpAddr;

use super::{Change, Object, Planner, PlannerConfig, World, load_balancer, node, yaml};
use crate::model::{ObjectKind, ObjectRef, PodCidrs};

/// The Node `n1` with these `status.addresses`.
fn node_at(addresses: &str) -> Object {
    yaml(&format!("{{kind: Node, metadata: {{name: n1}}, status: {{addresses: {addresses}}}}}"))
}

fn ips(planner: &Planner) -> String {
    planner.node_ips().iter().map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn rule_14_2_internal_before_external_and_the_first_of_each_family() {
    for (addresses, expected) in [
        ("[]", ""),
        ("null", ""),
        ("[{type: InternalIP, address: 192.0.2.1}]", "192.0.2.1"),
        ("[{type: Hostname, address: n1}, {type: InternalDNS, address: 192.0.2.9}]", ""),
        ("[{type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 192.0.2.1}]", "192.0.2.1"),
        ("[{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: 192.0.2.2}]", "192.0.2.1"),
        (
            "[{type: InternalIP, address: '2001:DB8::1'}, {type: InternalIP, address: 192.0.2.01}]",
            "2001:db8::1 192.0.2.1",
        ),
        (
            "[{type: InternalIP, address: 192.0.2.1}, {type: ExternalIP, address: '2001:db8::1'}]",
            "192.0.2.1 2001:db8::1",
        ),
        ("[{type: InternalIP, address: nonsense}, {type: InternalIP, address: 192.0.2.1}]", "192.0.2.1"),
    ] {
        assert_eq!(ips(&World::new([node_at(addresses)]).0), expected, "{addresses}");
    }
}

#[test]
fn rule_14_2_bind_address_wins_in_its_family_and_makes_it_primary() {
    const BOTH: &str = "[{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: '2001:db8::1'}]";
    for (bind, without_node, with_node) in [
        ("0.0.0.0", "", "192.0.2.1 2001:db8::1"),
        ("::", "", "192.0.2.1 2001:db8::1"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7 2001:db8::1"),
        ("2001:db8::7", "2001:db8::7", "2001:db8::7 192.0.2.1"),
    ] {
        let bind_address: Option<IpAddr> = Some(bind.parse().expect("an address"));
        let mut planner = Planner::new(PlannerConfig { bind_address, ..PlannerConfig::new("n1") });
        assert_eq!(ips(&planner), without_node, "{bind}");
        planner.apply(Change::Apply(node_at(BOTH))).expect("accepted");
        assert_eq!(ips(&planner), with_node, "{bind}");
    }
}

#[test]
fn rule_14_5_addresses_stay_until_others_are_named() {
    let mut world = World::new([node_at("[{type: InternalIP, address: 192.0.2.1}]")]);
    world.apply(node("n2", "a"));
    world.apply(node("n1", "a"));
    assert_eq!(ips(&world.0), "192.0.2.1");
    let reference = ObjectRef { kind: ObjectKind::Node, namespace: "".into(), name: "n1".into() };
    world.0.apply(Change::Delete(reference)).expect("accepted");
    assert_eq!(ips(&world.0), "192.0.2.1");
    world.apply(node_at("[{type: InternalIP, address: 192.0.2.2}]"));
    assert_eq!(ips(&world.0), "192.0.2.2");
}

#[test]
fn rule_9_7_vips_are_allowed_if_this_node_is() {
    const SPEC: &str = "{type: LoadBalancer, clusterIPs: [10.0.0.1, 'fd00::1'], loadBalancerSourceRanges: RANGES,
        ports: [{port: 80, nodePort: 30080}]}";
    let addresses = "[{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: '2001:db8::1'}]";
    let ingress = "[{ip: 203.0.113.1}, {ip: 203.0.113.2}, {ip: '2001:db8:1::1'}, {ip: 203.0.113.3, ipMode: Proxy}]";
    for (ranges, v4, v6) in [
        ("[192.0.2.0/24]", "192.0.2.0/24 203.0.113.1/32 203.0.113.2/32", ""),
        ("[192.0.2.1/32, 10.0.0.0/8]", "10.0.0.0/8 192.0.2.1/32 203.0.113.1/32 203.0.113.2/32", ""),
        ("[10.0.0.0/8]", "10.0.0.0/8", ""),
        ("[10.0.0.0/8, '2001:db8::/64']", "10.0.0.0/8", "2001:db8::/64 2001:db8:1::1/128"),
        // 9.6 comes first: everybody is allowed.
        ("[192.0.2.0/24, 0.0.0.0/0]", "", ""),
        ("[]", "", ""),
    ] {
        let web = load_balancer("web", &SPEC.replace("RANGES", ranges), ingress);
        let mut world = World::new([web.clone(), node_at(addresses)]);
        let text = |world: &World, family: &str| {
            let plan = world.plan(&format!("web/TCP {family}"));
            plan.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((text(&world, "IPv4").as_str(), text(&world, "IPv6").as_str()), (v4, v6), "{ranges}");
        // Another address of the node is a change of these Services, and of no others.
        let other = super::service("other", "{clusterIP: 10.0.0.9, ports: [{port: 80}]}");
        world.apply(other);
        let changed = world.apply(node_at("[{type: InternalIP, address: 198.51.100.1}]"));
        assert!(!changed.contains(&"other/TCP IPv4".to_owned()));
        assert!(!text(&world, "IPv4").contains("203.0.113.1"), "{ranges}");
    }
}

/// The Node `n1` with these `spec.podCIDRs`.
fn node_with(cidrs: &str) -> Object {
    yaml(&format!("{{kind: Node, metadata: {{name: n1}}, spec: {{podCIDRs: {cidrs}}}}}"))
}

fn pod_cidrs(planner: &Planner) -> String {
    let PodCidrs { ipv4, ipv6 } = planner.pod_cidrs();
    let texts = [ipv4.map(|cidr| cidr.to_string()), ipv6.map(|cidr| cidr.to_string())];
    texts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[test]
fn rule_8_8_node_cidr_is_the_first_of_each_family() {
    for (cidrs, expected) in [
        ("null", ""),
        ("[]", ""),
        ("[10.244.1.0/24]", "10.244.1.0/24"),
        ("['fd44:0:0:1::/64', 10.244.01.7/24, 10.244.9.0/24]", "10.244.1.0/24 fd44:0:0:1::/64"),
        ("[nonsense, 10.244.1.0/24]", "10.244.1.0/24"),
    ] {
        assert_eq!(pod_cidrs(&World::new([node_with(cidrs)]).0), expected, "{cidrs}");
    }
}

#[test]
fn rule_14_4_pod_cidrs_stay_until_others_are_named() {
    let mut world = World::new([node_with("[10.244.1.0/24]")]);
    world.apply(node_with("[]"));
    world.apply(node("n2", "a"));
    assert_eq!(pod_cidrs(&world.0), "10.244.1.0/24");
    world.apply(node_with("[10.244.2.0/24]"));
    assert_eq!(pod_cidrs(&world.0), "10.244.2.0/24");
}
