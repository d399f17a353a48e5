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

/// NFTA_CHAIN_NAME, NFTA_RULE_CHAIN and NFTA_CHAIN_HOOK.
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
const CHAIN_HOOK: u16 = 4;

/// NLA_TYPE_MASK (linux/netlink.h): the bits above say how the value is written.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// Sizes of `struct nlmsghdr`, `struct nfgenmsg` and `struct nlattr`; all parts are aligned to 4 bytes.
const HEADER: usize = 16;
const NFGEN: usize = 4;
const ATTRIBUTE: usize = 4;

const DATAGRAM_BYTES: usize = 64 * 1024;

/// A table that was removed; or a chain, or a rule of it, that was made, changed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NftChange<'a> {
    /// Name of the table, in whatever family.
    pub table: &'a str,
    /// Name of the chain; `None` if all of the table was removed.
    pub chain: Option<&'a str>,
    /// A base chain, which the kernel itself calls, was made or given a policy.
    pub is_base: bool,
}

impl<'a> NftChange<'a> {
    /// `None` for other messages, and for names that are no UTF-8.
    fn read(message: &'a [u8]) -> Option<Self> {
        let attributes = message.get(HEADER + NFGEN..)?;
        let name = |kind| attribute(attributes, kind).and_then(text);
        let (chain, is_base) = match kind(message)? {
            // NFT_MSG_DELTABLE; NFT_MSG_NEWCHAIN and DELCHAIN; NFT_MSG_NEWRULE and DELRULE (linux/netfilter/nf_tables.h).
            2 => (None, false),
            3 => (Some(name(CHAIN_NAME)?), attribute(attributes, CHAIN_HOOK).is_some()),
            5 => (Some(name(CHAIN_NAME)?), false),
            6 | 8 => (Some(name(RULE_CHAIN)?), false),
            _ => return None,
        };
        Some(Self { table: name(TABLE_NAME)?, chain, is_base })
    }
}

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
        self.told(|message| is_about(message, &REMOVALS, &[table]))
    }

    /// Whether something changed that `concerns` the caller since the last call. Does not block. True also when notices were
    /// lost.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn changed(&self, concerns: impl Fn(&NftChange<'_>) -> bool) -> Result<bool> {
        self.told(|message| NftChange::read(message).is_some_and(|change| concerns(&change)))
    }

    /// As [`NftWatch::removed`], for any of `tables`, and also whether a chain of theirs was made or given a policy.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn disturbed(&self, tables: &[&str]) -> Result<bool> {
        self.told(|message| is_about(message, &DISTURBANCES, tables))
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

    fn told(&self, is_news: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let mut told = false;
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            datagram.clear();
            match retry_interrupted(|| self.socket.recv_from(&mut datagram, libc::MSG_DONTWAIT)) {
                Ok(_) => told |= messages(&datagram).any(&is_news),
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

/// The lower byte of the type of an nftables message.
fn kind(message: &[u8]) -> Option<u16> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (kind >> 8 == SUBSYSTEM).then_some(kind & 0xff)
}

fn is_about(message: &[u8], kinds: &[u16], tables: &[&str]) -> bool {
    let name = || attribute(message.get(HEADER + NFGEN..)?, TABLE_NAME).and_then(text);
    kind(message).is_some_and(|kind| kinds.contains(&kind)) && name().is_some_and(|name| tables.contains(&name))
}

/// The value of the first attribute of that kind.
fn attribute(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let (length, kind) = rest
            .first_chunk::<ATTRIBUTE>()
            .map(|[a, b, c, d]| (u16::from_ne_bytes([*a, *b]) as usize, u16::from_ne_bytes([*c, *d])))?;
        let value = rest.get(ATTRIBUTE..length)?;
        if kind & ATTRIBUTE_TYPE == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// A name, without its final NUL.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::{DISTURBANCES, NftChange, REMOVALS, is_about, messages};

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
                assert!(!is_about(message, &REMOVALS, &["x"]) && NftChange::read(message).is_none());
            }
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert!(!is_about(&[0xff; 24], &REMOVALS, &["x"]) && NftChange::read(&[0xff; 24]).is_none());
    }
}
