//! Sections 2, 7.2, 9.6 and 14.6: frontends, affinity, source ranges, families.

use std::time::Duration;

use super::{Change, Planner, PlannerConfig, World, frontends, load_balancer, service, slice_of};

/// Every kind of address, both families.
const ALL: &str = "{type: LoadBalancer, clusterIPs: [10.0.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6],
    externalIPs: [192.0.2.2, '2001:db8::2', 192.0.2.1], ports: [{port: 80, nodePort: 30080}]}";

#[test]
fn rules_2_1_to_2_4_frontends_of_each_family() {
    let world = World::new([load_balancer("web", ALL, "[{ip: 203.0.113.1}, {ip: '2001:db8::9', ipMode: VIP}]")]);
    assert_eq!(
        frontends(&world.plan("web/TCP IPv4")),
        [
            "ClusterIP 10.0.0.1:80",
            "ExternalIP 192.0.2.1:80",
            "ExternalIP 192.0.2.2:80",
            "LoadBalancer 203.0.113.1:80",
            "NodePort 30080"
        ]
    );
    assert_eq!(
        frontends(&world.plan("web/TCP IPv6")),
        ["ClusterIP [fd00::1]:80", "ExternalIP [2001:db8::2]:80", "LoadBalancer [2001:db8::9]:80", "NodePort 30080"]
    );
}

#[test]
fn rule_2_3_ip_mode_proxy_and_host_names_are_not_programmed() {
    for (ingress, vip) in [
        ("[{ip: 203.0.113.1}]", true),
        ("[{ip: 203.0.113.1, ipMode: null}]", true),
        ("[{ip: 203.0.113.1, ipMode: VIP}]", true),
        ("[{ip: 203.0.113.1, ipMode: Proxy}]", false),
        ("[{hostname: lb.test}]", false),
        ("[{ip: '', hostname: lb.test}]", false),
        ("null", false),
    ] {
        let world = World::new([load_balancer("web", super::PLAIN, ingress)]);
        assert_eq!(frontends(&world.plan("web/TCP IPv4")).len() == 2, vip, "{ingress}");
    }
}

#[test]
fn rule_2_4_external_ips_can_be_forbidden() {
    let config = PlannerConfig { external_ips_allowed: false, ..PlannerConfig::new("n1") };
    let mut planner = Planner::new(config);
    let spec = "{clusterIP: 10.0.0.1, externalIPs: [192.0.2.1], ports: [{port: 80}]}";
    planner.apply(Change::Apply(service("web", spec))).expect("accepted");
    planner.take_changes();
    let plan = planner.ports().values().next().expect("one port");
    assert_eq!(frontends(plan), ["ClusterIP 10.0.0.1:80"]);
}

#[test]
fn rule_2_5_target_port_comes_from_each_slice() {
    let world = World::new([
        service("web", super::PLAIN),
        slice_of("web", "a", "[{port: 8080}]", &["10.1.0.2"]),
        slice_of("web", "b", "[{port: 9090}]", &["10.1.0.1"]),
    ]);
    assert_eq!(world.web().internal, "10.1.0.1:9090 10.1.0.2:8080");
}

#[test]
fn rule_2_6_protocols_on_one_number_are_separate_ports() {
    let spec = "{clusterIP: 10.0.0.1, ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP},
                                              {name: b, port: 53, protocol: SCTP}]}";
    let world = World::new([service("dns", spec)]);
    assert_eq!(world.keys(), ["dns:a/TCP IPv4", "dns:b/UDP IPv4", "dns:b/SCTP IPv4"]);
}

#[test]
fn rule_2_7_an_address_in_two_roles_keeps_the_first() {
    let spec = "{clusterIP: 10.0.0.1, externalIPs: [203.0.113.1, 203.0.113.1, 10.0.0.1], ports: [{port: 80}]}";
    let world = World::new([load_balancer("web", spec, "[{ip: 203.0.113.1}]")]);
    assert_eq!(frontends(&world.plan("web/TCP IPv4")), ["ClusterIP 10.0.0.1:80", "ExternalIP 203.0.113.1:80"]);
}

#[test]
fn rule_2_8_endpoints_are_ordered_by_number_not_by_text() {
    let world = World::new([
        service("web", super::PLAIN),
        slice_of("web", "a", "[{port: 80}]", &["10.0.1.10", "10.0.1.9", "10.0.1.1"]),
    ]);
    assert_eq!(world.web().internal, "10.0.1.1:80 10.0.1.9:80 10.0.1.10:80");
}

#[test]
fn rule_2_9_has_endpoints() {
    for (endpoints, any) in [
        (vec![], false),
        (vec!["10.1.0.1"], true),
        (vec!["10.1.0.1 not-ready terminating"], true),
        (vec!["10.1.0.1 not-ready"], false),
    ] {
        let world = World::new([service("web", super::PLAIN), super::slice("a", &endpoints)]);
        assert_eq!(world.web().internal != "reject", any, "{endpoints:?}");
    }
}

#[test]
fn rule_7_2_affinity_timeout() {
    for (fields, seconds) in [
        ("", None),
        ("sessionAffinity: None,", None),
        ("sessionAffinity: ClientIP,", Some(10_800)),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: null,", Some(10_800)),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}},", Some(1)),
        ("sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}},", Some(86_400)),
        ("sessionAffinity: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}},", None),
    ] {
        let world = World::new([service("web", &format!("{{{fields} clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}"))]);
        assert_eq!(world.plan("web/TCP IPv4").affinity, seconds.map(Duration::from_secs), "{fields}");
    }
}

#[test]
fn rule_9_6_source_ranges() {
    for (ranges, v4, v6) in [
        ("[]", "", ""),
        ("null", "", ""),
        ("[' 203.0.113.000/025 ', 10.1.2.3/8, 10.0.0.0/8]", "10.0.0.0/8 203.0.113.0/25", ""),
        ("['2001:DB8::/32', 10.0.0.0/8]", "10.0.0.0/8", "2001:db8::/32"),
        ("[10.0.0.0/8, 0.0.0.0/0, '2001:db8::/32']", "", "2001:db8::/32"),
        ("['::/0']", "", ""),
    ] {
        let spec = ALL.replace("ports:", &format!("loadBalancerSourceRanges: {ranges}, ports:"));
        let world = World::new([load_balancer("web", &spec, "[{ip: 203.0.113.1}, {ip: '2001:db8::9'}]")]);
        for (family, expected) in [("IPv4", v4), ("IPv6", v6)] {
            let plan = world.plan(&format!("web/TCP {family}"));
            let text: Vec<_> = plan.source_ranges.iter().map(ToString::to_string).collect();
            assert_eq!(text.join(" "), expected, "{ranges} {family}");
        }
    }
}

#[test]
fn rule_9_6_ranges_without_a_load_balancer_address_mean_nothing() {
    let spec = "{clusterIP: 10.0.0.1, loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 80, nodePort: 30080}]}";
    assert!(World::new([service("web", spec)]).plan("web/TCP IPv4").source_ranges.is_empty());
}

#[test]
fn rule_14_6_a_family_needs_a_cluster_ip() {
    for (ips, keys) in [
        ("clusterIP: 10.0.0.1", vec!["web/TCP IPv4"]),
        ("clusterIP: 'fd00::1'", vec!["web/TCP IPv6"]),
        ("clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'FD00:0::1']", vec!["web/TCP IPv4", "web/TCP IPv6"]),
        ("clusterIPs: ['fd00::1', 10.0.0.1], ipFamilies: [IPv6, IPv4]", vec!["web/TCP IPv4", "web/TCP IPv6"]),
        ("clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4]", vec!["web/TCP IPv4"]),
    ] {
        let spec =
            format!("{{{ips}, externalIPs: [192.0.2.1, '2001:db8::1'], ports: [{{port: 80, nodePort: 30080}}]}}");
        assert_eq!(World::new([service("web", &spec)]).keys(), keys, "{ips}");
    }
}
