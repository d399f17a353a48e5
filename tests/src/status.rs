//! What `weft status -o json` and `weft services -o json` print, as far as tests look at it.

use std::net::IpAddr;

use serde::Deserialize;

/// State of one node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Node name.
    pub node: String,
    /// Whether everything asked for works.
    pub ready: bool,
    /// The pod network; absent without that component.
    pub overlay: Option<OverlayStatus>,
    /// Services; absent without that component.
    pub proxy: Option<ProxyStatus>,
    /// Where objects come from.
    pub source: Option<SourceStatus>,
}

/// State of the pod network.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayStatus {
    /// VXLAN device.
    pub device: String,
    /// Address that peers send to.
    #[serde(rename = "publicIP")]
    pub public_ip: String,
    /// This node's pod subnet.
    pub subnet: String,
    /// MAC of the VTEP.
    #[serde(rename = "vtepMAC")]
    pub vtep_mac: String,
    /// MTU of pods, in bytes.
    pub mtu: u32,
    /// The other nodes.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
}

impl OverlayStatus {
    /// Number of peers that are up.
    pub fn peers_up(&self) -> usize {
        self.peers.iter().filter(|peer| peer.state == "up").count()
    }
}

/// State of one peer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its pod subnet.
    pub subnet: String,
    /// `up`, or what is wrong.
    pub state: String,
}

/// State of Services.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// `ebpf`, `nftables` or `iptables`.
    pub mode: String,
    /// Whether the kernel has what was planned last.
    pub synced: bool,
    /// Number of Services.
    pub services: u64,
    /// Number of endpoints.
    pub endpoints: u64,
    /// What keeps it from being in sync.
    pub last_error: Option<String>,
    /// How full the maps are.
    #[serde(default)]
    pub maps: Vec<MapStatus>,
    /// Health-check node ports.
    #[serde(default)]
    pub health_checks: Vec<HealthCheckStatus>,
    /// Kernel parameters of conntrack.
    #[serde(default)]
    pub conntrack: Vec<ParameterStatus>,
    /// Rules of a kube-proxy that were left alone.
    #[serde(default)]
    pub kube_proxy: Vec<String>,
}

/// A map with a size.
#[derive(Clone, Debug, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Elements that are taken.
    pub used: u32,
    /// Elements there are.
    pub max: u32,
}

/// A health-check node port.
#[derive(Clone, Debug, Deserialize)]
pub struct HealthCheckStatus {
    /// `namespace/name`.
    pub service: String,
    /// Where it is answered.
    pub listening: Vec<IpAddr>,
    /// Why it is not answered everywhere.
    pub error: Option<String>,
}

/// A kernel parameter.
#[derive(Clone, Debug, Deserialize)]
pub struct ParameterStatus {
    /// Its path.
    pub name: String,
    /// The value asked for.
    pub value: u64,
    /// Why it could not be set.
    pub error: Option<String>,
}

/// State of the source of objects.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// `dir` or `kube`.
    pub kind: String,
    /// Objects and files that could not be used.
    #[serde(default)]
    pub rejected: Vec<RejectedObject>,
    /// What keeps the source from being up to date.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Something that could not be used.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedObject {
    /// What it is.
    pub object: String,
    /// Why, with file and line.
    pub reason: String,
}

/// One Service port in one family.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the port.
    pub port: String,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What happens to traffic from inside: `endpoints`, `reject` or `drop`.
    pub internal: String,
    /// Where it goes.
    #[serde(default)]
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Address of the pod.
    pub address: IpAddr,
    /// Port of the pod.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
    /// Connections it got since the service port exists.
    pub connections: u64,
}

/// Answer of `weft trace`; one that could not be traced has an error and nothing else.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trace {
    /// Why it could not be traced.
    pub error: Option<String>,
    /// `untouched`, `endpoints`, `reject` or `drop`.
    pub verdict: String,
    /// `sockets`, `nftables`, `iptables` or `none`.
    pub decided_by: String,
    /// Who may get the connection.
    pub endpoints: Vec<TracedEndpoint>,
    /// Who gets the next one.
    pub next: Option<TracedNext>,
    /// Where the kernel differs from the plan.
    pub findings: Vec<String>,
    /// What the kernel was asked.
    pub steps: Vec<String>,
}

/// Who may get a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct TracedEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// What masquerades the connection.
    pub masqueraded: Option<String>,
}

/// Who gets the next connection.
#[derive(Clone, Debug, Deserialize)]
pub struct TracedNext {
    /// Its address.
    pub address: IpAddr,
    /// Why.
    pub why: String,
}
