//! What `weft status` shows of the overlay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::ObjectKind;

/// State of this node's overlay. Absent values are not known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayStatus {
    /// Device, addresses, forwarding, masquerading and `subnet.env` are as they should be. Peers do not count.
    pub ready: bool,
    /// What is wrong on this node itself.
    pub error: Option<String>,
    /// `vxlan` or `host-gw`.
    pub backend: String,
    /// Where leases come from, such as `dir:/var/lib/weft/leases`.
    pub subnet_manager: String,
    /// The IPv4 overlay; its fields stand at this level. `null` values if IPv4 is off.
    #[serde(flatten)]
    pub ipv4: FamilyStatus,
    /// The IPv6 overlay, if it is on.
    pub ipv6: Option<FamilyStatus>,
    /// MTU of pod interfaces, in bytes.
    pub mtu: Option<u32>,
    /// What masquerades: `nftables`, `iptables`, or nothing.
    #[serde(default)]
    pub packet_filter: Option<String>,
    /// Whether packets from pod to pod are kept out of conntrack.
    #[serde(default)]
    pub conntrack_bypass: bool,
    /// Kernel parameters the overlay needs, with the values they have.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The other nodes, by subnet.
    pub peers: Vec<PeerStatus>,
    /// Leases that cannot be read.
    pub rejected: Vec<RejectedStatus>,
    /// Objects that somebody else changed and the agent put right.
    pub repairs: u64,
    /// The same by kind of object.
    pub repairs_by_kind: BTreeMap<ObjectKind, u64>,
}

/// This node in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyStatus {
    /// Name of the VXLAN device; none with `host-gw`.
    pub device: Option<String>,
    /// Interface that carries the outer packets.
    pub interface: Option<String>,
    /// Where other nodes send outer packets.
    #[serde(rename = "publicIP")]
    pub public_ip: Option<String>,
    /// The pod network of the cluster.
    pub network: Option<String>,
    /// This node's subnet.
    pub subnet: Option<String>,
    /// MAC address of the VXLAN device.
    #[serde(rename = "vtepMAC")]
    pub vtep_mac: Option<String>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its subnet: that of IPv4, or of IPv6 if it has no other.
    pub subnet: String,
    /// Its IPv6 subnet, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_v6: Option<String>,
    /// Where its outer packets are sent.
    #[serde(rename = "publicIP")]
    pub public_ip: Option<String>,
    /// MAC address of its VXLAN device.
    #[serde(rename = "vtepMAC")]
    pub vtep_mac: Option<String>,
    /// Whether its entries are in the kernel.
    pub state: PeerState,
    /// Why not.
    pub error: Option<String>,
}

/// Whether a peer can be reached, as far as this node's kernel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// All its entries are in the kernel.
    Up,
    /// They are not.
    Failed,
}

/// A lease that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedStatus {
    /// File, key or Node.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}
