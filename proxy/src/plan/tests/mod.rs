//! The rules of kube-proxy.md as tables: objects in, what happens to a connection out. `rule_3_4` tests rule 3.4.
//!
//! This node is always `n1`. Outcomes are compared as text; `*` marks an endpoint of this node.

mod addresses;
mod endpoints;
mod events;
mod health_checks;
mod node_ips;
mod objects;
mod policies;
mod properties;
mod topology;
mod udp;

use std::sync::Arc;

use super::{Change, Frontend, Outcome, Planner, PlannerConfig, ServicePortPlan};
use crate::model::api::{self, Object};

/// The plainest Service there is.
const PLAIN: &str = "{clusterIP: 10.0.0.1, ports: [{port: 80}]}";

/// A planner for `n1` that has seen some objects.
struct World(Planner);

impl World {
    fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut world = Self(Planner::new(PlannerConfig::new("n1")));
        for object in objects {
            world.apply(object);
        }
        world
    }

    /// Applies a good object and returns what it changed.
    fn apply(&mut self, object: Object) -> Vec<String> {
        self.0.apply(Change::Apply(object)).expect("object is accepted");
        self.changes()
    }

    fn delete(&mut self, object: &Object) -> Vec<String> {
        self.0.apply(Change::Delete(object.reference())).expect("delete is accepted");
        self.changes()
    }

    fn changes(&mut self) -> Vec<String> {
        self.0.take_changes().iter().map(short_key).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.0.ports().keys().map(short_key).collect()
    }

    /// The plan with the key `web:http/TCP IPv4`, for a Service `web` in the namespace `default`.
    fn plan(&self, key: &str) -> Arc<ServicePortPlan> {
        let found = self.0.ports().iter().find(|(candidate, _)| short_key(candidate) == key);
        found.unwrap_or_else(|| panic!("{key} is not among {:?}", self.keys())).1.clone()
    }

    /// Outcomes of `web/TCP IPv4`.
    fn web(&self) -> Shown {
        Shown::of(&self.plan("web/TCP IPv4"))
    }
}

fn short_key(key: &super::PlanKey) -> String {
    key.to_string().trim_start_matches("default/").to_owned()
}

/// A plan's outcomes as text.
#[derive(Debug, PartialEq)]
struct Shown {
    internal: String,
    external: String,
    from_node: String,
}

impl Shown {
    fn of(plan: &ServicePortPlan) -> Self {
        Self {
            internal: shown(&plan.internal),
            external: shown(&plan.external),
            from_node: shown(&plan.external_from_node),
        }
    }
}

fn shown(outcome: &Outcome) -> String {
    let endpoint = |e: &super::Endpoint| format!("{}:{}{}", e.address, e.port, if e.local { "*" } else { "" });
    match outcome {
        Outcome::Endpoints(endpoints) => endpoints.iter().map(endpoint).collect::<Vec<_>>().join(" "),
        Outcome::Reject => "reject".to_owned(),
        Outcome::Drop => "drop".to_owned(),
    }
}

fn frontends(plan: &ServicePortPlan) -> Vec<String> {
    let text = |frontend: &Frontend| match frontend {
        Frontend::ClusterIp(at) => format!("ClusterIP {at}"),
        Frontend::ExternalIp(at) => format!("ExternalIP {at}"),
        Frontend::LoadBalancer(at) => format!("LoadBalancer {at}"),
        Frontend::NodePort(port) => format!("NodePort {port}"),
    };
    plan.frontends.iter().map(text).collect()
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The Service `name` with this spec.
fn service(name: &str, spec: &str) -> Object {
    yaml(&format!("{{kind: Service, apiVersion: v1, metadata: {{name: {name}}}, spec: {spec}}}"))
}

/// The same, with load balancer entries.
fn load_balancer(name: &str, spec: &str, ingress: &str) -> Object {
    yaml(&format!(
        "{{kind: Service, metadata: {{name: {name}}}, spec: {spec}, status: {{loadBalancer: {{ingress: {ingress}}}}}}}"
    ))
}

/// The slice `name` of the Service `web`, with one unnamed TCP port 8080.
///
/// An endpoint is written as `10.1.0.1 @n1 not-ready not-serving terminating zone=a node=n2`.
fn slice(name: &str, endpoints: &[&str]) -> Object {
    slice_of("web", name, "[{port: 8080}]", endpoints)
}

fn slice_of(service: &str, name: &str, ports: &str, endpoints: &[&str]) -> Object {
    let family = if endpoints.first().is_some_and(|text| text.contains("::")) { "IPv6" } else { "IPv4" };
    let mut slice = api::EndpointSlice {
        address_type: family.to_owned(),
        endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
        ports: yaml(ports),
        ..Default::default()
    };
    slice.metadata.name = name.to_owned();
    slice.metadata.labels.insert("kubernetes.io/service-name".to_owned(), service.to_owned());
    slice.into()
}

fn endpoint(text: &str) -> api::Endpoint {
    let mut words = text.split(' ');
    let mut endpoint =
        api::Endpoint { addresses: words.next().map(str::to_owned).into_iter().collect(), ..Default::default() };
    for word in words {
        let target = |name: &str| api::HintTarget { name: name.to_owned() };
        match word.split_once(['@', '=']) {
            Some(("", node)) => endpoint.node_name = node.to_owned(),
            Some(("zone", zone)) => endpoint.hints.for_zones.push(target(zone)),
            Some(("node", node)) => endpoint.hints.for_nodes.push(target(node)),
            _ => match word {
                "not-ready" => endpoint.conditions.ready = Some(false),
                "ready" => endpoint.conditions.ready = Some(true),
                "not-serving" => endpoint.conditions.serving = Some(false),
                "terminating" => endpoint.conditions.terminating = Some(true),
                other => panic!("unknown word {other:?} in {text:?}"),
            },
        }
    }
    endpoint
}

/// The Node `name` in a zone.
fn node(name: &str, zone: &str) -> Object {
    let mut node = api::Node::default();
    node.metadata.name = name.to_owned();
    node.metadata.labels.insert("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
    node.into()
}
