//! What the planner hands to a data plane.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnetwork::IpNetwork;

use crate::model::{IpFamily, ServicePortName};

/// One Service port in one address family: the unit of planning and of programming.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanKey {
    /// The Service port.
    pub port: ServicePortName,
    /// Its family.
    pub family: IpFamily,
}

impl fmt::Display for PlanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.port, self.family)
    }
}

/// An address at which clients reach a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// `spec.clusterIPs[]`: internal traffic policy applies.
    ClusterIp(SocketAddr),
    /// `spec.externalIPs[]`: external traffic policy applies, as to the two below.
    ExternalIp(SocketAddr),
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP; the only kind source ranges apply to.
    LoadBalancer(SocketAddr),
    /// `spec.ports[].nodePort`, at every node-port address of this node.
    NodePort(u16),
}

impl Frontend {
    /// Address and port; `None` for a NodePort, which is at many addresses.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::ClusterIp(address) | Self::ExternalIp(address) | Self::LoadBalancer(address) => Some(*address),
            Self::NodePort(_) => None,
        }
    }

    /// Whether the external traffic policy applies here (3.3).
    pub const fn is_external(&self) -> bool {
        !matches!(self, Self::ClusterIp(_))
    }
}

/// A pod (or other backend) that serves a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address; its family is that of the plan.
    pub address: IpAddr,
    /// The slice's port (targetPort).
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
}

/// What happens to a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to one of these, in strict round robin. Never empty; sorted by address and port.
    Endpoints(Arc<[Endpoint]>),
    /// No endpoint anywhere: ICMP port unreachable, ECONNREFUSED at the socket (9.1).
    Reject,
    /// Policy Local with usable endpoints elsewhere only: silence (3.2, 3.4).
    Drop,
}

impl Outcome {
    /// The endpoints; none for REJECT and DROP.
    pub fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Endpoints(endpoints) => endpoints,
            Self::Reject | Self::Drop => &[],
        }
    }
}

/// Everything a data plane needs to know of one Service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortPlan {
    /// Which one.
    pub key: PlanKey,
    /// Where clients reach it; sorted. No address and port of a protocol is in two plans, and no node port of a family.
    pub frontends: Vec<Frontend>,
    /// For the ClusterIP, from any client (internal traffic policy).
    pub internal: Outcome,
    /// For NodePort, LoadBalancer and externalIP, from clients outside (external traffic policy).
    /// This and the next equal `internal` where there is no such frontend.
    pub external: Outcome,
    /// The same frontends, from pods and processes of this node: the short circuits of 3.5 and 3.6.
    pub external_from_node: Outcome,
    /// Whether external packets leave with an address of this node (8.5, 8.6): true unless externalTrafficPolicy is Local.
    pub masquerade_external: bool,
    /// `sessionAffinity: ClientIP` with its timeout, 1 s to 86,400 s; `None` without affinity (7.1, 7.2).
    pub affinity: Option<Duration>,
    /// Sources allowed at a LoadBalancer address; empty = all (9.6). Sorted, host bits clear, none of them `/0`. The VIPs that
    /// the exception for this node allows (9.7) are among them.
    pub source_ranges: Vec<IpNetwork>,
    /// `spec.healthCheckNodePort`, where this node answers load balancers (11.3); packets to it are let in (9.14).
    pub health_check_port: Option<u16>,
}

impl ServicePortPlan {
    /// Every endpoint that some client of this node may be given: the three outcomes united, sorted.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let outcomes = [&self.internal, &self.external, &self.external_from_node];
        let mut endpoints: Vec<_> = outcomes.into_iter().flat_map(Outcome::endpoints).copied().collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints
    }
}
