//! Section 1: which objects are looked at.

use super::{PLAIN, World, node, service, slice, slice_of, yaml};
use crate::model::api::{EndpointSlice, Object, Service, TypeMeta};

fn labelled(mut object: Object, key: &str, value: &str) -> Object {
    let labels = match &mut object {
        Object::Service(service) => &mut service.metadata.labels,
        Object::EndpointSlice(slice) => &mut slice.metadata.labels,
        Object::Node(node) => &mut node.metadata.labels,
        Object::Malformed(_) => unreachable!("not made by these tests"),
    };
    labels.insert(key.to_owned(), value.to_owned());
    object
}

#[test]
fn rule_1_1_service_of_another_proxy_is_removed_and_comes_back() {
    let mut world = World::new([service("web", PLAIN)]);
    let other = labelled(service("web", PLAIN), "service.kubernetes.io/service-proxy-name", "");
    assert_eq!(world.apply(other), ["web/TCP IPv4"]);
    assert!(world.keys().is_empty());
    assert_eq!(world.apply(service("web", PLAIN)), ["web/TCP IPv4"]);
}

#[test]
fn rule_1_2_slices_are_tied_by_label_and_namespace_only() {
    let mut unlabelled = EndpointSlice::default();
    if let Object::EndpointSlice(slice) = slice("any-name", &["10.1.0.1"]) {
        unlabelled = EndpointSlice { metadata: Default::default(), ..slice };
        unlabelled.metadata.name = "web-abcde".to_owned();
    }
    let mut elsewhere = unlabelled.clone();
    elsewhere.metadata.namespace = "other".to_owned();
    elsewhere.metadata.labels.insert("kubernetes.io/service-name".to_owned(), "web".to_owned());
    let headless = labelled(slice("headless", &["10.1.0.9"]), "service.kubernetes.io/headless", "");

    let mut world = World::new([service("web", PLAIN), unlabelled.into(), elsewhere.into(), headless]);
    assert_eq!(world.web().internal, "reject");
    world.apply(slice("any-name", &["10.1.0.1"]));
    assert_eq!(world.web().internal, "10.1.0.1:8080");
    // The label may name another Service later, or go away.
    world.apply(slice_of("other", "any-name", "[{port: 8080}]", &["10.1.0.1"]));
    assert_eq!(world.web().internal, "reject");
}

#[test]
fn rule_1_3_other_nodes_are_ignored() {
    let near = slice("a", &["10.1.0.1 zone=z1", "10.1.0.2 zone=z2"]);
    let mut world = World::new([service("web", PLAIN), near, node("n2", "z2")]);
    assert_eq!(world.web().internal, "10.1.0.1:8080 10.1.0.2:8080");
    assert_eq!(world.apply(node("n1", "z1")), ["web/TCP IPv4"]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");
}

#[test]
fn rules_1_4_and_1_5_other_kinds_are_not_read() {
    for (api_version, kind) in [
        ("networking.k8s.io/v1", "ServiceCIDR"),
        ("v1", "Endpoints"),
        ("v1", "Pod"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("networking.k8s.io/v1", "Ingress"),
    ] {
        let meta = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let error = meta.object_kind().expect_err(kind);
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn rule_1_8_external_name_is_skipped_even_with_a_cluster_ip() {
    let spec = "{type: ExternalName, externalName: x.test, clusterIP: 10.0.0.1, ports: [{port: 80}]}";
    assert!(World::new([service("web", spec)]).keys().is_empty());
}

#[test]
fn rule_1_9_headless_is_skipped_with_all_its_addresses() {
    for ip in ["clusterIP: None", "clusterIP: ''", "clusterIPs: [None]", "clusterIP: null"] {
        let spec = format!("{{{ip}, externalIPs: [192.0.2.1], ports: [{{port: 80, nodePort: 30080}}]}}");
        let mut world = World::new([service("web", &spec)]);
        assert!(world.keys().is_empty(), "{ip}");
        assert_eq!(world.apply(service("web", PLAIN)), ["web/TCP IPv4"], "{ip}");
    }
}

#[test]
fn rule_1_10_type_decides_only_about_the_external_policy() {
    let status = "[{ip: 203.0.113.1}]";
    for service_type in ["ClusterIP", "NodePort", "LoadBalancer", "Later"] {
        let spec = format!("{{type: {service_type}, clusterIP: 10.0.0.1, ports: [{{port: 80, nodePort: 30080}}]}}");
        let world = World::new([super::load_balancer("web", &spec, status)]);
        let expected = ["ClusterIP 10.0.0.1:80", "LoadBalancer 203.0.113.1:80", "NodePort 30080"];
        assert_eq!(super::frontends(&world.plan("web/TCP IPv4")), expected, "{service_type}");
    }
    for (service_type, more, local) in [
        ("LoadBalancer", "", true),
        ("NodePort", "", true),
        ("ClusterIP", "", false),
        ("ClusterIP", "externalIPs: [192.0.2.1],", true),
    ] {
        let spec = format!(
            "{{type: {service_type}, {more} externalTrafficPolicy: Local, clusterIP: 10.0.0.1,
              ports: [{{port: 80, nodePort: 30080}}]}}"
        );
        let world = World::new([service("web", &spec), slice("a", &["10.1.0.1 @n2"])]);
        assert_eq!(world.web().external == "drop", local, "{service_type} {more}");
    }
}

#[test]
fn rule_1_11_ignored_fields_change_nothing() {
    let plain: Service = yaml(&format!("{{metadata: {{name: web}}, spec: {PLAIN}}}"));
    let full: Service = yaml(
        "{metadata: {name: web, annotations: {service.kubernetes.io/topology-mode: Auto}, uid: 1-2-3},
          spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack,
                 selector: {app: web}, publishNotReadyAddresses: true, trafficDistribution: PreferClose,
                 loadBalancerIP: 192.0.2.9, loadBalancerClass: x/y, allocateLoadBalancerNodePorts: false,
                 ports: [{port: 80, targetPort: http, appProtocol: h2c}]},
          status: {loadBalancer: {ingress: [{hostname: lb.test, ports: [{port: 80, protocol: TCP}]}]}}}",
    );
    let mut world = World::new([plain.into()]);
    assert_eq!(world.apply(full.into()), [""; 0]);
}

#[test]
fn rule_1_12_sloppy_addresses_are_canonical_and_invalid_external_ones_skipped() {
    let spec = "{clusterIP: 10.000.0.01, externalIPs: ['', 192.0.2.041, nonsense, 127.0.0.1], ports: [{port: 80}]}";
    let world = World::new([service("web", spec), slice("a", &["010.1.0.1"])]);
    let plan = world.plan("web/TCP IPv4");
    assert_eq!(super::frontends(&plan), ["ClusterIP 10.0.0.1:80", "ExternalIP 192.0.2.41:80"]);
    assert_eq!(world.web().internal, "10.1.0.1:8080");
    let warnings: Vec<_> = world.0.warnings().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "Service default/web: spec.externalIPs[2]: \"nonsense\" is not allowed, must be an IP address; ignored",
            "Service default/web: spec.externalIPs[3]: \"loopback 127.0.0.1\" is not allowed, \
             must be an address of other machines; ignored",
        ]
    );
}

#[test]
fn rule_1_13_slice_ports_match_by_name_and_protocol() {
    for (service_port, slice_port, matches) in [
        ("{port: 80}", "{port: 8080}", true),
        ("{port: 80, name: http}", "{port: 8080, name: http}", true),
        ("{port: 80, name: http}", "{port: 80}", false),
        ("{port: 80}", "{port: 80, name: http}", false),
        ("{port: 80, name: http}", "{port: 8080, name: http, protocol: UDP}", false),
        ("{port: 80}", "{port: null}", false),
        ("{port: 80}", "{port: 0}", false),
        ("{port: 80}", "{}", false),
    ] {
        let spec = format!("{{clusterIP: 10.0.0.1, ports: [{service_port}]}}");
        let slice = slice_of("web", "a", &format!("[{slice_port}]"), &["10.1.0.1"]);
        let world = World::new([service("web", &spec), slice]);
        let internal = &world.0.ports().values().next().expect("one port").internal;
        assert_eq!(super::shown(internal) == "10.1.0.1:8080", matches, "{service_port} {slice_port}");
    }
}

#[test]
fn rule_1_13_renaming_only_the_service_port_loses_the_endpoints() {
    let mut world = World::new([service("web", PLAIN), slice("a", &["10.1.0.1"])]);
    let renamed = service("web", "{clusterIP: 10.0.0.1, ports: [{port: 80, name: http}]}");
    assert_eq!(world.apply(renamed), ["web/TCP IPv4", "web:http/TCP IPv4"]);
    assert_eq!(super::shown(&world.plan("web:http/TCP IPv4").internal), "reject");
}
