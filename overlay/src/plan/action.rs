//! The operations a plan is made of.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;

use super::state::{Device, NextHop};
use crate::{family::Family, lease::Mac};

/// One operation, and whom it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) family: Family,
    pub(crate) subject: Subject,
    pub(crate) action: Action,
}

/// Whom an operation serves: decides what a failure stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// This node: the rest of the family needs it, and is not tried without it.
    Node,
    /// The peer with this subnet: the peer's other operations are not tried.
    Peer(IpNetwork),
    /// Nobody any more: something stale goes, and a failure stops nothing.
    Stale,
}

/// One change of one kernel object. All are idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    CreateDevice(Device),
    DeleteDevice,
    SetMac(Mac),
    SetMtu(u32),
    SetUp,
    AddAddress(IpNetwork),
    RemoveAddress(IpNetwork),
    AddUnreachable(IpNetwork),
    RemoveUnreachable(IpNetwork),
    ReplaceNeighbour {
        address: IpAddr,
        mac: Mac,
    },
    RemoveNeighbour {
        address: IpAddr,
    },
    ReplaceFdb {
        mac: Mac,
        public_address: IpAddr,
    },
    RemoveFdb {
        mac: Mac,
        public_address: IpAddr,
    },
    ReplaceRoute(IpNetwork),
    RemoveRoute(IpNetwork),
    ReplaceDirect(IpNetwork, NextHop),
    RemoveDirect(IpNetwork, NextHop),
    /// A device of an older configuration, by name.
    RemoveOldDevice(String),
}

/// Kinds of object that are repaired, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObjectKind {
    /// The VXLAN device: existence, attributes, up.
    Device,
    /// The VTEP's address.
    Address,
    /// A peer's route, or the unreachable route of the own subnet.
    Route,
    /// A peer's neighbour entry.
    Neighbour,
    /// A peer's forwarding entry.
    Fdb,
    /// Packet rules: nftables table, iptables chains.
    PacketFilter,
    /// A kernel parameter.
    Sysctl,
    /// `subnet.env`.
    SubnetFile,
}

impl Action {
    pub(crate) fn kind(&self) -> ObjectKind {
        match self {
            Self::CreateDevice(_)
            | Self::DeleteDevice
            | Self::SetMac(_)
            | Self::SetMtu(_)
            | Self::SetUp
            | Self::RemoveOldDevice(_) => ObjectKind::Device,
            Self::AddAddress(_) | Self::RemoveAddress(_) => ObjectKind::Address,
            Self::AddUnreachable(_)
            | Self::RemoveUnreachable(_)
            | Self::ReplaceRoute(_)
            | Self::RemoveRoute(_)
            | Self::ReplaceDirect(..)
            | Self::RemoveDirect(..) => ObjectKind::Route,
            Self::ReplaceNeighbour { .. } | Self::RemoveNeighbour { .. } => ObjectKind::Neighbour,
            Self::ReplaceFdb { .. } | Self::RemoveFdb { .. } => ObjectKind::Fdb,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDevice(device) => write!(f, "create device {}", device.name),
            Self::DeleteDevice => f.write_str("delete device"),
            Self::SetMac(mac) => write!(f, "set MAC {mac}"),
            Self::SetMtu(mtu) => write!(f, "set MTU {mtu}"),
            Self::SetUp => f.write_str("set up"),
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::RemoveAddress(address) => write!(f, "remove address {address}"),
            Self::AddUnreachable(network) => write!(f, "add unreachable route {network}"),
            Self::RemoveUnreachable(network) => write!(f, "remove unreachable route {network}"),
            Self::ReplaceNeighbour { address, mac } => {
                write!(f, "replace neighbour {address} at {mac}")
            }
            Self::RemoveNeighbour { address } => write!(f, "remove neighbour {address}"),
            Self::ReplaceFdb { mac, public_address } => {
                write!(f, "replace FDB entry {mac} via {public_address}")
            }
            Self::RemoveFdb { mac, public_address } => {
                write!(f, "remove FDB entry {mac} via {public_address}")
            }
            Self::ReplaceRoute(destination) => write!(f, "replace route {destination}"),
            Self::RemoveRoute(destination) => write!(f, "remove route {destination}"),
            Self::ReplaceDirect(destination, hop) => write!(f, "replace route {destination} via {}", hop.gateway),
            Self::RemoveDirect(destination, hop) => write!(f, "remove route {destination} via {}", hop.gateway),
            Self::RemoveOldDevice(name) => write!(f, "delete device {name} of an older configuration"),
        }
    }
}
