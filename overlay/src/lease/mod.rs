//! Subnet leases, and their keys and values as flannel writes them to etcd (flannel.md section 5.2).
//!
//! The `dir` manager stores the same bytes in files, so what is tested here holds for both.

mod manager;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

pub use self::manager::{
    LeaseError, LeaseFuture, LeaseHolder, LeaseManager, LeaseRequest, LeaseSnapshot, NetworkState, RejectedLease,
    StoredSettings,
};
pub(crate) use self::table::{LeaseTable, Rejection};
pub use self::value::LeaseValueError;
use crate::family::{self, Family};

/// The subnets of one node: the identity of a lease. At least one is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnets {
    v4: Option<Ipv4Network>,
    v6: Option<Ipv6Network>,
}

impl Subnets {
    /// Makes the pair; `None` if both are absent or host bits are set.
    pub fn new(v4: Option<Ipv4Network>, v6: Option<Ipv6Network>) -> Option<Self> {
        let aligned = v4.is_none_or(|net| net.ip() == net.network()) && v6.is_none_or(|net| net.ip() == net.network());
        (aligned && (v4.is_some() || v6.is_some())).then_some(Self { v4, v6 })
    }

    /// Makes the pair from networks of any family; of two of one family the last counts.
    pub(crate) fn from_networks(networks: impl IntoIterator<Item = IpNetwork>) -> Option<Self> {
        let (mut v4, mut v6) = (None, None);
        for network in networks {
            match network {
                IpNetwork::V4(network) => v4 = Some(network),
                IpNetwork::V6(network) => v6 = Some(network),
            }
        }
        Self::new(v4, v6)
    }

    /// The subnet of a family.
    pub fn of(&self, family: Family) -> Option<IpNetwork> {
        match family {
            Family::V4 => self.v4.map(IpNetwork::V4),
            Family::V6 => self.v6.map(IpNetwork::V6),
        }
    }

    /// The one or two subnets, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        let copy = *self;
        Family::ALL.into_iter().filter_map(move |family| copy.of(family))
    }

    /// Whether an address lies in both this lease and the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|mine| other.iter().any(|theirs| family::overlap(mine, theirs)))
    }
}

/// The etcd key: `10.5.34.0-24`, `10.5.100.0-24&fd05:0:0:28::-64`. An IPv6 subnet alone, which flannel's keys cannot
/// express, is written as `fd05:0:0:28::-64`.
impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, network) in self.iter().enumerate() {
            let separator = if position == 0 { "" } else { "&" };
            write!(f, "{separator}{}-{}", network.ip(), network.prefix())?;
        }
        Ok(())
    }
}

/// A key that names no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} is not the key of a lease, such as 10.5.34.0-24 or 10.5.100.0-24&fd05:0:0:28::-64")]
pub struct LeaseKeyError {
    /// The key.
    pub key: String,
}

impl FromStr for Subnets {
    type Err = LeaseKeyError;

    fn from_str(key: &str) -> Result<Self, LeaseKeyError> {
        let parse = || {
            let networks = key.split('&').map(network_of_key).collect::<Option<Vec<_>>>()?;
            let subnets = Self::from_networks(networks.iter().copied())?;
            // Order and number of the parts: what is read must be what would be written.
            (networks == subnets.iter().collect::<Vec<_>>()).then_some(subnets)
        };
        parse().ok_or_else(|| LeaseKeyError { key: key.to_owned() })
    }
}

fn network_of_key(part: &str) -> Option<IpNetwork> {
    let (address, prefix) = part.rsplit_once('-')?;
    IpNetwork::new(address.parse().ok()?, prefix.parse().ok()?).ok()
}

/// What a node publishes about itself: the value of its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAttributes {
    /// Where other nodes send the outer IPv4 packets.
    pub public_ip: Option<Ipv4Addr>,
    /// Where other nodes send the outer IPv6 packets.
    pub public_ipv6: Option<Ipv6Addr>,
    /// `vxlan`, or the type of a backend this node does not speak.
    pub backend_type: String,
    /// Payload of the IPv4 overlay; `None` without one, and for other backends.
    pub backend_data: Option<VtepData>,
    /// Payload of the IPv6 overlay.
    pub backend_v6_data: Option<VtepData>,
}

impl LeaseAttributes {
    /// The public address of a family.
    pub fn public_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_ip.map(IpAddr::V4),
            Family::V6 => self.public_ipv6.map(IpAddr::V6),
        }
    }

    /// The VTEP of a family.
    pub fn vtep(&self, family: Family) -> Option<VtepData> {
        match family {
            Family::V4 => self.backend_data,
            Family::V6 => self.backend_v6_data,
        }
    }
}

/// One VXLAN tunnel endpoint, as backend `vxlan` publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtepData {
    /// VXLAN network identifier.
    pub vni: u32,
    /// MAC address of the VXLAN device.
    pub mac: Mac,
}

/// One node's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it holds.
    pub subnets: Subnets,
    /// What it publishes.
    pub attributes: LeaseAttributes,
}

/// Re-exported so that the planner needs nothing else of netlink.
pub use weft_netlink::Mac;
