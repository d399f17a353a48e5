//! Notices that someone removed nftables objects. Reading and writing rules is the business of `nft`.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::libc;

use crate::{
    error::{During, Result},
    socket::retry_interrupted,
};

/// NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h): changes of tables, chains, rules and sets.
const GROUP: u32 = 7;

/// NFNL_SUBSYS_NFTABLES, the upper byte of the message type.
const SUBSYSTEM: u16 = 10;

/// NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN and NFT_MSG_DELRULE (linux/netfilter/nf_tables.h), the lower byte.
const REMOVALS: [u16; 3] = [2, 5, 8];

/// The same and NFT_MSG_NEWCHAIN, which also says that the policy of a chain changed.
const DISTURBANCES: [u16; 4] = [2, 3, 5, 8];

/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and NFTA_RULE_TABLE alike.
const TABLE_NAME: u16 = 1;

/// Sizes of `struct nlmsghdr`, `struct nfgenmsg` and `struct nlattr`; all parts are aligned to 4 bytes.
const HEADER: usize = 16;
const NFGEN: usize = 4;
const ATTRIBUTE: usize = 4;

const DATAGRAM_BYTES: usize = 64 * 1024;

/// Tells whether a table, or a chain or rule of it, was removed: by `nft flush ruleset`, by a firewall's reload, or by
/// ourselves, which it cannot tell apart.
#[derive(Debug)]
pub struct NftWatch {
    socket: Socket,
}

impl NftWatch {
    /// Subscribes, in the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The kernel has no nftables, or the socket cannot be made.
    pub fn open() -> Result<Self> {
        let subscribe = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(GROUP)?;
            Ok(socket)
        };
        subscribe().map(|socket| Self { socket }).during("subscribe to", "nftables notices")
    }

    /// Whether anything of `table` (a name, in whatever family) was removed since the last call. Does not block.
    /// True also when notices were lost.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn removed(&self, table: &str) -> Result<bool> {
        self.told(&REMOVALS, &[table])
    }

    /// As [`NftWatch::removed`], for any of `tables`, and also whether a chain of theirs was made or given a policy.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn disturbed(&self, tables: &[&str]) -> Result<bool> {
        self.told(&DISTURBANCES, tables)
    }

    /// Waits until a chain or rule of `tables` is removed, or one of them as a whole, or notices are lost.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn wait_removed(&self, tables: &[&str]) -> Result<()> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            match retry_interrupted(|| self.socket.recv_from(&mut datagram, 0)) {
                Ok(_) if messages(&datagram).any(|message| is_about(message, &REMOVALS, tables)) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error).during("read", "nftables notices"),
            }
        }
    }

    fn told(&self, kinds: &[u16], tables: &[&str]) -> Result<bool> {
        let mut told = false;
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            match retry_interrupted(|| self.socket.recv_from(&mut datagram, libc::MSG_DONTWAIT)) {
                Ok(_) => told |= messages(&datagram).any(|message| is_about(message, kinds, tables)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(told),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => told = true,
                Err(error) => return Err(error).during("read", "nftables notices"),
            }
        }
    }
}

/// Readable when there may be something new: for waiting in an event loop.
impl AsRawFd for NftWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The netlink messages of a datagram, with their headers; what follows a malformed one is left out.
fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.first_chunk().copied()?) as usize;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn is_about(message: &[u8], kinds: &[u16], tables: &[&str]) -> bool {
    let Some(kind) = message.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes) else {
        return false;
    };
    let is_of_kind = kind >> 8 == SUBSYSTEM && kinds.contains(&(kind & 0xff));
    let name = || table_name(message.get(HEADER + NFGEN..).unwrap_or_default());
    is_of_kind && name().is_some_and(|name| tables.iter().any(|table| table.as_bytes() == name))
}

/// The table's name among the attributes, without its final NUL.
fn table_name(attributes: &[u8]) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let (length, kind) = rest
            .first_chunk::<ATTRIBUTE>()
            .map(|[a, b, c, d]| (u16::from_ne_bytes([*a, *b]) as usize, u16::from_ne_bytes([*c, *d])))?;
        let value = rest.get(ATTRIBUTE..length)?;
        if kind == TABLE_NAME {
            return value.strip_suffix(&[0]).or(Some(value));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::{DISTURBANCES, REMOVALS, is_about, messages};

    /// DELTABLE of table "x", as `nft delete table inet x` makes the kernel say it.
    fn notice(kind: u8, name: &[u8]) -> Vec<u8> {
        let mut attribute = Vec::from((4 + name.len() as u16).to_ne_bytes());
        attribute.extend([1, 0]);
        attribute.extend(name);
        let length = 20 + attribute.len();
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        let mut message = Vec::from((length as u32).to_ne_bytes());
        message.extend([kind, 10, 0, 0]);
        message.extend([0; 12]);
        message.extend(attribute);
        message
    }

    #[test]
    fn removals_of_the_table_are_told_from_the_rest() {
        let datagram = [notice(0, b"x\0"), notice(2, b"other\0"), notice(2, b"x\0")].concat();
        let told: Vec<_> = messages(&datagram).map(|message| is_about(message, &REMOVALS, &["x"])).collect();
        assert_eq!(told, [false, false, true]);
        let policy = notice(3, b"x\0");
        assert!(!is_about(&policy, &REMOVALS, &["x"]) && is_about(&policy, &DISTURBANCES, &["y", "x"]));
    }

    #[test]
    fn cut_and_odd_notices_do_no_harm() {
        let whole = notice(2, b"x\0");
        let length = 20 + 4 + 2;
        for end in 0..length {
            for message in messages(&whole[..end]) {
                assert!(!is_about(message, &REMOVALS, &["x"]));
            }
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert!(!is_about(&[0xff; 24], &REMOVALS, &["x"]));
    }
}
