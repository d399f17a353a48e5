//! Services and their endpoints.
//!
//! A backend set is an immutable block `[base, base + count)` of a `BACKENDS` array, sorted by address and port ([`Peer::ordinal`]), so
//! that one endpoint is found in it without reading all. A change writes a fresh block and then replaces one
//! `SERVICES` element; nothing a program can still be reading is ever written in place.

use core::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::peer::{Peer, address_v4, address_v6, ipv4, ipv6};

/// [`ServiceKey4::scope`]: the address of the key is the one clients use (ClusterIP, externalIP, LoadBalancer).
pub const SCOPE_ADDRESS: u8 = 0;
/// [`ServiceKey4::scope`]: a NodePort; the address of the key is 0 and stands for all of `NODE_ADDRESSES`.
pub const SCOPE_NODE_PORT: u8 = 1;

/// [`ServiceValue::flags`]: no endpoint anywhere; the call fails with ECONNREFUSED.
pub const SERVICE_REJECT: u32 = 1;
/// [`ServiceValue::flags`]: the destination is left as it is, and the packet path drops what is sent there.
pub const SERVICE_DROP: u32 = 1 << 1;

/// Value of `NODE_ADDRESSES`: NodePorts are accepted there only from sockets of the host's network namespace.
/// Loopback: every namespace has its own, but only the host's leads to the node's ports.
pub const NODE_ADDRESS_HOST_ONLY: u32 = 1;

/// Key of `SERVICES4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey4 {
    /// Address, network order; 0 with [`SCOPE_NODE_PORT`].
    pub address_be: u32,
    /// Port, network order.
    pub port_be: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`SCOPE_ADDRESS`] or [`SCOPE_NODE_PORT`].
    pub scope: u8,
}

/// Key of `SERVICES6`; the fields are those of [`ServiceKey4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey6 {
    /// Address, network order; 0 with [`SCOPE_NODE_PORT`].
    pub address_be: [u32; 4],
    /// Port, network order.
    pub port_be: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`SCOPE_ADDRESS`] or [`SCOPE_NODE_PORT`].
    pub scope: u8,
}

/// What a frontend leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceValue {
    /// The backend set: index of its counter in `ROUND_ROBIN`. Frontends that share a set share its turn.
    pub set_id: u32,
    /// First element of its block in `BACKENDS4` or `BACKENDS6`.
    pub base: u32,
    /// Length of the block; 0 exactly if a flag is set.
    pub count: u32,
    /// 0, [`SERVICE_REJECT`] or [`SERVICE_DROP`].
    pub flags: u32,
    /// Number of the Service port in [`AffinityKey`](crate::AffinityKey), shared by all its frontends; 0 without session affinity.
    pub affinity_id: u32,
    /// How long a client stays with its endpoint after its last new connection, 1 to 86,400 seconds; 0 without session affinity.
    pub affinity_seconds: u32,
}

/// Element of `BACKENDS4`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend4 {
    /// Address, network order.
    pub address_be: u32,
    /// Port, network order.
    pub port_be: u16,
    /// Always 0.
    pub flags: u16,
    /// Index in `CONNECTIONS`. Belongs to the endpoint and stays with it when the set changes.
    pub counter: u32,
}

/// Element of `BACKENDS6`; the fields are those of [`Backend4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend6 {
    /// Address, network order.
    pub address_be: [u32; 4],
    /// Port, network order.
    pub port_be: u16,
    /// Always 0.
    pub flags: u16,
    /// Index in `CONNECTIONS`.
    pub counter: u32,
}

/// The only element of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Cookie of the agent's network namespace (`SO_NETNS_COOKIE`): see [`NODE_ADDRESS_HOST_ONLY`].
    pub host_netns_cookie: u64,
    /// Lowest port any NodePort uses, host order. With `node_port_last` it spares every other connect on the node two lookups.
    pub node_port_first: u16,
    /// Highest one, host order; 0 while there is no NodePort.
    pub node_port_last: u16,
    /// Always 0.
    pub padding: u32,
}

const _: () = assert!(size_of::<ServiceKey4>() == 8 && core::mem::offset_of!(ServiceKey4, port_be) == 4);
const _: () = assert!(size_of::<ServiceKey6>() == 20 && core::mem::offset_of!(ServiceKey6, port_be) == 16);
const _: () =
    assert!(core::mem::offset_of!(ServiceKey4, protocol) == 6 && core::mem::offset_of!(ServiceKey4, scope) == 7);
const _: () =
    assert!(core::mem::offset_of!(ServiceKey6, protocol) == 18 && core::mem::offset_of!(ServiceKey6, scope) == 19);
const _: () = assert!(size_of::<ServiceValue>() == 24 && core::mem::offset_of!(ServiceValue, base) == 4);
const _: () =
    assert!(core::mem::offset_of!(ServiceValue, count) == 8 && core::mem::offset_of!(ServiceValue, flags) == 12);
const _: () = assert!(core::mem::offset_of!(ServiceValue, affinity_seconds) == 20);
const _: () = assert!(size_of::<Backend4>() == 12 && core::mem::offset_of!(Backend4, counter) == 8);
const _: () = assert!(size_of::<Backend6>() == 24 && core::mem::offset_of!(Backend6, counter) == 20);
const _: () = assert!(size_of::<Config>() == 16 && core::mem::offset_of!(Config, node_port_last) == 10);

impl ServiceKey4 {
    /// The frontend at exactly this address.
    pub const fn address(at: SocketAddrV4, protocol: u8) -> Self {
        Self { address_be: address_v4(*at.ip()), port_be: at.port().to_be(), protocol, scope: SCOPE_ADDRESS }
    }

    /// The NodePort frontend.
    pub const fn node_port(port: u16, protocol: u8) -> Self {
        Self { address_be: 0, port_be: port.to_be(), protocol, scope: SCOPE_NODE_PORT }
    }

    /// Address (unspecified for a NodePort) and port.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::from((ipv4(self.address_be), u16::from_be(self.port_be)))
    }
}

impl ServiceKey6 {
    /// The frontend at exactly this address.
    pub const fn address(at: SocketAddrV6, protocol: u8) -> Self {
        Self { address_be: address_v6(*at.ip()), port_be: at.port().to_be(), protocol, scope: SCOPE_ADDRESS }
    }

    /// The NodePort frontend.
    pub const fn node_port(port: u16, protocol: u8) -> Self {
        Self { address_be: address_v6(Ipv6Addr::UNSPECIFIED), port_be: port.to_be(), protocol, scope: SCOPE_NODE_PORT }
    }

    /// Address (unspecified for a NodePort) and port.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::from((ipv6(self.address_be), u16::from_be(self.port_be)))
    }
}

impl Backend4 {
    /// An endpoint and its counter.
    pub const fn new(at: SocketAddrV4, counter: u32) -> Self {
        Self { address_be: address_v4(*at.ip()), port_be: at.port().to_be(), flags: 0, counter }
    }

    /// Where connections go.
    #[inline(always)]
    pub const fn peer(&self) -> Peer {
        Peer::v4(self.address_be, self.port_be)
    }
}

impl Backend6 {
    /// An endpoint and its counter.
    pub const fn new(at: SocketAddrV6, counter: u32) -> Self {
        Self { address_be: address_v6(*at.ip()), port_be: at.port().to_be(), flags: 0, counter }
    }

    /// Where connections go.
    #[inline(always)]
    pub const fn peer(&self) -> Peer {
        Peer::v6(self.address_be, self.port_be)
    }
}

impl Config {
    /// Whether some NodePort may use `port` (host order).
    #[inline(always)]
    pub const fn may_be_node_port(&self, port: u16) -> bool {
        self.node_port_first <= port && port <= self.node_port_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_show_what_they_were_made_from() {
        let v4: SocketAddrV4 = "10.96.0.10:53".parse().unwrap();
        assert_eq!(ServiceKey4::address(v4, 17).socket_address(), SocketAddr::V4(v4));
        let v6: SocketAddrV6 = "[fd00::10]:53".parse().unwrap();
        assert_eq!(ServiceKey6::address(v6, 17).socket_address(), SocketAddr::V6(v6));
        assert_eq!(ServiceKey4::node_port(30080, 6).socket_address(), "0.0.0.0:30080".parse().unwrap());
        assert_eq!(ServiceKey6::node_port(30080, 6).socket_address(), "[::]:30080".parse().unwrap());
    }

    #[test]
    fn a_fresh_config_accepts_no_node_port() {
        let fresh = Config::default();
        assert!(!fresh.may_be_node_port(1) && !fresh.may_be_node_port(30000));
        let one = Config { node_port_first: 30080, node_port_last: 30090, ..fresh };
        assert!(one.may_be_node_port(30080) && one.may_be_node_port(30090));
        assert!(!one.may_be_node_port(30079) && !one.may_be_node_port(30091));
    }
}
