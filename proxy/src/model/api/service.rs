//! Service.

use serde::Deserialize;

use super::{Metadata, null_as_default};

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
