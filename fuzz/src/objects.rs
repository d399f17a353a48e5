//! Kubernetes objects out of random bytes.
//!
//! Few names and addresses, so that objects meet; among the values some that have to be refused.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use weft_proxy::model::{
    ObjectKind, ObjectRef,
    api::{
        ClientIpConfig, Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintTarget,
        LoadBalancerIngress, Metadata, Node, NodeAddress, NodeSpec, NodeStatus, Object, Service, ServicePort,
        ServiceSpec, SessionAffinityConfig,
    },
};

/// The node that plans.
pub const NODE: &str = "n1";

const SERVICES: [&str; 4] = ["web", "dns", "api", "Bad_Name"];
const SLICES: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
const TYPES: [&str; 6] = ["", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Nonsense"];
const CLUSTER_IPS: [&[&str]; 7] = [
    &["10.0.0.1"],
    &["10.0.0.1", "fd00::1"],
    &["fd00::1"],
    &["None"],
    &[],
    &["010.000.000.1", "FD00:0::1"],
    &["nonsense"],
];
const VIPS: [&str; 8] =
    ["192.0.2.1", "2001:db8::1", "10.0.0.1", "192.0.2.007", "0.0.0.0", "224.0.0.1", "::ffff:192.0.2.1", "nonsense"];
const POLICIES: [&str; 4] = ["", "Cluster", "Local", "Nonsense"];
const PORT_NAMES: [&str; 3] = ["", "http", "dns"];
const PROTOCOLS: [&str; 5] = ["", "TCP", "UDP", "SCTP", "ICMP"];
const PORTS: [i64; 8] = [80, 53, 443, 0, -1, 65_535, 65_536, i64::MAX];
const RANGES: [&str; 7] =
    ["192.0.2.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::1/32", "198.51.100.000/025", "10.0.0.0/33"];
const NODES: [&str; 3] = ["", NODE, "n2"];
const ZONES: [&str; 3] = ["", "a", "b"];
const ENDPOINTS: [&str; 10] =
    ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd01::1", "fd01::2", "10.1.0.003", "127.0.0.1", "fe80::1", ""];
const FAMILIES: [&str; 4] = ["IPv4", "IPv6", "FQDN", ""];

/// A number that chooses from a list.
type Choice = u8;

fn choose<T: Copy>(list: &[T], choice: Choice) -> T {
    list[usize::from(choice) % list.len()]
}

fn text(list: &[&str], choice: Choice) -> String {
    choose(list, choice).to_owned()
}

/// Those whose bit is set.
fn some(list: &[&str], bits: u8) -> Vec<String> {
    (0..).zip(list).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, text)| (*text).to_owned()).collect()
}

/// Up to five. A list of the crate's own goes on with each next bit, which in random bytes makes lists of one.
fn few<'a, T: Arbitrary<'a>>(input: &mut Unstructured<'a>) -> arbitrary::Result<Vec<T>> {
    (0..input.int_in_range(0..=5)?).map(|_| input.arbitrary()).collect()
}

/// Something that happens.
#[derive(Arbitrary, Debug)]
pub enum Event {
    /// A Service is new or other than before.
    Service(ServiceSeed),
    /// The same of a slice.
    Slice(SliceSeed),
    /// The same of a Node.
    Node(NodeSeed),
    /// A Service goes.
    DeleteService(Choice),
    /// A slice goes.
    DeleteSlice(Choice),
    /// A Node goes.
    DeleteNode(Choice),
    /// The data planes ask what has changed.
    Plan,
    /// The source lists all over again; nothing has changed.
    List,
}

/// What a Service is made of.
#[derive(Arbitrary, Debug)]
pub struct ServiceSeed {
    name: Choice,
    kind: Choice,
    cluster_ips: Choice,
    external_ips: u8,
    vips: u8,
    proxy_mode: bool,
    #[arbitrary(with = few)]
    ports: Vec<PortSeed>,
    policies: (Choice, Choice),
    affinity: Option<Choice>,
    ranges: u8,
    foreign: bool,
    health_check_port: Choice,
}

#[derive(Arbitrary, Debug)]
struct PortSeed {
    name: Choice,
    protocol: Choice,
    port: Choice,
    node_port: Choice,
}

/// What a slice is made of.
#[derive(Arbitrary, Debug)]
pub struct SliceSeed {
    name: Choice,
    service: Choice,
    family: Choice,
    #[arbitrary(with = few)]
    ports: Vec<(Choice, Choice, Choice)>,
    #[arbitrary(with = few)]
    endpoints: Vec<EndpointSeed>,
}

#[derive(Arbitrary, Debug)]
struct EndpointSeed {
    address: Choice,
    node: Choice,
    conditions: (Option<bool>, Option<bool>, Option<bool>),
    zones: u8,
    nodes: u8,
}

/// What a Node is made of. It always has an address and a network: those of before would stay otherwise, and the last state
/// would not be all that counts.
#[derive(Arbitrary, Debug)]
pub struct NodeSeed {
    name: Choice,
    zone: Choice,
    address: Choice,
}

impl ServiceSeed {
    /// The object.
    pub fn object(self) -> Object {
        const SECONDS: [Option<i64>; 5] = [None, Some(0), Some(1), Some(86_400), Some(86_401)];
        let mut service = Service::default();
        service.metadata.name = text(&SERVICES, self.name);
        if self.foreign {
            service.metadata.labels =
                BTreeMap::from([("service.kubernetes.io/service-proxy-name".to_owned(), "other".to_owned())]);
        }
        let ip_mode = || self.proxy_mode.then(|| "Proxy".to_owned());
        let ingress = some(&VIPS, self.vips).into_iter().map(|ip| LoadBalancerIngress { ip, ip_mode: ip_mode() });
        service.status.load_balancer.ingress = ingress.collect();
        let port = |seed: &PortSeed| ServicePort {
            name: text(&PORT_NAMES, seed.name),
            protocol: text(&PROTOCOLS, seed.protocol),
            port: choose(&PORTS, seed.port),
            node_port: choose(&[0, 30_000, 30_001, 65_536], seed.node_port),
        };
        let affinity = self.affinity.map(|seconds| choose(&SECONDS, seconds));
        service.spec = ServiceSpec {
            service_type: text(&TYPES, self.kind),
            cluster_ips: choose(&CLUSTER_IPS, self.cluster_ips).iter().map(|ip| (*ip).to_owned()).collect(),
            external_ips: some(&VIPS, self.external_ips),
            ports: self.ports.iter().map(port).collect(),
            internal_traffic_policy: text(&POLICIES, self.policies.0),
            external_traffic_policy: text(&POLICIES, self.policies.1),
            session_affinity: if affinity.is_some() { "ClientIP" } else { "None" }.to_owned(),
            session_affinity_config: SessionAffinityConfig {
                client_ip: ClientIpConfig { timeout_seconds: affinity.flatten() },
            },
            load_balancer_source_ranges: some(&RANGES, self.ranges),
            health_check_node_port: choose(&[0, 32_000, 70_000], self.health_check_port),
            ..ServiceSpec::default()
        };
        service.into()
    }
}

impl SliceSeed {
    /// The object.
    pub fn object(self) -> Object {
        let service = text(&["web", "dns", "api", "none"], self.service);
        let labels = BTreeMap::from([("kubernetes.io/service-name".to_owned(), service)]);
        let port = |(name, protocol, port)| EndpointPort {
            name: text(&PORT_NAMES, name),
            protocol: text(&PROTOCOLS, protocol),
            port: choose(&PORTS, port),
        };
        Object::from(EndpointSlice {
            metadata: Metadata { name: text(&SLICES, self.name), labels, ..Metadata::default() },
            address_type: text(&FAMILIES, self.family),
            endpoints: self.endpoints.into_iter().map(EndpointSeed::endpoint).collect(),
            ports: self.ports.into_iter().map(port).collect(),
            changed_at: None,
        })
    }
}

impl EndpointSeed {
    fn endpoint(self) -> Endpoint {
        let targets = |names: Vec<String>| names.into_iter().map(|name| HintTarget { name }).collect();
        let (ready, serving, terminating) = self.conditions;
        let address = text(&ENDPOINTS, self.address);
        Endpoint {
            addresses: if address.is_empty() { Vec::new() } else { vec![address] },
            conditions: EndpointConditions { ready, serving, terminating },
            node_name: text(&NODES, self.node),
            hints: EndpointHints {
                for_zones: targets(some(&ZONES, self.zones)),
                for_nodes: targets(some(&NODES, self.nodes)),
            },
        }
    }
}

impl NodeSeed {
    /// The object.
    pub fn object(self) -> Object {
        let zone = ("topology.kubernetes.io/zone".to_owned(), text(&ZONES, self.zone));
        let name = text(&NODES[1..], self.name);
        let address = text(&["192.0.2.1", "198.51.100.1"], self.address);
        Object::from(Node {
            metadata: Metadata { name, labels: BTreeMap::from([zone]), ..Metadata::default() },
            spec: NodeSpec { pod_cidrs: vec!["10.1.0.0/24".to_owned()], ..NodeSpec::default() },
            status: NodeStatus { addresses: vec![NodeAddress { address_type: "InternalIP".to_owned(), address }] },
        })
    }
}

/// Names an object that may be there.
pub fn reference(kind: ObjectKind, choice: Choice) -> ObjectRef {
    let (namespace, name) = match kind {
        ObjectKind::Service => ("default", text(&SERVICES, choice)),
        ObjectKind::EndpointSlice => ("default", text(&SLICES, choice)),
        ObjectKind::Node => ("", text(&NODES[1..], choice)),
    };
    ObjectRef { kind, namespace: namespace.into(), name: name.as_str().into() }
}
