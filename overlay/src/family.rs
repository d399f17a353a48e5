//! Address families and the arithmetic on networks that is the same in both.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;

/// Address family of a pod network. A dual-stack overlay is two overlays side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 pods over an IPv4 underlay.
    V4,
    /// IPv6 pods over an IPv6 underlay.
    V6,
}

impl Family {
    /// Both, in the order in which they are programmed and printed.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Length of an address in bits: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address as a number.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of `family` with that number; `None` beyond the family's last address.
pub(crate) fn address(family: Family, number: u128) -> Option<IpAddr> {
    match family {
        Family::V4 => u32::try_from(number).ok().map(|n| IpAddr::V4(n.into())),
        Family::V6 => Some(IpAddr::V6(number.into())),
    }
}

/// `address/prefix` with the host bits cleared; `None` if the prefix is longer than the address.
pub(crate) fn network(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(address, prefix).ok()?;
    IpNetwork::new(network.network(), prefix).ok()
}

/// The address alone, as a network of one: /32 or /128.
pub(crate) fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

/// Whether all of `inner` lies in `outer`.
pub(crate) fn covers(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Whether the two share an address; two CIDRs do only if one covers the other.
pub(crate) fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    covers(a, b) || covers(b, a)
}
