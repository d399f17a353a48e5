//! Does a packet of that size arrive unfragmented: ICMP echo requests with the "don't fragment" bit, also beyond what the
//! kernel believes of the path (ip(7), IP_PMTUDISC_PROBE).

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use super::{ANSWER, ATTEMPTS, ProbeError, failed, is_timeout};

/// IP header without options, and ICMP header, in bytes.
const HEADER_V4: u32 = 20;
const HEADER_V6: u32 = 40;
const ICMP_HEADER: usize = 8;

/// What every path of the family must carry: 576 (RFC 1122, 3.3.3), 1280 (RFC 8200, section 5).
const LEAST_V4: u32 = 576;
const LEAST_V6: u32 = 1280;

/// Of each size while the largest is looked for, on a path that is known to answer.
const SEARCH_ATTEMPTS: usize = 2;

/// Room for any packet that can come in answer.
const LARGEST: usize = 65_536;

/// Least time to wait on a socket. SO_RCVTIMEO counts microseconds, and 0 means for ever.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// What became of packets of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuVerdict {
    /// They arrive.
    Passes,
    /// Only smaller ones do.
    Smaller {
        /// The largest that arrives, with IP header, in bytes.
        largest: u32,
    },
    /// Not even small ones are answered: the path is down, or the peer does not answer ICMP.
    NoAnswer,
}

/// Asks for the echo of packets of `packet` bytes (with IP header), and if there is none looks for the largest that has one.
/// Takes a second and a half when nobody answers, some seconds when the size has to be looked for.
///
/// # Errors
/// No raw socket (CAP_NET_RAW), or no route to `target`.
pub fn probe_mtu(target: IpAddr, packet: u32) -> Result<MtuVerdict, ProbeError> {
    let mut echo = Echo::open(target)?;
    if echo.arrives(packet, ATTEMPTS)? {
        return Ok(MtuVerdict::Passes);
    }
    let mut passes = if target.is_ipv4() { LEAST_V4 } else { LEAST_V6 };
    if packet <= passes || !echo.arrives(passes, ATTEMPTS)? {
        return Ok(MtuVerdict::NoAnswer);
    }
    let mut fails = packet;
    while fails - passes > 1 {
        let middle = passes + (fails - passes) / 2;
        if echo.arrives(middle, SEARCH_ATTEMPTS)? { passes = middle } else { fails = middle }
    }
    Ok(MtuVerdict::Smaller { largest: passes })
}

struct Echo {
    target: IpAddr,
    socket: Socket,
    identifier: u16,
    sequence: u16,
}

impl Echo {
    fn open(target: IpAddr) -> Result<Self, ProbeError> {
        let open = || -> io::Result<Socket> {
            let (domain, protocol) = match target {
                IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
                IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
            };
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            match target {
                IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
                IpAddr::V6(_) => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
            }
            socket.connect(&SocketAddr::new(target, 0).into())?;
            Ok(socket)
        };
        let socket = open().map_err(failed(target, "open a raw socket"))?;
        Ok(Self { target, socket, identifier: fastrand::u16(..), sequence: 0 })
    }

    /// Whether a packet of that size is answered by one of that size.
    fn arrives(&mut self, packet: u32, attempts: usize) -> Result<bool, ProbeError> {
        for _ in 0..attempts {
            self.sequence = self.sequence.wrapping_add(1);
            let request = self.request(packet);
            match self.socket.send(&request) {
                Ok(_) => {}
                // A link on this node, or a router that has told, is smaller.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                    return Ok(false);
                }
                Err(error) => return Err(failed(self.target, "send an echo request")(error)),
            }
            if self.is_answered(request.len()).map_err(failed(self.target, "wait for an echo"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn request(&self, packet: u32) -> Vec<u8> {
        let header = if self.target.is_ipv4() { HEADER_V4 } else { HEADER_V6 };
        let mut request = vec![0; (packet.saturating_sub(header) as usize).max(ICMP_HEADER)];
        // Echo request (RFC 792; RFC 4443, 4.1).
        request[0] = if self.target.is_ipv4() { 8 } else { 128 };
        request[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        request[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        // The kernel does it for ICMPv6.
        if self.target.is_ipv4() {
            let sum = super::checksum::internet_checksum(&[&request]);
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        request
    }

    /// Waits for the reply to the last request. The socket is given all ICMP of the peer.
    fn is_answered(&mut self, length: usize) -> io::Result<bool> {
        let end = Instant::now() + ANSWER;
        let mut buffer = vec![0; LARGEST];
        while let Some(wait) = wait_until(end, Instant::now()) {
            self.socket.set_read_timeout(Some(wait))?;
            match (&self.socket).read(&mut buffer) {
                Ok(read) if self.is_reply(&buffer[..read], length) => return Ok(true),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                // "Fragmentation needed" and the like, of this very path: the next send tells.
                Err(error) if error.raw_os_error().is_some() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn is_reply(&self, datagram: &[u8], length: usize) -> bool {
        // IPv4 raw sockets are given the IP header; its length is in 32-bit words.
        let skipped = match self.target {
            IpAddr::V4(_) => datagram.first().map_or(0, |first| usize::from(first & 0x0f) * 4),
            IpAddr::V6(_) => 0,
        };
        let Some(reply) = datagram.get(skipped..) else { return false };
        let kind = if self.target.is_ipv4() { 0 } else { 129 };
        reply.len() == length
            && reply.first() == Some(&kind)
            && reply.get(4..6) == Some(&self.identifier.to_be_bytes())
            && reply.get(6..8) == Some(&self.sequence.to_be_bytes())
    }
}

/// How long to wait on a socket for what must come before `end`; `None` when that has passed.
fn wait_until(end: Instant, now: Instant) -> Option<Duration> {
    let left = end.saturating_duration_since(now);
    (!left.is_zero()).then(|| left.max(LEAST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_is_short_and_not_for_ever() {
        let now = Instant::now();
        assert_eq!(wait_until(now + ANSWER, now), Some(ANSWER));
        assert_eq!(wait_until(now + Duration::from_nanos(1), now), Some(LEAST_WAIT));
        assert_eq!((wait_until(now, now), wait_until(now, now + ANSWER)), (None, None));
        // What the socket makes of it.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_read_timeout(wait_until(now + Duration::from_nanos(1), now)).unwrap();
        assert!(socket.read_timeout().unwrap().is_some_and(|wait| !wait.is_zero()));
    }
}
