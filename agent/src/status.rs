//! What `weft status` and `weft services` show: the shapes served on the agent's socket.
//!
//! Field names are a contract: scripts read `-o json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_overlay::OverlayStatus;
use weft_proxy::model::{IpFamily, Protocol};

/// Answer of `GET /status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Name of this node.
    pub(crate) node: String,
    /// Version of the running agent.
    pub(crate) version: String,
    /// Whether every component does its work.
    pub(crate) ready: bool,
    /// Seconds since the agent started.
    pub(crate) uptime_seconds: u64,
    /// `overlay`, `proxy`, `cni`, as far as they run.
    pub(crate) components: Vec<String>,
    /// Where health and metrics are told.
    #[serde(default)]
    pub(crate) servers: Vec<ServerStatus>,
    /// The pod network; absent when the component is off.
    pub(crate) overlay: Option<OverlayStatus>,
    /// Services; absent when the component is off.
    pub(crate) proxy: Option<ProxyStatus>,
    /// The configuration files, and what should be done about them.
    #[serde(default)]
    pub(crate) configuration: ConfigStatus,
    /// Where the objects come from; absent without a component that needs them.
    pub(crate) source: Option<SourceStatus>,
}

/// A server for health or metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerStatus {
    /// `health` or `metrics`.
    pub(crate) name: String,
    /// Address and port.
    pub(crate) address: String,
    /// Why it does not answer there, and what to do; it is tried again all the time.
    pub(crate) error: Option<String>,
}

/// The configuration files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigStatus {
    /// Those that are followed.
    pub(crate) files: Vec<String>,
    /// What is wrong with them as they are now; what was in force before stays in force.
    pub(crate) mistakes: Vec<String>,
    /// Fields that have changed since the agent started, and need a restart to take effect.
    pub(crate) restart_needed: Vec<String>,
}

/// State of Service balancing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProxyStatus {
    /// Data plane in use.
    pub(crate) mode: String,
    /// Whether the kernel holds what the objects ask for.
    pub(crate) synced: bool,
    /// Services with at least one planned port.
    pub(crate) services: usize,
    /// Planned Service ports, per family.
    pub(crate) service_ports: usize,
    /// Endpoints of all Service ports.
    pub(crate) endpoints: usize,
    /// When the kernel was last brought up to date, RFC 3339.
    pub(crate) last_sync: Option<String>,
    /// What keeps a data plane from being in sync.
    pub(crate) last_error: Option<String>,
    /// How often rules that someone else removed were put back.
    pub(crate) repairs: u64,
    /// How full the data planes' maps are.
    pub(crate) maps: Vec<MapStatus>,
    /// Health-check node ports and where they are answered.
    pub(crate) health_checks: Vec<HealthCheckStatus>,
    /// Kernel parameters of conntrack, as asked for at start.
    pub(crate) conntrack: Vec<ParameterStatus>,
    /// Rules of a kube-proxy that were found and left alone.
    pub(crate) kube_proxy: Vec<String>,
}

/// A map with a size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapStatus {
    /// Its name in the kernel.
    pub(crate) name: String,
    /// Elements that are taken.
    pub(crate) used: u32,
    /// Elements there are.
    pub(crate) max: u32,
    /// The flag that makes it larger, if there is one.
    pub(crate) flag: Option<String>,
}

/// A health-check node port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthCheckStatus {
    /// `namespace/name` of the Service.
    pub(crate) service: String,
    /// The port.
    pub(crate) port: u16,
    /// Addresses it is answered at.
    pub(crate) listening: Vec<IpAddr>,
    /// Why it is not answered everywhere.
    pub(crate) error: Option<String>,
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParameterStatus {
    /// Its path below `/proc/sys`, or in `/sys`.
    pub(crate) name: String,
    /// The value asked for.
    pub(crate) value: u64,
    /// Why it could not be set; `null`: it has this value.
    pub(crate) error: Option<String>,
}

/// State of the source of objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceStatus {
    /// `dir` or `kube`.
    pub(crate) kind: String,
    /// Directory or URL.
    pub(crate) location: String,
    /// Whether every kind was listed completely once.
    pub(crate) synced: bool,
    /// Objects and files that were skipped.
    pub(crate) rejected: Vec<RejectedObject>,
    /// What keeps the source from being up to date.
    pub(crate) warnings: Vec<String>,
}

/// An object that could not be used. Its last good state stays in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RejectedObject {
    /// Kind and name, or the file.
    pub(crate) object: String,
    /// File, line, field, value: what is wrong.
    pub(crate) reason: String,
}

/// One Service port in one family: an element of `GET /services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    /// Namespace of the Service.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Name of the port; may be empty.
    pub(crate) port: String,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// Address family.
    pub(crate) family: IpFamily,
    /// Where clients reach it.
    pub(crate) frontends: Vec<FrontendStatus>,
    /// What happens to connections to the ClusterIP.
    pub(crate) internal: Verdict,
    /// What happens to connections from outside.
    pub(crate) external: Verdict,
    /// The endpoints in use, with the connections each got from this node.
    pub(crate) endpoints: Vec<EndpointStatus>,
}

/// One address of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FrontendStatus {
    /// ClusterIP, NodePort, LoadBalancer or ExternalIP.
    pub(crate) kind: String,
    /// `null` for a NodePort: every node-port address.
    pub(crate) address: Option<IpAddr>,
    /// Port number.
    pub(crate) port: u16,
}

/// Outcome for a class of clients, without the endpoint list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Balanced over endpoints.
    Endpoints,
    /// Refused: nothing serves it.
    Reject,
    /// Dropped: policy Local, and nothing serves it here.
    Drop,
}

/// One endpoint of a Service port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndpointStatus {
    /// Its address.
    pub(crate) address: IpAddr,
    /// Its port.
    pub(crate) port: u16,
    /// Whether it runs on this node.
    pub(crate) local: bool,
    /// New connections (UDP: sockets) this node gave it.
    pub(crate) connections: u64,
}
