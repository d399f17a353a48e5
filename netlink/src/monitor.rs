//! Notices of changes others (and we) make.

use std::{io, ops::Range, os::fd::AsFd, sync::Arc};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        socket::{setsockopt, sockopt::RcvBufForce},
    },
};

use crate::{
    Address, FdbEntry, Link, Neighbour, Route,
    error::{During, Result},
    route,
    socket::{Messages, retry_interrupted},
};

/// Receive buffer: some 10,000 notices. When a daemon adds more routes than that at once, [`Event::Overrun`] says so.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Room for one datagram; a notice is one message.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// At most so many events are returned at once, so that a storm cannot keep a caller from acting.
const BATCH: usize = 4096;

/// A kind of change to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Interfaces.
    Link,
    /// IPv4 addresses.
    Ipv4Address,
    /// IPv6 addresses.
    Ipv6Address,
    /// IPv4 routes.
    Ipv4Route,
    /// IPv6 routes.
    Ipv6Route,
    /// Neighbours of both families, and FDB entries.
    Neighbour,
    /// IPv4 parameters of interfaces and of the whole network namespace.
    Ipv4Parameters,
    /// IPv6 parameters.
    Ipv6Parameters,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Link,
        Self::Ipv4Address,
        Self::Ipv6Address,
        Self::Ipv4Route,
        Self::Ipv6Route,
        Self::Neighbour,
        Self::Ipv4Parameters,
        Self::Ipv6Parameters,
    ];

    /// `RTNLGRP_*` of linux/rtnetlink.h.
    const fn number(self) -> u32 {
        match self {
            Self::Link => 1,
            Self::Neighbour => 3,
            Self::Ipv4Address => 5,
            Self::Ipv4Route => 7,
            Self::Ipv6Address => 9,
            Self::Ipv6Route => 11,
            Self::Ipv4Parameters => 24,
            Self::Ipv6Parameters => 25,
        }
    }
}

/// A change. `Changed` also means "is new", and the kernel may say it of things that are as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface as it is now.
    LinkChanged(Link),
    /// An interface that is gone.
    LinkRemoved(Link),
    /// An address as it is now.
    AddressChanged(Address),
    /// An address that is gone. (IPv4 addresses of a deleted interface are not always reported one by one.)
    AddressRemoved(Address),
    /// A route as it is now.
    RouteChanged(Route),
    /// A route that is gone. The kernel drops IPv4 routes with their interface *without* a notice.
    RouteRemoved(Route),
    /// A neighbour as it is now.
    NeighbourChanged(Neighbour),
    /// A neighbour that is gone.
    NeighbourRemoved(Neighbour),
    /// An FDB entry as it is now.
    FdbChanged(FdbEntry),
    /// An FDB entry that is gone.
    FdbRemoved(FdbEntry),
    /// Some kernel parameter: forwarding, reverse path filtering or proxying, of an interface or of all. The kernel reports
    /// no others.
    ParameterChanged,
    /// Changes were missed, or came in a form this crate cannot read: observe everything again.
    Overrun,
}

/// A subscription to changes in one network namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    stop: Arc<EventFd>,
}

/// Ends the waiting of its [`Monitor`] from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<EventFd>);

impl Stopper {
    /// Makes [`Monitor::wait`] return at once, now and ever after.
    pub fn stop(&self) {
        // Fails only when the counter is full, and then it is readable anyhow.
        let _ = self.0.write(1);
    }
}

impl Monitor {
    /// Subscribes, in the network namespace the calling thread is in now. Whatever happens after this returns is
    /// reported; so read the tables after it, not before.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(groups: &[Group]) -> Result<Self> {
        let subscribe = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            // Beyond net.core.rmem_max only with CAP_NET_ADMIN of the initial user namespace.
            if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
                let bytes: libc::c_int = 8 * 1024 * 1024;
                socket.set_rx_buf_sz(bytes)?;
            }
            for group in groups {
                socket.add_membership(group.number())?;
            }
            let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            Ok(Self { socket, stop: Arc::new(stop) })
        };
        subscribe().during("subscribe to", "netlink notices")
    }

    /// A handle to end the waiting with.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Blocks until something happens and returns it, in order. Empty only once [`Stopper::stop`] was called.
    ///
    /// # Errors
    /// The socket is broken. Lost notices are no error but [`Event::Overrun`].
    pub fn wait(&self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while events.is_empty() {
            if self.stopped_or_readable().during("wait for", "netlink notices")? {
                return Ok(Vec::new());
            }
            self.drain(&mut events).during("read", "netlink notices")?;
        }
        Ok(events)
    }

    /// True when stopped; false when there is something to read.
    fn stopped_or_readable(&self) -> io::Result<bool> {
        let mut waiting =
            [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN), PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        retry_interrupted(|| poll(&mut waiting, PollTimeout::NONE).map_err(io::Error::from))?;
        Ok(waiting[0].any().unwrap_or(true))
    }

    fn drain(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
        while events.len() < BATCH {
            match self.receive(&mut datagram)? {
                Received::Datagram => read_datagram(&datagram, events),
                Received::Nothing => break,
                Received::Overrun => {
                    // The kernel keeps dropping notices, without another word, until the buffer has been empty once.
                    // What is in it is old news to a caller that observes everything again.
                    while !matches!(self.receive(&mut datagram)?, Received::Nothing) {}
                    *events = vec![Event::Overrun];
                    break;
                }
            }
        }
        Ok(())
    }

    fn receive(&self, datagram: &mut Vec<u8>) -> io::Result<Received> {
        datagram.clear();
        let received = retry_interrupted(|| self.socket.recv_from(datagram, libc::MSG_DONTWAIT | libc::MSG_TRUNC));
        match received {
            // Only the kernel has port 0; other processes may send to our port.
            Ok((_, sender)) if sender.port_number() != 0 => {
                datagram.clear();
                Ok(Received::Datagram)
            }
            Ok((length, _)) if length > datagram.len() => Ok(Received::Overrun),
            Ok(_) => Ok(Received::Datagram),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(error),
        }
    }
}

enum Received {
    Datagram,
    Nothing,
    Overrun,
}

/// RTM_NEWNETCONF and RTM_DELNETCONF (linux/rtnetlink.h), which netlink-packet-route does not know.
const PARAMETER_NOTICES: [u16; 2] = [80, 81];

/// Where `nlmsg_type` is (struct nlmsghdr of linux/netlink.h).
const TYPE: Range<usize> = 4..6;

/// Such a notice is a datagram of its own. What it says is not read: the parameters that matter are.
fn is_about_parameters(datagram: &[u8]) -> bool {
    let kind = datagram.get(TYPE).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    kind.is_some_and(|kind| PARAMETER_NOTICES.contains(&kind))
}

fn read_datagram(datagram: &[u8], events: &mut Vec<Event>) {
    if is_about_parameters(datagram) {
        events.push(Event::ParameterChanged);
        return;
    }
    for message in Messages(datagram) {
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => read_message(message, events),
            Ok(NetlinkPayload::Overrun(_)) | Err(_) => events.push(Event::Overrun),
            Ok(_) => {}
        }
    }
}

fn read_message(message: RouteNetlinkMessage, events: &mut Vec<Event>) {
    match message {
        RouteNetlinkMessage::NewLink(m) => events.extend(Link::from_notice(m).map(Event::LinkChanged)),
        RouteNetlinkMessage::DelLink(m) => events.extend(Link::from_notice(m).map(Event::LinkRemoved)),
        RouteNetlinkMessage::NewAddress(m) => events.extend(Address::from_message(m).map(Event::AddressChanged)),
        RouteNetlinkMessage::DelAddress(m) => events.extend(Address::from_message(m).map(Event::AddressRemoved)),
        RouteNetlinkMessage::NewRoute(m) => events.extend(route::read(m).into_iter().map(Event::RouteChanged)),
        RouteNetlinkMessage::DelRoute(m) => events.extend(route::read(m).into_iter().map(Event::RouteRemoved)),
        RouteNetlinkMessage::NewNeighbour(m) => {
            events.extend(Neighbour::from_message(&m).map(Event::NeighbourChanged));
            events.extend(FdbEntry::from_message(&m).map(Event::FdbChanged));
        }
        RouteNetlinkMessage::DelNeighbour(m) => {
            events.extend(Neighbour::from_message(&m).map(Event::NeighbourRemoved));
            events.extend(FdbEntry::from_message(&m).map(Event::FdbRemoved));
        }
        _ => {}
    }
}
