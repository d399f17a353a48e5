//! Invariants over random objects and random events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{Change, Outcome, Planner, PlannerConfig, ServicePortPlan};
use crate::{
    model::{
        IpFamily, ObjectKind, ObjectRef,
        api::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintTarget, LoadBalancerIngress,
            Metadata, Node, NodeAddress, NodeStatus, Object, Service, ServicePort, ServiceSpec,
        },
    },
    plan::PlanKey,
};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

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
fn services() -> impl Strategy<Value = Object> {
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
fn slices() -> impl Strategy<Value = Object> {
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

fn nodes() -> impl Strategy<Value = Object> {
    (text(&["n1", "n2"]), text(&["", "a", "b"]), text(&["192.0.2.1", "198.51.100.1"]))
        .prop_map(|(name, zone, address)| node(&name, &zone, &address))
}

fn node(name: &str, zone: &str, address: &str) -> Object {
    let address = NodeAddress { address_type: "InternalIP".to_owned(), address: address.to_owned() };
    Object::from(Node {
        metadata: labelled(name, "topology.kubernetes.io/zone", zone),
        status: NodeStatus { addresses: vec![address] },
        ..Node::default()
    })
}

/// What the planner knows beside the desired state, as text.
fn beside(planner: &Planner) -> Vec<String> {
    let mut shown: Vec<_> = planner.health_checks().values().map(|check| format!("{check:?}")).collect();
    for family in [IpFamily::V4, IpFamily::V6] {
        shown.extend(planner.udp_flows(family).map(|flows| format!("{flows:?}")));
        shown.push(format!("{:?}", planner.no_local_endpoints(family)));
    }
    shown
}

fn events() -> impl Strategy<Value = Vec<Change>> {
    let objects = || prop_oneof![3 => services(), 5 => slices(), 1 => nodes()];
    let event = prop_oneof![
        4 => objects().prop_map(Change::Apply),
        1 => objects().prop_map(|object| Change::Delete(object.reference())),
    ];
    vec(event, 0..40)
}

fn planner() -> Planner {
    Planner::new(PlannerConfig::new("n1"))
}

/// Plans these objects from nothing.
fn from_scratch<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Planner {
    let mut planner = planner();
    for object in objects {
        planner.apply(Change::Apply(object.clone())).expect("object was accepted before");
    }
    planner.take_changes();
    planner
}

/// What is in force after an event: the last good state of each object; this Node for good once seen.
fn remember(objects: &mut BTreeMap<ObjectRef, Object>, event: Change, accepted: bool) {
    match event {
        Change::Apply(object) if accepted => {
            objects.insert(object.reference(), object);
        }
        Change::Delete(reference) if reference.kind != ObjectKind::Node => {
            objects.remove(&reference);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn plan_after_deltas_equals_plan_from_scratch(events in events(), pauses in vec(prop::bool::ANY, 40)) {
        let mut planner = planner();
        let mut objects = BTreeMap::new();
        let mut mirror: BTreeMap<PlanKey, _> = BTreeMap::new();
        for (event, pause) in events.into_iter().zip(pauses).chain([(Change::Delete(gone()), true)]) {
            let accepted = planner.apply(event.clone()).is_ok();
            remember(&mut objects, event, accepted);
            if !pause {
                continue;
            }
            // Every key that is named differs, and the named ones are all there are.
            let changes = planner.take_changes();
            prop_assert!(changes.is_sorted_by(|a, b| a < b));
            for key in changes {
                let now = planner.ports().get(&key).cloned();
                let before = match now.clone() {
                    Some(plan) => mirror.insert(key.clone(), plan),
                    None => mirror.remove(&key),
                };
                prop_assert_ne!(before, now, "{} is named without a change", key);
            }
            prop_assert_eq!(&mirror, planner.ports());
            prop_assert_eq!(planner.take_changes(), []);
        }
        let fresh = from_scratch(objects.values());
        prop_assert_eq!(planner.desired(), fresh.desired());
        prop_assert_eq!(beside(&planner), beside(&fresh));
    }

    #[test]
    fn order_of_events_does_not_matter(
        (ordered, shuffled) in events().prop_map(last_good_objects).prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()))
    ) {
        let (ordered, shuffled) = (from_scratch(&ordered), from_scratch(&shuffled));
        prop_assert_eq!(ordered.desired(), shuffled.desired());
        prop_assert_eq!(beside(&ordered), beside(&shuffled));
    }

    #[test]
    fn full_lists_equal_single_events(before in events(), after in events()) {
        let mut planner = planner();
        for event in before {
            let _ = planner.apply(event);
        }
        let mut after = last_good_objects(after);
        // This Node stays as it was last seen, so the list has to say where it is.
        after.push(node("n1", "b", "192.0.2.1"));
        for kind in [ObjectKind::EndpointSlice, ObjectKind::Node, ObjectKind::Service] {
            let list = after.iter().filter(|object| object.reference().kind == kind).cloned();
            prop_assert!(planner.replace(kind, list).rejected.is_empty());
        }
        planner.take_changes();
        let fresh = from_scratch(&after);
        prop_assert_eq!(planner.desired(), fresh.desired());
        prop_assert_eq!(planner.counts(), fresh.counts());
        prop_assert_eq!(beside(&planner), beside(&fresh));
    }

    #[test]
    fn only_allowed_endpoints_are_chosen(events in events()) {
        let objects = last_good_objects(events);
        for plan in from_scratch(&objects).ports().values() {
            check_plan(plan, &objects)?;
        }
    }

    #[test]
    fn no_frontend_is_in_two_plans(events in events()) {
        let planner = from_scratch(&last_good_objects(events));
        let mut taken = BTreeSet::new();
        for plan in planner.ports().values() {
            for frontend in &plan.frontends {
                let place = frontend.address().map_or_else(|| format!("{frontend:?} {}", plan.key.family), |at| at.to_string());
                prop_assert!(taken.insert((place, plan.key.port.protocol)), "{:?} of {} is taken", frontend, plan.key);
            }
        }
    }
}

/// An object that never exists.
fn gone() -> ObjectRef {
    ObjectRef { kind: ObjectKind::Service, namespace: "none".into(), name: "none".into() }
}

fn last_good_objects(events: Vec<Change>) -> Vec<Object> {
    let mut planner = planner();
    let mut objects = BTreeMap::new();
    for event in events {
        let accepted = planner.apply(event.clone()).is_ok();
        remember(&mut objects, event, accepted);
    }
    objects.into_values().collect()
}

/// Compares a plan with the raw objects, by the plainest reading of the rules.
fn check_plan(plan: &ServicePortPlan, objects: &[Object]) -> Result<(), TestCaseError> {
    let service = objects.iter().find_map(|object| match object {
        Object::Service(service) if *service.metadata.name == *plan.key.port.service.name => Some(service),
        _ => None,
    });
    let service = service.expect("a plan has its Service");
    let raw = raw_endpoints(plan, objects);
    for outcome in [&plan.internal, &plan.external, &plan.external_from_node] {
        if let Outcome::Endpoints(endpoints) = outcome {
            prop_assert!(!endpoints.is_empty());
            prop_assert!(endpoints.is_sorted_by(|a, b| (a.address, a.port) < (b.address, b.port)));
        }
        for chosen in outcome.endpoints() {
            let allowed = raw.iter().any(|(entry, port)| {
                let conditions = entry.conditions;
                let ready = conditions.ready != Some(false);
                let last_resort = conditions.serving != Some(false) && conditions.terminating == Some(true);
                entry.addresses[0] == chosen.address.to_string()
                    && *port == i64::from(chosen.port)
                    && (entry.node_name == "n1") == chosen.local
                    && (ready || last_resort)
            });
            prop_assert!(allowed, "{:?} is not an endpoint of {}", chosen, plan.key);
        }
    }
    let all_local = |outcome: &Outcome| outcome.endpoints().iter().all(|endpoint| endpoint.local);
    if service.spec.internal_traffic_policy == "Local" {
        prop_assert!(all_local(&plan.internal));
    }
    if plan.frontends.iter().any(super::Frontend::is_external) {
        prop_assert!(plan.masquerade_external || all_local(&plan.external));
        prop_assert_ne!(&plan.external_from_node, &Outcome::Drop, "only policy Local drops, and the node bypasses it");
    }
    Ok(())
}

/// Entries and ports of all slices that belong to the plan's Service port.
fn raw_endpoints<'a>(plan: &ServicePortPlan, objects: &'a [Object]) -> Vec<(&'a Endpoint, i64)> {
    let family = if plan.key.family == IpFamily::V4 { "IPv4" } else { "IPv6" };
    let mut raw = Vec::new();
    for object in objects {
        let Object::EndpointSlice(slice) = object else { continue };
        if slice.address_type != family || *slice.metadata.labels[SERVICE_LABEL] != *plan.key.port.service.name {
            continue;
        }
        for port in &slice.ports {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            if *port.name == *plan.key.port.port && protocol == plan.key.port.protocol.to_string() {
                raw.extend(slice.endpoints.iter().map(|entry| (entry, port.port)));
            }
        }
    }
    raw
}
