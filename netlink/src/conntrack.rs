//! The kernel's table of connections: reading the entries of one protocol, and deleting single ones.
//!
//! Nothing here can flush: a deletion always names an entry.

mod wire;

use std::{fmt, net::SocketAddr};

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    Family, Listing,
    error::{During, Result},
    raw::RawSocket,
};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConntrackTuple {
    /// Who sends in this direction.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// One tracked connection of a protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConntrackEntry {
    /// Number of the transport protocol (IANA).
    pub protocol: u8,
    /// As the first packet came in, before any translation.
    pub original: ConntrackTuple,
    /// As answers come in: their source is whom the first packet was translated to.
    pub reply: ConntrackTuple,
    /// Conntrack zone of the original direction; 0 unless rules say otherwise.
    pub zone: u16,
    /// `IPS_*` bits of linux/netfilter/nf_conntrack_common.h.
    pub status: u32,
    /// What tells this entry from a later one with the same tuples; `None` from a kernel that gives none.
    pub id: Option<u32>,
}

impl fmt::Display for ConntrackEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, original, reply, zone, .. } = self;
        write!(f, "protocol {protocol} {} -> {}, answered by {}", original.source, original.destination, reply.source)?;
        if *zone != 0 {
            write!(f, ", zone {zone}")?;
        }
        Ok(())
    }
}

/// Whether [`Conntrack::delete`] found what it was to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone now.
    Yes,
    /// It was gone before, or another entry has taken its place.
    WasGone,
}

/// A connection to conntrack of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: RawSocket,
}

impl Conntrack {
    /// Connects to conntrack of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The socket cannot be made, or the kernel has no nfnetlink.
    pub fn open() -> Result<Self> {
        let socket = RawSocket::open(NETLINK_NETFILTER).during("open", "a netfilter netlink socket")?;
        Ok(Self { socket })
    }

    /// Hands every entry of a family and protocol to `each`. An entry may come twice when the table is resized meanwhile.
    ///
    /// Linux >= 5.8 leaves out other protocols by itself; from older ones they are read and passed over here.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied), or the kernel has no conntrack netlink. What was
    /// handed out until then is valid. Open another [`Conntrack`] to try again.
    pub fn for_each(&mut self, family: Family, protocol: u8, mut each: impl FnMut(&ConntrackEntry)) -> Result<Listing> {
        let sink = |row: &[u8]| {
            if let Some(entry) = wire::entry(row).filter(|entry| entry.is_of(family, protocol)) {
                each(&entry);
            }
        };
        self.socket
            .dump(wire::GET, &wire::list_request(family, protocol), sink)
            .during("list", format_args!("conntrack entries of protocol {protocol}, {family:?}"))
    }

    /// Deletes exactly this entry: same tuples, zone and identity.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete(&mut self, entry: &ConntrackEntry) -> Result<Deleted> {
        match self.socket.request(wire::DELETE, &wire::delete_request(entry)).during("delete conntrack entry", entry) {
            Ok(()) => Ok(Deleted::Yes),
            Err(error) if error.is_not_found() => Ok(Deleted::WasGone),
            Err(error) => Err(error),
        }
    }
}

impl ConntrackEntry {
    fn is_of(&self, family: Family, protocol: u8) -> bool {
        self.protocol == protocol && Family::of(self.original.source.ip()) == family
    }
}
