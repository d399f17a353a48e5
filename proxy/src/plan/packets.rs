//! What the packet path needs to know besides Services: settings of the node, the same for all of them.

use ipnetwork::{Ipv4Network, Ipv6Network};

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
