//! Which frontends of a plan are served at the socket, and under which key.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    model::{IpFamily, Protocol},
    plan::{Frontend, ServicePortPlan},
};

/// One element of `SERVICES4` or `SERVICES6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FrontendKey {
    /// Where clients connect to; the unspecified address of the family for a NodePort.
    pub(crate) address: SocketAddr,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Whether it is the port of every address in `NODE_ADDRESSES`.
    pub(crate) node_port: bool,
}

impl FrontendKey {
    pub(crate) fn family(&self) -> IpFamily {
        IpFamily::of(self.address.ip())
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node_port {
            write!(f, "{} NodePort {}/{}", self.family(), self.address.port(), self.protocol)
        } else {
            write!(f, "{}/{}", self.address, self.protocol)
        }
    }
}

/// Which of a plan's outcomes a frontend has for clients of this node. Also the index of its backend set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// `internal`: the ClusterIP.
    Internal = 0,
    /// `external_from_node`: everything else. Sockets are always on this node, so `external` is none of theirs.
    External = 1,
}

/// The frontends served at the socket, each key once, sorted.
///
/// Left to the packet path: SCTP, which the hooks do not see, and load balancer addresses with source ranges, because the source
/// address of a socket is not known yet when it connects.
pub(crate) fn frontends(plan: &ServicePortPlan) -> Vec<(FrontendKey, Role)> {
    let protocol = plan.key.port.protocol;
    if protocol == Protocol::Sctp {
        return Vec::new();
    }
    let at = |address| FrontendKey { address, protocol, node_port: false };
    let served = plan.frontends.iter().filter_map(|frontend| match *frontend {
        Frontend::ClusterIp(address) => Some((at(address), Role::Internal)),
        Frontend::LoadBalancer(_) if !plan.source_ranges.is_empty() => None,
        Frontend::ExternalIp(address) | Frontend::LoadBalancer(address) => Some((at(address), Role::External)),
        Frontend::NodePort(port) => Some((node_port(plan.key.family, port, protocol), Role::External)),
    });
    let mut served: Vec<_> = served.collect();
    served.sort_unstable();
    served.dedup_by_key(|(key, _)| *key);
    served
}

fn node_port(family: IpFamily, port: u16, protocol: Protocol) -> FrontendKey {
    let unspecified: IpAddr = match family {
        IpFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
        IpFamily::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    FrontendKey { address: SocketAddr::new(unspecified, port), protocol, node_port: true }
}
