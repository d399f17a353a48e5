//! Objects at random.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select};

use crate::model::api::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintTarget, LoadBalancerIngress,
    Metadata, Node, NodeAddress, NodeStatus, Object, Service, ServicePort, ServiceSpec,
};

pub(super) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(choices).prop_map(str::to_owned)
}

fn texts(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(choices, 0..=choices.len()).prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

fn labelled(name: &str, label: &str, value: &str) -> Metadata {
    let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
    Metadata { name: name.to_owned(), labels, ..Metadata::default() }
}

/// `web`, `dns` or `api`, of any type, sometimes headless, another proxy's, or malformed.
pub(super) fn services() -> impl Strategy<Value = Object> {
    let ports: &[(&str, &str, i64)] = &[("", "TCP", 80), ("dns", "UDP", 53), ("dns", "", 53)];
    let ports = proptest::sample::subsequence(ports, 0..=3);
    let policy = || text(&["", "Cluster", "Local"]);
    (
        (text(&["web", "dns", "api"]), text(&["", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
        select(&[&["10.0.0.1"] as &[&str], &["10.0.0.1", "fd00::1"], &["fd00::1"], &["None"], &["nonsense"]][..]),
        (ports, prop::bool::ANY, texts(&["192.0.2.1", "2001:db8::1", "nonsense"]), prop::bool::ANY),
        (
            policy(),
            policy(),
            text(&["", "ClientIP"]),
            prop::bool::weighted(0.1),
            texts(&["192.0.2.0/24", "10.0.0.0/8"]),
        ),
    )
        .prop_map(
            |(
                (name, service_type),
                ips,
                (ports, node_port, external_ips, vip),
                (internal, external, affinity, foreign, ranges),
            )| {
                let mut service = Service::default();
                let label = if foreign { "service.kubernetes.io/service-proxy-name" } else { "app" };
                service.metadata = labelled(&name, label, "x");
                let port = |(name, protocol, port): (&str, &str, i64)| ServicePort {
                    name: name.to_owned(),
                    protocol: protocol.to_owned(),
                    port,
                    node_port: if node_port { 30_000 + port } else { 0 },
                };
                service.spec = ServiceSpec {
                    service_type,
                    cluster_ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
                    external_ips,
                    ports: ports.into_iter().map(port).collect(),
                    internal_traffic_policy: internal,
                    external_traffic_policy: external,
                    session_affinity: affinity,
                    load_balancer_source_ranges: ranges,
                    health_check_node_port: 32_000,
                    ..ServiceSpec::default()
                };
                if vip {
                    let ingress = LoadBalancerIngress { ip: "203.0.113.1".to_owned(), ip_mode: None };
                    service.status.load_balancer.ingress.push(ingress);
                }
                service.into()
            },
        )
}

fn endpoints(v6: bool) -> impl Strategy<Value = Endpoint> {
    let targets = |names: Vec<String>| names.into_iter().map(|name| HintTarget { name }).collect::<Vec<_>>();
    let condition = || prop::option::of(prop::bool::ANY);
    (
        1..6_u8,
        text(&["", "n1", "n2"]),
        (condition(), condition(), condition()),
        (texts(&["a", "b"]), texts(&["n1", "n2"])),
    )
        .prop_map(move |(host, node_name, (ready, serving, terminating), (zones, nodes))| Endpoint {
            addresses: vec![if v6 { format!("fd01::{host}") } else { format!("10.1.0.{host}") }],
            conditions: EndpointConditions { ready, serving, terminating },
            node_name,
            hints: EndpointHints { for_zones: targets(zones), for_nodes: targets(nodes) },
        })
}

/// One of five slices of one of four Services (one of which never exists), sometimes malformed.
pub(super) fn slices() -> impl Strategy<Value = Object> {
    let ports: &[(&str, &str, i64)] =
        &[("", "TCP", 8080), ("dns", "UDP", 53), ("dns", "TCP", 53), ("", "", 9090), ("", "", 0)];
    let ports = proptest::sample::subsequence(ports, 0..=5);
    let bodies = prop::bool::ANY.prop_flat_map(|v6| (Just(v6), vec(endpoints(v6), 0..6)));
    (
        text(&["s1", "s2", "s3", "s4", "s5"]),
        text(&["web", "dns", "api", "gone"]),
        ports,
        bodies,
        prop::bool::weighted(0.05),
    )
        .prop_map(|(name, service, ports, (v6, endpoints), malformed)| {
            let port = |(name, protocol, port): (&str, &str, i64)| EndpointPort {
                name: name.to_owned(),
                protocol: protocol.to_owned(),
                port: if malformed { 70_000 } else { port },
            };
            Object::from(EndpointSlice {
                metadata: labelled(&name, SERVICE_LABEL, &service),
                address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
                endpoints,
                ports: ports.into_iter().map(port).collect(),
                changed_at: None,
            })
        })
}

pub(super) fn nodes() -> impl Strategy<Value = Object> {
    (text(&["n1", "n2"]), text(&["", "a", "b"]), text(&["192.0.2.1", "198.51.100.1"]))
        .prop_map(|(name, zone, address)| node(&name, &zone, &address))
}

pub(super) fn node(name: &str, zone: &str, address: &str) -> Object {
    let address = NodeAddress { address_type: "InternalIP".to_owned(), address: address.to_owned() };
    Object::from(Node {
        metadata: labelled(name, "topology.kubernetes.io/zone", zone),
        status: NodeStatus { addresses: vec![address] },
        ..Node::default()
    })
}
