//! Do checksums that the kernel leaves to the hardware come out right (flannel issue 1279: `ping` works, TCP does not).
//!
//! Two datagrams go the same way to a closed port, whose kernel answers "port unreachable" if the checksum was right: one
//! from an ordinary socket, whose checksum is completed wherever the VXLAN device has it done, and one whose checksum was
//! computed here. If only the second is answered, checksums are spoilt on the way.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{ANSWER, ATTEMPTS, ProbeError, failed, is_timeout};

/// traceroute's first port: nobody listens there.
const PORT: u16 = 33_434;

/// What they carry. The lengths differ, so that one can be told from the other in a packet dump.
const ORDINARY: &[u8] = b"weft: checksum left to the device";
const COMPUTED: &[u8] = b"weft: checksum computed";

const UDP: u8 = 17;

/// What became of checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumVerdict {
    /// They are right.
    Right,
    /// Those left to the hardware are spoilt: `--vtep-checksum-offload=off` helps.
    Broken,
    /// Neither datagram was answered: the path is down, or a firewall is in it.
    NoAnswer,
}

/// Sends both datagrams to `target`, the address of a peer's VTEP. Takes two seconds when nobody answers.
///
/// # Errors
/// No raw socket (CAP_NET_RAW), or no route to `target`.
pub fn probe_checksums(target: IpAddr) -> Result<ChecksumVerdict, ProbeError> {
    let ordinary = open(target)?;
    let send = || ordinary.send(ORDINARY).map(drop);
    if is_refused(&ordinary, send).map_err(failed(target, "send a datagram"))? {
        return Ok(ChecksumVerdict::Right);
    }
    // Takes the answers to what the raw socket sends in its name.
    let listener = open(target)?;
    let raw = raw_socket(target).map_err(failed(target, "open a raw socket"))?;
    let own = listener.local_addr().map_err(failed(target, "read its own address"))?;
    let datagram = datagram(own, SocketAddr::new(target, PORT));
    let send = || raw.send(&datagram).map(drop);
    match is_refused(&listener, send).map_err(failed(target, "send a datagram of its own"))? {
        true => Ok(ChecksumVerdict::Broken),
        false => Ok(ChecksumVerdict::NoAnswer),
    }
}

fn open(target: IpAddr) -> Result<UdpSocket, ProbeError> {
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect((target, PORT))?;
        Ok(socket)
    };
    open().map_err(failed(target, "open a socket"))
}

fn raw_socket(target: IpAddr) -> io::Result<Socket> {
    let domain = if target.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))?;
    socket.connect(&SocketAddr::new(target, 0).into())?;
    Ok(socket)
}

/// Whether the peer answers `send` with "port unreachable", which a connected socket is told as a refusal.
fn is_refused(socket: &UdpSocket, send: impl Fn() -> io::Result<()>) -> io::Result<bool> {
    for _ in 0..ATTEMPTS {
        let answer = send().and_then(|()| socket.recv(&mut [0; 1]));
        match answer {
            // Somebody does listen there: it arrived all the same.
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) if is_timeout(&error) => {}
            // "No route to host" from a router on the way.
            Err(error) if error.kind() == io::ErrorKind::HostUnreachable => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A UDP datagram with its checksum (RFC 768).
fn datagram(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let length = u16::try_from(8 + COMPUTED.len()).unwrap_or(u16::MAX);
    let mut bytes = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    bytes.extend(COMPUTED);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // The sum over IPv4's and IPv6's pseudo headers is the same: the fields only have other widths.
    let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, UDP], length.to_be_bytes().to_vec()].concat();
    let sum = match internet_checksum(&[&pseudo, &bytes]) {
        // 0 would mean that there is none.
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// RFC 1071, over parts of which all but the last have an even length.
pub(super) fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_1071_and_768() {
        assert_eq!(internet_checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        let (from, to) = ("10.244.1.0:5000".parse().unwrap(), "10.244.2.0:33434".parse().unwrap());
        let bytes = datagram(from, to);
        // With the checksum in its place the sum over all is 0.
        let pseudo = [10, 244, 1, 0, 10, 244, 2, 0, 0, 17, 0, bytes.len() as u8];
        assert_eq!(internet_checksum(&[&pseudo, &bytes]), 0);
    }
}
