//! One NETLINK_ROUTE socket: requests, acknowledgements, dumps. Knows nothing of links or routes.

use std::{
    io,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

use crate::error::{During, Failure, Result};

/// Room for one datagram. The kernel fills dumps up to 32 KiB and makes single answers no larger without VF lists.
pub(crate) const RECEIVE_BYTES: usize = 64 * 1024;

/// How often a dump that others disturb is started again before giving up.
const DUMP_ATTEMPTS: u32 = 20;

/// NLMSGERR_ATTR_MSG: the text of an extended acknowledgement (linux/netlink.h).
const EXTENDED_ACK_TEXT: u16 = 1;

/// A connection to rtnetlink in one network namespace.
///
/// `Send` and `Sync`; calls from several threads take turns.
#[derive(Debug)]
pub struct Netlink {
    connection: Mutex<Connection>,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Connects to rtnetlink of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The socket cannot be made: no memory, no file descriptors left.
    pub fn open() -> Result<Self> {
        let connect = || -> io::Result<Connection> {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Niceties of Linux >= 4.20: error texts, errors without a copy of the request, dumps filtered by the
            // kernel. Without them things work the same, only with less to say and more to read.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok(Connection { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
        };
        connect().map(|connection| Self { connection: Mutex::new(connection) }).during("open", "a route netlink socket")
    }

    /// How many requests were sent so far, modulo 2^32: what a caller's work costs, for those who measure it.
    pub fn requests(&self) -> u32 {
        self.connection().sequence
    }

    /// Sends one request and waits for its acknowledgement; returns what the kernel sent before that.
    pub(crate) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> std::result::Result<Vec<RouteNetlinkMessage>, Failure> {
        self.connection().exchange(&mut request(message, NLM_F_ACK | flags)).map(|answer| answer.messages)
    }

    /// Reads a whole table, again from the start if it changed meanwhile.
    pub(crate) fn dump(&self, message: RouteNetlinkMessage) -> std::result::Result<Vec<RouteNetlinkMessage>, Failure> {
        let mut connection = self.connection();
        // As bytes, not as a message to be cloned: the code to clone any message is 90 kB of weft-cni.
        let mut request = request(message, NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let answer = connection.exchange(&mut request)?;
            if !answer.interrupted {
                return Ok(answer.messages);
            }
        }
        Err(Failure::Unstable)
    }

    /// A panic of another caller leaves at worst unread answers, and those are told apart by sequence number.
    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where `nlmsg_seq` is in a request (struct nlmsghdr of linux/netlink.h).
const SEQUENCE: Range<usize> = 8..12;

/// A request in the form it is sent in, but for its sequence number.
fn request(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Connection {
    fn exchange(&mut self, request: &mut [u8]) -> std::result::Result<Answer, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        request[SEQUENCE].copy_from_slice(&self.sequence.to_ne_bytes());
        retry_interrupted(|| self.socket.send(request, 0))?;
        let mut answer = Answer { messages: Vec::new(), interrupted: false };
        while !self.receive(&mut answer)? {}
        Ok(answer)
    }

    /// Takes one datagram in; true when the answer is complete.
    fn receive(&mut self, answer: &mut Answer) -> std::result::Result<bool, Failure> {
        self.buffer.clear();
        // netlink_sys returns the true length with MSG_TRUNC.
        let (length, sender) = {
            let (socket, buffer) = (&self.socket, &mut self.buffer);
            retry_interrupted(|| socket.recv_from(buffer, libc::MSG_TRUNC))?
        };
        if length > self.buffer.len() {
            return Err(Failure::Unreadable(format!("an answer of {length} bytes, more than {}", self.buffer.len())));
        }
        // Only the kernel has port 0; other processes may send to our port.
        if sender.port_number() != 0 {
            return Ok(false);
        }
        for message in Messages(&self.buffer) {
            let message = message?;
            // Left over from a request that was given up.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            answer.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
                NetlinkPayload::Error(error) => return refusal(&error).map_or(Ok(true), Err),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(Failure::Kernel { errno: -done.code, explanation: explanation(&done.extended_ack) });
                }
                NetlinkPayload::Done(_) => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The error in an NLMSG_ERROR; `None` if it is an acknowledgement.
fn refusal(error: &ErrorMessage) -> Option<Failure> {
    let code = error.code?;
    // After the code: the header of our request (NETLINK_CAP_ACK leaves out the rest), then attributes.
    let attributes = error.header.get(16..).unwrap_or_default();
    Some(Failure::Kernel { errno: code.get().saturating_abs(), explanation: explanation(attributes) })
}

/// The kernel's own words, if they are among the attributes of an answer.
pub(crate) fn explanation(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .filter_map(std::result::Result::ok)
        .find(|attribute| attribute.kind() == EXTENDED_ACK_TEXT)
        .map(|attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned())
}

/// The messages in one datagram.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl Iterator for Messages<'_> {
    type Item = std::result::Result<NetlinkMessage<RouteNetlinkMessage>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(self.0) {
            // NLMSG_ALIGN: messages start at multiples of four.
            Ok(message) => (message.length() as usize).next_multiple_of(4).min(self.0.len()),
            Err(error) => {
                self.0 = &[];
                return Some(Err(error.into()));
            }
        };
        let (message, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(NetlinkMessage::deserialize(message).map_err(Failure::from))
    }
}

pub(crate) fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
