//! The three watched kinds as the `kube` crate wants them: our lean spec and status under its metadata.

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;
use weft_proxy::model::api::{self, Object};

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
    metadata: ObjectMeta,
    #[serde(default)]
    spec: api::ServiceSpec,
    #[serde(default)]
    status: api::ServiceStatus,
}

/// `discovery.k8s.io/v1` EndpointSlice, whose fields are not below a `spec`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedEndpointSlice {
    metadata: ObjectMeta,
    #[serde(default, rename = "addressType")]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<api::Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<api::EndpointPort>>,
}

/// `v1` Node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WatchedNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: api::NodeSpec,
    #[serde(default)]
    status: api::NodeStatus,
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

impl From<WatchedService> for Object {
    fn from(watched: WatchedService) -> Self {
        api::Service { metadata: metadata(watched.metadata), spec: watched.spec, status: watched.status }.into()
    }
}

impl From<WatchedEndpointSlice> for Object {
    fn from(watched: WatchedEndpointSlice) -> Self {
        api::EndpointSlice {
            metadata: metadata(watched.metadata),
            address_type: watched.address_type,
            endpoints: watched.endpoints.unwrap_or_default(),
            ports: watched.ports.unwrap_or_default(),
        }
        .into()
    }
}

impl From<WatchedNode> for Object {
    fn from(watched: WatchedNode) -> Self {
        api::Node { metadata: metadata(watched.metadata), spec: watched.spec, status: watched.status }.into()
    }
}
