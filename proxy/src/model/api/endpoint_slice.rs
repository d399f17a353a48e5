//! EndpointSlice.

use std::time::SystemTime;

use serde::Deserialize;

use super::{Metadata, null_as_default};

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
