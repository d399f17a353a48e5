//! Manifests in, checked objects or exact complaints out.

use proptest::prelude::*;

use super::{
    Check, ObjectError, ObjectKind, Service,
    api::{self, NotRead, Object, TypeMeta},
    endpoint_slice::EndpointSlice,
    node::NodeTopology,
};

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn check(object: &Object) -> Result<(), ObjectError> {
    let mut check = Check::new(object.reference());
    match object {
        Object::Service(service) => Service::check(service, &mut check).map(drop),
        Object::EndpointSlice(slice) => EndpointSlice::check(slice, "n1", &mut check).map(drop),
        Object::Node(node) => NodeTopology::check(node, &mut check).map(drop),
        Object::Malformed(_) => unreachable!("not made by these tests"),
    }
}

fn complaint(document: &str) -> String {
    check(&yaml(document)).expect_err(document).to_string()
}

#[test]
fn malformed_services_are_refused_with_field_value_and_what_is_allowed() {
    let in_spec = |fields: &str| {
        let cluster_ip = if fields.contains("clusterIP") { "" } else { "clusterIP: 10.0.0.1," };
        complaint(&format!("{{kind: Service, metadata: {{name: web}}, spec: {{{cluster_ip} {fields}}}}}"))
    };
    for (fields, expected) in [
        ("clusterIP: 10.0.0.256", "spec.clusterIP: \"10.0.0.256\" is not allowed, must be an IP address"),
        (
            "clusterIP: 127.0.0.1",
            "spec.clusterIP: \"loopback 127.0.0.1\" is not allowed, must be an address of no machine",
        ),
        (
            "clusterIPs: [10.0.0.1, 10.0.0.2]",
            "spec.clusterIPs[1]: \"10.0.0.2\" is not allowed, must be of another family than the ClusterIP before it",
        ),
        (
            "clusterIPs: [10.0.0.1], ipFamilies: [IPv6]",
            "spec.clusterIPs[0]: \"10.0.0.1\" is not allowed, must be an IPv6 address, as spec.ipFamilies says",
        ),
        ("ipFamilies: [ipv4]", "spec.ipFamilies[0]: \"ipv4\" is not allowed, must be IPv4 or IPv6"),
        ("ports: [{}]", "spec.ports[0].port: missing, must be 1 to 65535"),
        ("ports: [{port: 1}, {port: 65536}]", "spec.ports[1].port: \"65536\" is not allowed, must be 1 to 65535"),
        ("ports: [{port: -1}]", "spec.ports[0].port: \"-1\" is not allowed, must be 1 to 65535"),
        ("ports: [{port: 1, nodePort: 70000}]", "spec.ports[0].nodePort: \"70000\" is not allowed, must be 1 to 65535"),
        (
            "ports: [{port: 1, protocol: tcp}]",
            "spec.ports[0].protocol: \"tcp\" is not allowed, must be TCP, UDP or SCTP",
        ),
        (
            "ports: [{port: 1, name: 'A B'}]",
            "spec.ports[0].name: \"A B\" is not allowed, must be empty, or 1 to 63 of a-z, 0-9 and '-'",
        ),
        ("ports: [{port: 1, name: a}, {port: 2, name: a}]", "spec.ports[1].name: \"a\" appears twice"),
        ("ports: [{port: 1, name: a}, {port: 1, name: b}]", "spec.ports[1].port: \"1\" appears twice"),
        (
            "ports: [{port: 1, name: a, nodePort: 30000}, {port: 2, name: b, nodePort: 30000}]",
            "spec.ports[1].nodePort: \"30000\" appears twice",
        ),
        (
            "loadBalancerSourceRanges: [10.0.0.0/8, 10.0.0.1]",
            "spec.loadBalancerSourceRanges[1]: \"10.0.0.1\" is not allowed, must be an address range such as 10.0.0.0/8",
        ),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: \"0\" is not allowed, must be 1 to 86400",
        ),
    ] {
        assert_eq!(in_spec(fields), format!("Service default/web: {expected}"), "{fields}");
    }
}

#[test]
fn names_are_checked() {
    const ALLOWED: &str = "1 to 253 of a-z, 0-9, '-' and '.'";
    for (document, expected) in [
        ("{kind: Service}", format!("Service default/: metadata.name: missing, must be {ALLOWED}")),
        ("{kind: Node, metadata: null}", format!("Node : metadata.name: missing, must be {ALLOWED}")),
        (
            "{kind: Service, metadata: {name: \"a\\nb\"}}",
            format!("Service default/a\nb: metadata.name: \"a\\nb\" is not allowed, must be {ALLOWED}"),
        ),
        (
            "{kind: Service, metadata: {name: web, namespace: A}}",
            format!("Service A/web: metadata.namespace: \"A\" is not allowed, must be {ALLOWED}"),
        ),
    ] {
        assert_eq!(complaint(document), expected);
    }
    let long = format!("{{kind: Service, metadata: {{name: {}}}}}", "a".repeat(254));
    assert!(complaint(&long).contains(&format!("\"{}\" is not", "a".repeat(super::VALUE_LIMIT))));
}

#[test]
fn malformed_slices_are_refused() {
    let with = |fields: &str| {
        let metadata = "{name: a, labels: {kubernetes.io/service-name: web}}";
        complaint(&format!("{{kind: EndpointSlice, metadata: {metadata}, {fields}}}"))
    };
    assert_eq!(with("endpoints: []"), "EndpointSlice default/a: addressType: missing, must be IPv4, IPv6 or FQDN");
    assert_eq!(
        with("addressType: IPv4, ports: [{port: 65536}]"),
        "EndpointSlice default/a: ports[0].port: \"65536\" is not allowed, must be 1 to 65535"
    );
    assert_eq!(
        with("addressType: IPv4, ports: [{port: 1, protocol: ICMP}]"),
        "EndpointSlice default/a: ports[0].protocol: \"ICMP\" is not allowed, must be TCP, UDP or SCTP"
    );
}

#[test]
fn null_is_tolerated_everywhere() {
    let service: api::Service = yaml(
        "{metadata: {name: null, namespace: null, labels: null, deletionTimestamp: null},
          spec: {type: null, clusterIP: null, clusterIPs: null, ipFamilies: null, externalIPs: null,
                 ports: [{name: null, protocol: null, port: null, nodePort: null}], internalTrafficPolicy: null,
                 externalTrafficPolicy: null, sessionAffinity: null, sessionAffinityConfig: {clientIP: null},
                 loadBalancerSourceRanges: null, healthCheckNodePort: null},
          status: {loadBalancer: {ingress: [{ip: null, ipMode: null}]}}}",
    );
    let mut expected = api::Service::default();
    expected.spec.ports.push(api::ServicePort::default());
    expected.status.load_balancer.ingress.push(api::LoadBalancerIngress::default());
    assert_eq!(service, expected);
    assert_eq!(yaml::<api::Service>("{metadata: null, spec: null, status: null}"), api::Service::default());
    let slice = "{metadata: null, addressType: null, endpoints: null, ports: null}";
    assert_eq!(yaml::<api::EndpointSlice>(slice), api::EndpointSlice::default());
    let node = "{metadata: null, spec: {podCIDRs: null}, status: {addresses: [{type: null, address: null}]}}";
    let status = api::NodeStatus { addresses: vec![api::NodeAddress::default()] };
    assert_eq!(yaml::<api::Node>(node), api::Node { status, ..Default::default() });
}

#[test]
fn objects_are_told_apart_by_kind_wherever_it_stands() {
    for (document, kind, reference) in [
        ("{apiVersion: v1, kind: Service, metadata: {name: web}}", ObjectKind::Service, "Service default/web"),
        (
            "{addressType: IPv4, apiVersion: discovery.k8s.io/v1, endpoints: [], kind: EndpointSlice,
              metadata: {name: a, namespace: ns}}",
            ObjectKind::EndpointSlice,
            "EndpointSlice ns/a",
        ),
        ("{metadata: {name: n1, namespace: x}, spec: {podCIDR: 10.0.0.0/24}, kind: Node}", ObjectKind::Node, "Node n1"),
    ] {
        let object: Object = yaml(document);
        assert_eq!(object.reference().to_string(), reference);
        assert_eq!(yaml::<TypeMeta>(document).object_kind(), Ok(kind));
    }
}

#[test]
fn other_kinds_are_named_and_recognised() {
    for (document, kind) in [
        ("{apiVersion: v1, kind: Pod}", "Pod"),
        ("{apiVersion: apps/v1, kind: Deployment}", "apps/v1 Deployment"),
        ("{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice}", "discovery.k8s.io/v1beta1 EndpointSlice"),
        ("{metadata: {name: web}}", ""),
    ] {
        assert_eq!(yaml::<TypeMeta>(document).object_kind(), Err(NotRead { kind: kind.to_owned() }));
        let error = serde_saphyr::from_str::<Object>(document).expect_err(document).to_string();
        assert!(error.contains(&format!("kind {kind:?} is not read by weft")), "{error}");
    }
}

/// JSON that is likely to get past the first checks: known keys, plausible and wild values.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    const KEYS: &[&str] = &[
        "kind",
        "apiVersion",
        "metadata",
        "name",
        "namespace",
        "labels",
        "kubernetes.io/service-name",
        "spec",
        "status",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "externalIPs",
        "ports",
        "port",
        "nodePort",
        "protocol",
        "type",
        "sessionAffinity",
        "sessionAffinityConfig",
        "clientIP",
        "timeoutSeconds",
        "loadBalancerSourceRanges",
        "loadBalancer",
        "ingress",
        "ip",
        "addressType",
        "endpoints",
        "addresses",
        "conditions",
        "hints",
        "forZones",
    ];
    const VALUES: &[&str] = &[
        "Service",
        "EndpointSlice",
        "Node",
        "v1",
        "discovery.k8s.io/v1",
        "web",
        "IPv4",
        "IPv6",
        "10.0.0.1",
        "fd00::1",
        "010.0.0.0/08",
        "::/0",
        "TCP",
        "UDP",
        "ClientIP",
        "None",
        "",
        "0",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (0..70_000_i64).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        prop::sample::select(VALUES).prop_map(Into::into),
    ];
    let key = prop_oneof![9 => prop::sample::select(KEYS).prop_map(str::to_owned), 1 => any::<String>()];
    let tree = leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(key.clone(), inner, 0..8)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    });
    (prop::sample::select(&["Service", "EndpointSlice", "Node"][..]), tree).prop_map(|(kind, mut document)| {
        if let Some(fields) = document.as_object_mut() {
            fields.insert("kind".to_owned(), kind.into());
            fields.remove("apiVersion");
        }
        document
    })
}

proptest! {
    #[test]
    fn no_document_makes_the_parser_or_the_checks_panic(document in documents()) {
        let bytes = serde_json::to_vec(&document).expect("a value is JSON");
        if let Ok(object) = serde_json::from_slice::<Object>(&bytes) {
            let _ = check(&object);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = serde_json::from_slice::<Object>(&bytes);
    }
}
