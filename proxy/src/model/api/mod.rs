//! The API's shapes of Service, EndpointSlice and Node: only the fields the planner reads, so that a full list stays small.
//!
//! Lenient on purpose: unknown fields are ignored, `null` and absent mean the same, enumerations and addresses are plain text.
//! Nothing is checked here; the sibling modules do that and can then name the object and the field.
//! A source that has its own metadata type (the kube client) embeds the spec and status structs and fills in [`Metadata`].

mod endpoint_slice;
mod node;
mod service;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};

pub use endpoint_slice::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, HintTarget};
pub use node::{Node, NodeAddress, NodeSpec, NodeStatus, Taint};
pub use service::{
    ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
    SessionAffinityConfig,
};

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

/// The API server sends `null` for an empty list now and then, and `kubectl` does for whatever a template left out.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
