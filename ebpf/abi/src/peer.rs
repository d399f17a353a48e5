//! Addresses as the programs compare them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Address and port of the far end of a socket, in one form for both families.
///
/// IPv4 is written as an IPv4-mapped address (RFC 4291, 2.5.5.2), because one socket can meet both forms: connect on an `AF_INET6`
/// socket with an `AF_INET` address runs the IPv4 hook, while getpeername on it runs the IPv6 one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The sixteen bytes of the address in network order, four at a time.
    pub address_be: [u32; 4],
    /// Port, network order.
    pub port_be: u16,
    /// Always 0: the layout is part of hash keys.
    pub padding: u16,
}

const _: () = assert!(size_of::<Peer>() == 20 && align_of::<Peer>() == 4);
const _: () = assert!(core::mem::offset_of!(Peer, port_be) == 16);

/// Third word of every IPv4-mapped address: `0000:ffff`.
const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Peer {
    /// An IPv4 peer; both arguments in network order.
    #[inline(always)]
    pub const fn v4(address_be: u32, port_be: u16) -> Self {
        Self { address_be: [0, 0, V4_MAPPED, address_be], port_be, padding: 0 }
    }

    /// An IPv6 (or IPv4-mapped) peer; both arguments in network order.
    #[inline(always)]
    pub const fn v6(address_be: [u32; 4], port_be: u16) -> Self {
        Self { address_be, port_be, padding: 0 }
    }

    /// High and low half of the address and the port, as numbers: the order of blocks, which is that of `SocketAddr` within a family.
    #[inline(always)]
    pub const fn ordinal(&self) -> (u64, u64, u64) {
        let [a, b, c, d] = self.address_be;
        (number(a, b), number(c, d), u16::from_be(self.port_be) as u64)
    }

    /// The IPv4 address in network order, if the peer is an IPv4 one.
    #[inline(always)]
    pub const fn as_v4(&self) -> Option<u32> {
        let [a, b, c, v4] = self.address_be;
        if a == 0 && b == 0 && c == V4_MAPPED { Some(v4) } else { None }
    }
}

#[inline(always)]
const fn number(high_be: u32, low_be: u32) -> u64 {
    (u32::from_be(high_be) as u64) << 32 | u32::from_be(low_be) as u64
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(v4) => Self::v4(address_v4(v4), address.port().to_be()),
            IpAddr::V6(v6) => Self::v6(address_v6(v6), address.port().to_be()),
        }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        let ip = match peer.as_v4() {
            Some(v4) => IpAddr::V4(ipv4(v4)),
            None => IpAddr::V6(ipv6(peer.address_be)),
        };
        Self::new(ip, u16::from_be(peer.port_be))
    }
}

/// An IPv4 address as the maps hold it (network order).
pub const fn address_v4(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// An IPv6 address as the maps hold it (network order).
pub const fn address_v6(address: Ipv6Addr) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// The inverse of [`address_v4`].
pub const fn ipv4(address_be: u32) -> Ipv4Addr {
    let [a, b, c, d] = address_be.to_ne_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// The inverse of [`address_v6`].
pub fn ipv6(words_be: [u32; 4]) -> Ipv6Addr {
    let mut octets = [0; 16];
    for (chunk, word) in octets.chunks_exact_mut(4).zip(words_be) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.96.0.1:80", "[fd00:10:96::1]:53", "255.255.255.255:65535", "[::1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Peer::from(address)), address);
        }
    }

    #[test]
    fn peers_are_ordered_as_their_addresses() {
        let texts = [
            "9.255.0.1:80",
            "10.0.0.2:80",
            "10.0.0.10:79",
            "10.0.0.10:80",
            "10.0.0.10:8080",
            "[fd00::2]:80",
            "[fd00::10]:1",
            "[fd00::1:0]:1",
        ];
        let addresses = texts.map(|text| text.parse::<SocketAddr>().unwrap());
        assert!(addresses.is_sorted_by_key(|address| Peer::from(*address).ordinal()));
        assert!(addresses[..5].is_sorted() && addresses[5..].is_sorted());
    }

    #[test]
    fn ipv4_is_the_mapped_address() {
        let v4 = Peer::from("10.1.2.3:80".parse::<SocketAddr>().unwrap());
        let mapped = Peer::v6(address_v6("::ffff:10.1.2.3".parse().unwrap()), 80_u16.to_be());
        assert_eq!(v4, mapped);
        assert_eq!(v4.as_v4(), Some(address_v4(Ipv4Addr::new(10, 1, 2, 3))));
        assert_eq!(Peer::from("[::1]:80".parse::<SocketAddr>().unwrap()).as_v4(), None);
    }
}
