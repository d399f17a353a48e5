//! A netlink socket for protocols whose messages this crate reads by itself: requests, and dumps that are not held.
//!
//! Beside [`crate::Netlink`] because that one collects whole tables of rtnetlink messages: a table of connections
//! may have hundreds of thousands of rows, each of which is looked at once.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

use crate::{
    error::Failure,
    socket::{RECEIVE_BYTES, explanation, retry_interrupted},
};

/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// Message types that every protocol has (linux/netlink.h); the others start at 16.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 16;

/// Whether a listing saw everything there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All that was there from begin to end.
    Complete,
    /// The table changed while it was read, so that something may have been missed. What was seen was there.
    Partial,
}

/// One socket, for one exchange at a time.
#[derive(Debug)]
pub(crate) struct RawSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RawSocket {
    /// Connects to the kernel's side of a netlink protocol, in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Niceties, as for rtnetlink: error texts, and errors without a copy of the request.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&mut self, kind: u16, payload: &[u8]) -> Result<(), Failure> {
        self.exchange(kind, NLM_F_ACK, payload, |_| ()).map(drop)
    }

    /// Sends one request, hands the answers to `each`, and waits for the acknowledgement.
    pub(crate) fn ask(&mut self, kind: u16, payload: &[u8], each: impl FnMut(&[u8])) -> Result<(), Failure> {
        self.exchange(kind, NLM_F_ACK, payload, each).map(drop)
    }

    /// Hands every answer to `each`, in the kernel's order. The table is not locked meanwhile.
    pub(crate) fn dump(&mut self, kind: u16, payload: &[u8], each: impl FnMut(&[u8])) -> Result<Listing, Failure> {
        self.exchange(kind, NLM_F_DUMP, payload, each)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<Listing, Failure> {
        self.send(kind, flags, payload)?;
        let mut listing = Listing::Complete;
        loop {
            self.buffer.clear();
            // netlink_sys returns the true length with MSG_TRUNC.
            let (length, sender) = {
                let (socket, buffer) = (&self.socket, &mut self.buffer);
                retry_interrupted(|| socket.recv_from(buffer, libc::MSG_TRUNC))?
            };
            if length > self.buffer.len() {
                let reason = format!("an answer of {length} bytes, more than {}", self.buffer.len());
                return Err(Failure::Unreadable(reason));
            }
            // Only the kernel has port 0; other processes may send to our port.
            if sender.port_number() != 0 {
                continue;
            }
            let read = read_datagram(&self.buffer, self.sequence, &mut each)?;
            if read.interrupted {
                listing = Listing::Partial;
            }
            if read.finished {
                return Ok(listing);
            }
        }
    }

    /// Sends ready-made messages, numbered from 1, of which the one numbered `last` asks for an acknowledgement, and waits for
    /// the verdict: the number and error of the first message the kernel refused, if any.
    ///
    /// An error of message 1 concerns all of them, and nothing may come after it.
    pub(crate) fn batch(&mut self, messages: &[u8], last: u32) -> Result<Option<(u32, i32)>, Failure> {
        // All in one system call, and so in one buffer of the kernel.
        setsockopt(&self.socket, sockopt::SndBufForce, &(messages.len() + RECEIVE_BYTES))?;
        retry_interrupted(|| self.socket.send(messages, 0))?;
        let mut refused = None;
        loop {
            self.buffer.clear();
            let (socket, buffer) = (&self.socket, &mut self.buffer);
            retry_interrupted(|| socket.recv_from(buffer, 0))?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)?;
                rest = &rest[(message.length() as usize).next_multiple_of(4).min(rest.len())..];
                if message.message_type() != NLMSG_ERROR {
                    continue;
                }
                let number = message.sequence_number();
                let (errno, _) = errno(message.payload())?;
                if errno != 0 && refused.is_none() {
                    refused = Some((number, errno));
                }
                if number == last || number == 1 {
                    return Ok(refused);
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + payload.len()).expect("requests are short");
        self.buffer.clear();
        self.buffer.extend(length.to_ne_bytes());
        self.buffer.extend(kind.to_ne_bytes());
        self.buffer.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.buffer.extend(self.sequence.to_ne_bytes());
        self.buffer.extend(0_u32.to_ne_bytes());
        self.buffer.extend(payload);
        retry_interrupted(|| self.socket.send(&self.buffer, 0)).map(drop)
    }
}

/// What a datagram told about the exchange it belongs to.
#[derive(Debug, Default)]
pub(crate) struct Read {
    finished: bool,
    interrupted: bool,
}

/// Hands the payloads of one datagram to `each`. Pure, as anything may be in there.
pub(crate) fn read_datagram(mut bytes: &[u8], sequence: u32, mut each: impl FnMut(&[u8])) -> Result<Read, Failure> {
    let mut read = Read::default();
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes)?;
        // NLMSG_ALIGN: messages start at multiples of four.
        bytes = &bytes[(message.length() as usize).next_multiple_of(4).min(bytes.len())..];
        // Left over from a request that was given up.
        if message.sequence_number() != sequence {
            continue;
        }
        read.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            NLMSG_DONE | NLMSG_ERROR => {
                let (errno, rest) = errno(message.payload())?;
                // The code in an error is followed by the header of our request; then, as in the other, attributes.
                let echo = if message.message_type() == NLMSG_ERROR { HEADER_BYTES } else { 0 };
                return match errno {
                    0 => Ok(Read { finished: true, ..read }),
                    // A dump that was cut short.
                    libc::EINTR => Ok(Read { finished: true, interrupted: true }),
                    errno => {
                        Err(Failure::Kernel { errno, explanation: explanation(rest.get(echo..).unwrap_or_default()) })
                    }
                };
            }
            NLMSG_MIN_TYPE.. => each(message.payload()),
            _ => {}
        }
    }
    Ok(read)
}

/// The error number, positive, and what follows it.
fn errno(payload: &[u8]) -> Result<(i32, &[u8]), Failure> {
    let (code, rest) =
        payload.split_first_chunk().ok_or_else(|| Failure::Unreadable("a verdict without a code".to_owned()))?;
    Ok((i32::from_ne_bytes(*code).saturating_abs(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut out = length.to_ne_bytes().to_vec();
        out.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        out.extend([sequence.to_ne_bytes(), [0; 4]].concat());
        out.extend(payload);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn read(datagram: &[u8]) -> (Vec<Vec<u8>>, Result<Read, Failure>) {
        let mut rows = Vec::new();
        let read = read_datagram(datagram, 1, |row| rows.push(row.to_vec()));
        (rows, read)
    }

    #[test]
    fn a_dump_that_was_cut_short_is_partial_and_no_error() {
        let code = (-libc::EINTR).to_ne_bytes();
        let (rows, read) = read(&[message(256, 0, 1, b"row"), message(NLMSG_DONE, 0, 1, &code)].concat());
        assert_eq!(rows, [b"row"]);
        assert!(matches!(read, Ok(Read { finished: true, interrupted: true })), "{read:?}");
    }

    #[test]
    fn a_dump_during_which_the_table_changed_is_partial() {
        let (rows, read) = read(&message(256, NLM_F_DUMP_INTR, 1, b"row"));
        assert_eq!(rows.len(), 1);
        assert!(matches!(read, Ok(Read { finished: false, interrupted: true })), "{read:?}");
    }

    #[test]
    fn answers_to_another_request_are_passed_over() {
        let error = (-libc::EPERM).to_ne_bytes();
        let (rows, read) = read(&[message(256, 0, 9, b"row"), message(NLMSG_ERROR, 0, 9, &error)].concat());
        assert!(rows.is_empty());
        assert!(matches!(read, Ok(Read { finished: false, interrupted: false })), "{read:?}");
    }

    #[test]
    fn verdicts() {
        let verdict = |code: i32| read(&message(NLMSG_ERROR, 0, 1, &code.to_ne_bytes())).1;
        assert!(matches!(verdict(0), Ok(Read { finished: true, .. })));
        assert!(matches!(verdict(-libc::EPERM), Err(Failure::Kernel { errno: libc::EPERM, explanation: None })));
        assert!(matches!(verdict(i32::MIN), Err(Failure::Kernel { .. })));
        assert!(matches!(read(&message(NLMSG_ERROR, 0, 1, &[])).1, Err(Failure::Unreadable(_))));
    }
}
