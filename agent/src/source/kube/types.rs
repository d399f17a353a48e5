//! The three watched kinds as the `kube` crate wants them: our lean spec and status under its metadata.

use std::{borrow::Cow, time::SystemTime};

use jiff::Timestamp;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use weft_proxy::model::{
    ObjectKind, ObjectRef,
    api::{self, Object},
};

/// Implements [`kube::Resource`] for a type with a `metadata` field.
macro_rules! resource {
    ($name:ident, $kind:literal, $group:literal, $plural:literal, $scope:ty) => {
        impl Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind(_: &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group(_: &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version(_: &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural(_: &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// `v1` Service.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedService {
    #[serde(deserialize_with = "weft_kube_watch::lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Lenient<api::ServiceSpec>,
    #[serde(default)]
    status: Lenient<api::ServiceStatus>,
}

/// `discovery.k8s.io/v1` EndpointSlice, whose fields are not below a `spec`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedEndpointSlice {
    #[serde(deserialize_with = "weft_kube_watch::lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default, rename = "addressType")]
    address_type: Lenient<String>,
    #[serde(default)]
    endpoints: Lenient<Option<Vec<api::Endpoint>>>,
    #[serde(default)]
    ports: Lenient<Option<Vec<api::EndpointPort>>>,
}

/// `v1` Node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedNode {
    #[serde(deserialize_with = "weft_kube_watch::lean_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Lenient<api::NodeSpec>,
    #[serde(default)]
    status: Lenient<api::NodeStatus>,
}

/// A part of an object, or why it cannot be read: one object of a strange shape must not make a whole list unreadable.
#[derive(Clone, Debug)]
struct Lenient<T>(Result<T, String>);

impl<T: Default> Default for Lenient<T> {
    fn default() -> Self {
        Self(Ok(T::default()))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As a piece of the text first, so that the parser stands behind it whatever the type makes of it. It is borrowed: this
        // works for what is parsed from a string, and in a watch event only where the type comes before the object, as
        // Kubernetes writes it; else serde holds the object back, in a shape of its own.
        let text = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).map_err(|error| error.to_string())))
    }
}

impl<T> Lenient<T> {
    /// The part, which is the field `field`.
    fn read(self, field: &'static str) -> Result<T, (&'static str, String)> {
        self.0.map_err(|problem| (field, problem))
    }
}

resource!(WatchedService, "Service", "", "services", NamespaceResourceScope);
resource!(WatchedEndpointSlice, "EndpointSlice", "discovery.k8s.io", "endpointslices", NamespaceResourceScope);
resource!(WatchedNode, "Node", "", "nodes", ClusterResourceScope);

fn metadata(metadata: ObjectMeta) -> api::Metadata {
    api::Metadata {
        name: metadata.name.unwrap_or_default(),
        namespace: metadata.namespace.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        deletion_timestamp: metadata.deletion_timestamp.map(|time| time.0.to_string()),
    }
}

/// What the controller of EndpointSlices says of when the change happened that a slice tells of.
const CHANGED_AT: &str = "endpoints.kubernetes.io/last-change-trigger-time";

fn changed_at(metadata: &ObjectMeta) -> Option<SystemTime> {
    let text = metadata.annotations.as_ref()?.get(CHANGED_AT)?;
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

/// The object, or which one it would have been and what is wrong with it.
fn whole(kind: ObjectKind, metadata: ObjectMeta, object: impl FnOnce(api::Metadata) -> Read) -> Object {
    let metadata = self::metadata(metadata);
    let reference =
        ObjectRef { kind, namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
    object(metadata).unwrap_or_else(|(field, problem)| {
        Object::Malformed(Box::new(api::Malformed { object: reference, field, problem }))
    })
}

/// An object, or the field that cannot be read and why.
type Read = Result<Object, (&'static str, String)>;

impl From<WatchedService> for Object {
    fn from(watched: WatchedService) -> Self {
        whole(ObjectKind::Service, watched.metadata, |metadata| {
            let (spec, status) = (watched.spec.read("spec")?, watched.status.read("status")?);
            Ok(api::Service { metadata, spec, status }.into())
        })
    }
}

impl From<WatchedEndpointSlice> for Object {
    fn from(watched: WatchedEndpointSlice) -> Self {
        let changed_at = changed_at(&watched.metadata);
        whole(ObjectKind::EndpointSlice, watched.metadata, |metadata| {
            let address_type = watched.address_type.read("addressType")?;
            let mut endpoints = watched.endpoints.read("endpoints")?.unwrap_or_default();
            // A list of ten has room for sixteen, and a hundred bytes each.
            endpoints.shrink_to_fit();
            let ports = watched.ports.read("ports")?.unwrap_or_default();
            Ok(api::EndpointSlice { metadata, address_type, endpoints, ports, changed_at }.into())
        })
    }
}

impl From<WatchedNode> for Object {
    fn from(watched: WatchedNode) -> Self {
        whole(ObjectKind::Node, watched.metadata, |metadata| {
            let (spec, status) = (watched.spec.read("spec")?, watched.status.read("status")?);
            Ok(api::Node { metadata, spec, status }.into())
        })
    }
}

#[cfg(test)]
mod tests;
