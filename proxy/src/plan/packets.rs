//! What the packet path needs to know besides Services: settings of the node, the same for all of them.

use std::net::IpAddr;

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::model::IpFamily;

/// Settings of a packet data plane. Fixed while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSettings {
    /// Which packets count as local traffic: sources that keep their address towards a ClusterIP (8.1, 8.2), and for which
    /// externalTrafficPolicy Local is short-circuited (3.5).
    pub local_traffic: LocalTraffic,
    /// Masquerade everything sent to a ClusterIP (8.4).
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading, 0 to 31 (8.10).
    pub masquerade_bit: u8,
    /// Serve NodePorts at 127.0.0.1 too, where the mode can (6.6).
    pub localhost_node_ports: bool,
}

impl Default for PacketSettings {
    /// kube-proxy's defaults.
    fn default() -> Self {
        Self {
            local_traffic: LocalTraffic::Unknown,
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
        }
    }
}

impl PacketSettings {
    /// The mark with only the masquerade bit set.
    pub const fn masquerade_mark(&self) -> u32 {
        1 << (self.masquerade_bit & 31)
    }
}

/// How to tell packets of this node's (or cluster's) pods from those of others (detectLocalMode, 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalTraffic {
    /// No detector: nobody is masqueraded towards a ClusterIP, and no pod is short-circuited (8.3, 3.5).
    #[default]
    Unknown,
    /// The source lies in the CIDR of its family (ClusterCIDR, NodeCIDR); a family without one has no detector.
    Cidrs {
        /// For IPv4.
        v4: Option<Ipv4Network>,
        /// For IPv6.
        v6: Option<Ipv6Network>,
    },
    /// It came in by this interface (BridgeInterface).
    Interface(String),
    /// It came in by an interface whose name starts so (InterfaceNamePrefix).
    InterfacePrefix(String),
}

impl LocalTraffic {
    /// Whether packets of a family can be told at all (8.3).
    pub const fn tells(&self, family: IpFamily) -> bool {
        match (self, family) {
            (Self::Unknown, _) => false,
            (Self::Cidrs { v4, .. }, IpFamily::V4) => v4.is_some(),
            (Self::Cidrs { v6, .. }, IpFamily::V6) => v6.is_some(),
            (Self::Interface(_) | Self::InterfacePrefix(_), _) => true,
        }
    }

    /// Whether a packet with this source, that came in by this interface, is local traffic. Those of the node's own processes
    /// came in by none.
    pub fn includes(&self, source: IpAddr, interface: Option<&str>) -> bool {
        match self {
            Self::Unknown => false,
            Self::Cidrs { v4, v6 } => match source {
                IpAddr::V4(source) => v4.is_some_and(|cidr| cidr.contains(source)),
                IpAddr::V6(source) => v6.is_some_and(|cidr| cidr.contains(source)),
            },
            Self::Interface(name) => interface == Some(name),
            Self::InterfacePrefix(prefix) => interface.is_some_and(|name| name.starts_with(prefix.as_str())),
        }
    }
}
