//! The API's shapes of Service, EndpointSlice and Node: only the fields the planner reads, so that a full list stays small.
//!
//! Lenient on purpose: unknown fields are ignored, `null` and absent mean the same, enumerations and addresses are plain text.
//! Nothing is checked here; the sibling modules do that and can then name the object and the field.
//! A source that has its own metadata type (the kube client) embeds the spec and status structs and fills in [`Metadata`].

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{ObjectKind, ObjectRef};

/// Namespace of a manifest that names none (as `kubectl apply` does).
const DEFAULT_NAMESPACE: &str = "default";

/// One object, as a source delivers it.
///
/// `Deserialize` finds out by itself what the document is, but buffers it and so loses line numbers. A source of text reads
/// [`TypeMeta`] first, asks it for [`TypeMeta::object_kind`], and then deserializes the struct of that kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1` Service.
    Service(Box<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// `v1` Node.
    Node(Node),
    /// One of these whose fields are not of the API's types: it costs nobody but itself.
    Malformed(Box<Malformed>),
}

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which one.
    pub object: ObjectRef,
    /// The top-level field, such as `spec`.
    pub field: &'static str,
    /// What is wrong inside it, in the parser's words.
    pub problem: String,
}

impl Object {
    /// Kind, namespace and name; an absent namespace is `default`, a Node has none.
    pub fn reference(&self) -> ObjectRef {
        let (kind, metadata) = match self {
            Self::Service(service) => (ObjectKind::Service, &service.metadata),
            Self::EndpointSlice(slice) => (ObjectKind::EndpointSlice, &slice.metadata),
            Self::Node(node) => (ObjectKind::Node, &node.metadata),
            Self::Malformed(malformed) => return malformed.object.clone(),
        };
        let namespace = match (kind, metadata.namespace.as_str()) {
            (ObjectKind::Node, _) => "",
            (_, "") => DEFAULT_NAMESPACE,
            (_, namespace) => namespace,
        };
        ObjectRef { kind, namespace: namespace.into(), name: metadata.name.as_str().into() }
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(Box::new(service))
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice)
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `kind` may come after the fields it decides about, so the document has to be held in between.
        let document = serde_json::Value::deserialize(deserializer)?;
        let kind =
            TypeMeta::deserialize(&document).map_err(D::Error::custom)?.object_kind().map_err(D::Error::custom)?;
        match kind {
            ObjectKind::Service => Service::deserialize(document).map(Self::from),
            ObjectKind::EndpointSlice => EndpointSlice::deserialize(document).map(Self::from),
            ObjectKind::Node => Node::deserialize(document).map(Self::from),
        }
        .map_err(D::Error::custom)
    }
}

/// What kind of document this is; all else is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TypeMeta {
    /// `apiVersion`, group and version; may be absent.
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    /// `kind`.
    #[serde(deserialize_with = "null_as_default")]
    pub kind: String,
}

impl TypeMeta {
    /// The kind of object to deserialize.
    ///
    /// # Errors
    /// The document is of another kind, or of a group or version Weft does not know: usual in a directory of manifests.
    pub fn object_kind(&self) -> Result<ObjectKind, NotRead> {
        match (self.api_version.as_str(), self.kind.as_str()) {
            ("v1" | "", "Service") => Ok(ObjectKind::Service),
            ("discovery.k8s.io/v1" | "", "EndpointSlice") => Ok(ObjectKind::EndpointSlice),
            ("v1" | "", "Node") => Ok(ObjectKind::Node),
            ("" | "v1", kind) => Err(NotRead { kind: kind.to_owned() }),
            (api_version, kind) => Err(NotRead { kind: format!("{api_version} {kind}") }),
        }
    }
}

/// A document of a kind the planner has no use for. Not a fault of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kind {kind:?} is not read by weft")]
pub struct NotRead {
    /// `kind`, preceded by `apiVersion` unless that is `v1`.
    pub kind: String,
}

/// `metadata`, of every kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// `name`.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `namespace`; empty means `default`.
    #[serde(deserialize_with = "null_as_default")]
    pub namespace: String,
    /// `labels`.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// `deletionTimestamp`: set while the object is being deleted. Decides a Node's health (11.1), not what is planned.
    pub deletion_timestamp: Option<String>,
}

/// `v1` Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `metadata`.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: ServiceSpec,
    /// `status`.
    #[serde(deserialize_with = "null_as_default")]
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `type`; empty means `ClusterIP`.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub service_type: String,
    /// `clusterIP`: an address, `None` or empty.
    #[serde(rename = "clusterIP", deserialize_with = "null_as_default")]
    pub cluster_ip: String,
    /// `clusterIPs`: at most one of each family.
    #[serde(rename = "clusterIPs", deserialize_with = "null_as_default")]
    pub cluster_ips: Vec<String>,
    /// `ipFamilies`, in the order of `clusterIPs`.
    #[serde(deserialize_with = "null_as_default")]
    pub ip_families: Vec<String>,
    /// `externalIPs`.
    #[serde(rename = "externalIPs", deserialize_with = "null_as_default")]
    pub external_ips: Vec<String>,
    /// `ports`.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy`; empty means `Cluster`.
    #[serde(deserialize_with = "null_as_default")]
    pub internal_traffic_policy: String,
    /// `externalTrafficPolicy`; empty means `Cluster`.
    #[serde(deserialize_with = "null_as_default")]
    pub external_traffic_policy: String,
    /// `sessionAffinity`; empty means `None`.
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity: String,
    /// `sessionAffinityConfig`.
    #[serde(deserialize_with = "null_as_default")]
    pub session_affinity_config: SessionAffinityConfig,
    /// `loadBalancerSourceRanges`.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// `healthCheckNodePort`; 0 means none (11.3).
    #[serde(deserialize_with = "null_as_default")]
    pub health_check_node_port: i64,
}

/// `spec.ports[]` of a Service. `targetPort` is the EndpointSlice controller's business (1.11).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// `name`; empty for the only port.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `protocol`; empty means `TCP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// `port`.
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
    /// `nodePort`; 0 means none.
    #[serde(deserialize_with = "null_as_default")]
    pub node_port: i64,
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// `clientIP`.
    #[serde(rename = "clientIP", deserialize_with = "null_as_default")]
    pub client_ip: ClientIpConfig,
}

/// `spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// `timeoutSeconds`; absent means 10,800.
    pub timeout_seconds: Option<i64>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// `loadBalancer`.
    #[serde(deserialize_with = "null_as_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// `ingress`.
    #[serde(deserialize_with = "null_as_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// `status.loadBalancer.ingress[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// `ip`; empty for an entry with a host name.
    #[serde(deserialize_with = "null_as_default")]
    pub ip: String,
    /// `ipMode`; absent means `VIP`.
    pub ip_mode: Option<String>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `metadata`.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    /// `addressType`: `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "null_as_default")]
    pub address_type: String,
    /// `endpoints`.
    #[serde(deserialize_with = "null_as_default")]
    pub endpoints: Vec<Endpoint>,
    /// `ports`: every endpoint has each of them.
    #[serde(deserialize_with = "null_as_default")]
    pub ports: Vec<EndpointPort>,
    /// When the change happened that it tells of (section 17). In the API an annotation, which the kube client reads.
    #[serde(skip)]
    pub changed_at: Option<SystemTime>,
}

/// `endpoints[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// `addresses`, of which only the first is used (4.8).
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<String>,
    /// `conditions`.
    #[serde(deserialize_with = "null_as_default")]
    pub conditions: EndpointConditions,
    /// `nodeName`.
    #[serde(deserialize_with = "null_as_default")]
    pub node_name: String,
    /// `hints`.
    #[serde(deserialize_with = "null_as_default")]
    pub hints: EndpointHints,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// `ready`; absent means true.
    pub ready: Option<bool>,
    /// `serving`; absent means true.
    pub serving: Option<bool>,
    /// `terminating`; absent means false.
    pub terminating: Option<bool>,
}

/// `endpoints[].hints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    /// `forZones`.
    #[serde(deserialize_with = "null_as_default")]
    pub for_zones: Vec<HintTarget>,
    /// `forNodes`.
    #[serde(deserialize_with = "null_as_default")]
    pub for_nodes: Vec<HintTarget>,
}

/// `forZones[]` and `forNodes[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HintTarget {
    /// `name` of the zone or node.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
}

/// `ports[]` of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// `name`; absent means empty, as the API server would store it.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// `protocol`; empty means `TCP`.
    #[serde(deserialize_with = "null_as_default")]
    pub protocol: String,
    /// `port`; absent and 0 mean that this entry is not used (1.13).
    #[serde(deserialize_with = "null_as_default")]
    pub port: i64,
}

/// `v1` Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `metadata`.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "null_as_default")]
    pub spec: NodeSpec,
    /// `status`.
    #[serde(deserialize_with = "null_as_default")]
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// `podCIDRs`: what detectLocalMode NodeCIDR goes by (8.8).
    #[serde(rename = "podCIDRs", deserialize_with = "null_as_default")]
    pub pod_cidrs: Vec<String>,
    /// `taints`. The cluster autoscaler's decides the node's health (11.1), not what is planned.
    #[serde(deserialize_with = "null_as_default")]
    pub taints: Vec<Taint>,
}

/// `spec.taints[]` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    /// `key`.
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// `addresses`: for `nodePortAddresses: primary` (6.3) and the exception of source ranges (9.7).
    #[serde(deserialize_with = "null_as_default")]
    pub addresses: Vec<NodeAddress>,
}

/// `status.addresses[]` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `type`: `InternalIP`, `ExternalIP`, `Hostname`, ...
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub address_type: String,
    /// `address`.
    #[serde(deserialize_with = "null_as_default")]
    pub address: String,
}

/// The API server sends `null` for an empty list now and then, and `kubectl` does for whatever a template left out.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
