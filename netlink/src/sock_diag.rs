//! UDP sockets of other processes: which are connected to whom, and closing them.
//!
//! A socket that was connected to an address which is gone keeps sending there. The kernel lets an administrator
//! undo the connection (SOCK_DESTROY): the owner's next call then fails, and it can connect anew.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::libc;

use crate::{
    Family, Listing,
    error::{During, Failure, Result},
    raw::RawSocket,
};

/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Bit of TCP_ESTABLISHED, which is what a connected UDP socket counts as.
const CONNECTED: u32 = 1 << 1;

/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID_BYTES: usize = 48;
/// `struct inet_diag_msg`: family, state, timer and retransmits come before the id.
const ID_OFFSET: usize = 4;

/// A UDP socket that has a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectedUdp {
    /// Where it sends to, as an IPv4 address also for an IPv6 socket with a v4-mapped peer.
    pub peer: SocketAddr,
    /// Its own address, likewise.
    pub local: SocketAddr,
    /// Family of the socket, which with mapped addresses is not that of the peer.
    family: Family,
    /// As the kernel wrote it, for it alone to read.
    id: [u8; ID_BYTES],
}

impl fmt::Display for ConnectedUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UDP socket {} connected to {}", self.local, self.peer)
    }
}

/// A connection to sock_diag of one network namespace.
#[derive(Debug)]
pub struct SockDiag {
    socket: RawSocket,
}

impl SockDiag {
    /// Connects to sock_diag of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The socket cannot be made, or the kernel has no sock_diag.
    pub fn open() -> Result<Self> {
        let socket = RawSocket::open(NETLINK_SOCK_DIAG).during("open", "a sock_diag netlink socket")?;
        Ok(Self { socket })
    }

    /// Hands every connected UDP socket of the namespace, of both families, to `each`.
    ///
    /// # Errors
    /// [`is_unsupported`](crate::Error::is_unsupported): the kernel has no CONFIG_INET_UDP_DIAG.
    pub fn for_each_connected_udp(&mut self, mut each: impl FnMut(&ConnectedUdp)) -> Result<Listing> {
        let mut listing = Listing::Complete;
        for family in [Family::V4, Family::V6] {
            let mut sink = |row: &[u8]| {
                if let Some(socket) = ConnectedUdp::read(row) {
                    each(&socket);
                }
            };
            let one = self
                .socket
                .dump(SOCK_DIAG_BY_FAMILY, &request(family, CONNECTED, &[0; ID_BYTES]), &mut sink)
                .map_err(without_handler)
                .during("list", format_args!("connected UDP sockets, {family:?}"))?;
            if one == Listing::Partial {
                listing = Listing::Partial;
            }
        }
        Ok(listing)
    }

    /// Takes the peer away from a socket. Its owner gets ECONNABORTED once, at the next read or poll; and EDESTADDRREQ at
    /// every send until it connects again. A socket that is gone already is fine.
    ///
    /// # Errors
    /// [`is_unsupported`](crate::Error::is_unsupported): the kernel has no CONFIG_INET_DIAG_DESTROY;
    /// [`is_permission_denied`](crate::Error::is_permission_denied): CAP_NET_ADMIN is missing in the owner's namespace.
    pub fn destroy(&mut self, socket: &ConnectedUdp) -> Result<()> {
        match self.socket.request(SOCK_DESTROY, &request(socket.family, CONNECTED, &socket.id)).during("close", socket)
        {
            // The cookie is part of the id, so a socket that took its place is left alone.
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}

/// sock_diag says ENOENT for a protocol it has no handler of.
fn without_handler(failure: Failure) -> Failure {
    match failure {
        Failure::Kernel { errno: libc::ENOENT, .. } => {
            let explanation = Some("the kernel has no CONFIG_INET_UDP_DIAG".to_owned());
            Failure::Kernel { errno: libc::EOPNOTSUPP, explanation }
        }
        other => other,
    }
}

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states in host order, id.
fn request(family: Family, states: u32, id: &[u8; ID_BYTES]) -> Vec<u8> {
    const UDP: u8 = 17;
    let mut out = vec![u8::from(family.number()), UDP, 0, 0];
    out.extend(states.to_ne_bytes());
    out.extend(id);
    out
}

impl ConnectedUdp {
    /// One row of a dump; `None` if it is none.
    fn read(row: &[u8]) -> Option<Self> {
        let family = match i32::from(*row.first()?) {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return None,
        };
        let id: [u8; ID_BYTES] = row.get(ID_OFFSET..)?.first_chunk().copied()?;
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        // Two fields of sixteen bytes; an IPv4 address has the first four.
        let address = |at: usize| -> Option<IpAddr> {
            Some(match family {
                Family::V4 => IpAddr::from(*id.get(at..)?.first_chunk::<4>()?),
                Family::V6 => IpAddr::from(*id.get(at..)?.first_chunk::<16>()?).to_canonical(),
            })
        };
        let local = SocketAddr::new(address(4)?, port(0));
        let peer = SocketAddr::new(address(20)?, port(2));
        Some(Self { peer, local, family, id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(family in prop_oneof![Just(2_u8), Just(10), any::<u8>()], bytes in vec(any::<u8>(), 0..80)) {
            let row = [&[family], bytes.as_slice()].concat();
            prop_assert_eq!(ConnectedUdp::read(&row).is_some(), row.len() >= 52 && matches!(family, 2 | 10));
        }
    }

    #[test]
    fn a_kernel_without_udp_diag_is_told_from_other_errors() {
        let kernel = |errno| Failure::Kernel { errno, explanation: None };
        let of = |errno| Err::<(), _>(without_handler(kernel(errno))).during("list", "sockets").unwrap_err();
        assert!(of(libc::ENOENT).is_unsupported());
        assert!(of(libc::EPERM).is_permission_denied());
    }
}
