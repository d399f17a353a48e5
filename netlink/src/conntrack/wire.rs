//! Rows and requests of nfnetlink_conntrack (linux/netfilter/nfnetlink_conntrack.h). Numbers are big-endian there.

use std::net::{IpAddr, SocketAddr};

use super::{ConntrackEntry, ConntrackTuple};
use crate::{
    Family,
    attributes::{attributes, push, push_nested},
    types::address_from_bytes,
};

/// NFNL_SUBSYS_CTNETLINK, in the high byte of a message type.
const SUBSYSTEM: u16 = 1 << 8;
/// IPCTNL_MSG_CT_GET.
pub(super) const GET: u16 = SUBSYSTEM | 1;
/// IPCTNL_MSG_CT_DELETE.
pub(super) const DELETE: u16 = SUBSYSTEM | 2;

/// `struct nfgenmsg`, before the attributes.
const HEADER_BYTES: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Compare the protocol only. Of net/netfilter/nf_internals.h: not exported, yet what user space sends since 5.8.
const FILTER_PROTOCOL: u32 = 1 << 3;

/// A dump request. Kernels before 5.8 pass over the filter, as they do over every attribute they do not know.
pub(super) fn list_request(family: Family, protocol: u8) -> Vec<u8> {
    let mut out = header(family);
    push_nested(&mut out, CTA_TUPLE_ORIG, |tuple| {
        push_nested(tuple, CTA_TUPLE_PROTO, |proto| push(proto, CTA_PROTO_NUM, &[protocol]));
    });
    // Flags are in host order, unlike all else.
    push_nested(&mut out, CTA_FILTER, |filter| {
        push(filter, CTA_FILTER_ORIG_FLAGS, &FILTER_PROTOCOL.to_ne_bytes());
        push(filter, CTA_FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes());
    });
    out
}

/// A delete request. It always has a tuple: without one the kernel would flush the whole table.
pub(super) fn delete_request(entry: &ConntrackEntry) -> Vec<u8> {
    let mut out = header(Family::of(entry.original.source.ip()));
    push_nested(&mut out, CTA_TUPLE_ORIG, |out| push_tuple(out, entry.protocol, &entry.original));
    if entry.zone != 0 {
        push(&mut out, CTA_ZONE, &entry.zone.to_be_bytes());
    }
    // The kernel finds an entry by one tuple; the identity stands for all the rest of it.
    if let Some(id) = entry.id {
        push(&mut out, CTA_ID, &id.to_be_bytes());
    }
    out
}

/// Family, version 0, no resource.
fn header(family: Family) -> Vec<u8> {
    vec![u8::from(family.number()), 0, 0, 0]
}

fn push_tuple(out: &mut Vec<u8>, protocol: u8, tuple: &ConntrackTuple) {
    let ConntrackTuple { source, destination } = tuple;
    push_nested(out, CTA_TUPLE_IP, |out| {
        for (address, v4, v6) in [(source, CTA_IP_V4_SRC, CTA_IP_V6_SRC), (destination, CTA_IP_V4_DST, CTA_IP_V6_DST)] {
            match address.ip() {
                IpAddr::V4(ip) => push(out, v4, &ip.octets()),
                IpAddr::V6(ip) => push(out, v6, &ip.octets()),
            }
        }
    });
    push_nested(out, CTA_TUPLE_PROTO, |out| {
        push(out, CTA_PROTO_NUM, &[protocol]);
        push(out, CTA_PROTO_SRC_PORT, &source.port().to_be_bytes());
        push(out, CTA_PROTO_DST_PORT, &destination.port().to_be_bytes());
    });
}

/// One row of a dump; `None` if it has no ports, or is not a row at all.
pub(crate) fn entry(row: &[u8]) -> Option<ConntrackEntry> {
    let (mut original, mut reply) = (Tuple::default(), Tuple::default());
    let (mut zone, mut status, mut id) = (None, 0, None);
    for (kind, value) in attributes(row.get(HEADER_BYTES..)?) {
        match kind {
            CTA_TUPLE_ORIG => original = Tuple::read(value),
            CTA_TUPLE_REPLY => reply = Tuple::read(value),
            CTA_STATUS => status = u32::from_be_bytes(value.try_into().ok()?),
            CTA_ID => id = Some(u32::from_be_bytes(value.try_into().ok()?)),
            CTA_ZONE => zone = Some(u16::from_be_bytes(value.try_into().ok()?)),
            _ => {}
        }
    }
    Some(ConntrackEntry {
        protocol: original.protocol?,
        // A zone of one direction only comes with its tuple.
        zone: zone.or(original.zone).unwrap_or(0),
        original: original.checked()?,
        reply: reply.checked()?,
        status,
        id,
    })
}

#[derive(Default)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    zone: Option<u16>,
}

impl Tuple {
    fn read(bytes: &[u8]) -> Self {
        let port = |value: &[u8]| value.try_into().ok().map(u16::from_be_bytes);
        let mut tuple = Self::default();
        for (kind, value) in attributes(bytes) {
            match kind {
                CTA_TUPLE_IP => tuple.read_addresses(value),
                CTA_TUPLE_PROTO => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            CTA_PROTO_NUM => tuple.protocol = value.first().copied(),
                            CTA_PROTO_SRC_PORT => tuple.source_port = port(value),
                            CTA_PROTO_DST_PORT => tuple.destination_port = port(value),
                            _ => {}
                        }
                    }
                }
                CTA_TUPLE_ZONE => tuple.zone = port(value),
                _ => {}
            }
        }
        tuple
    }

    fn read_addresses(&mut self, bytes: &[u8]) {
        for (kind, value) in attributes(bytes) {
            match kind {
                CTA_IP_V4_SRC | CTA_IP_V6_SRC => self.source = address_from_bytes(value),
                CTA_IP_V4_DST | CTA_IP_V6_DST => self.destination = address_from_bytes(value),
                _ => {}
            }
        }
    }

    fn checked(&self) -> Option<ConntrackTuple> {
        Some(ConntrackTuple {
            source: SocketAddr::new(self.source?, self.source_port?),
            destination: SocketAddr::new(self.destination?, self.destination_port?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::raw::read_datagram;

    fn sample() -> ConntrackEntry {
        let at = |text: &str| text.parse().unwrap();
        ConntrackEntry {
            protocol: 17,
            original: ConntrackTuple { source: at("10.1.0.9:4000"), destination: at("10.96.0.10:53") },
            reply: ConntrackTuple { source: at("10.1.0.2:5353"), destination: at("10.1.0.9:4000") },
            zone: 7,
            status: 0x188,
            id: Some(0xdead_beef),
        }
    }

    /// As the kernel writes a row.
    fn row(entry: &ConntrackEntry) -> Vec<u8> {
        let mut out = delete_request(entry);
        push_nested(&mut out, CTA_TUPLE_REPLY, |out| push_tuple(out, entry.protocol, &entry.reply));
        push(&mut out, CTA_STATUS, &entry.status.to_be_bytes());
        out
    }

    #[test]
    fn rows_are_read_as_written() {
        assert_eq!(entry(&row(&sample())), Some(sample()));
        let at = |text: &str| text.parse().unwrap();
        let mut v6 = sample();
        v6.original = ConntrackTuple { source: at("[fd00::9]:4000"), destination: at("[fd96::10]:53") };
        v6.reply = ConntrackTuple { source: at("[fd00::2]:5353"), destination: at("[fd00::9]:4000") };
        (v6.zone, v6.id) = (0, None);
        assert_eq!(entry(&row(&v6)), Some(v6));
    }

    #[test]
    fn what_has_no_ports_is_no_entry() {
        assert_eq!(entry(&[]), None);
        assert_eq!(entry(&header(Family::V4)), None);
        // A ping: type, code and identifier where ports would be.
        let mut ping = header(Family::V4);
        push_nested(&mut ping, CTA_TUPLE_ORIG, |out| {
            push_nested(out, CTA_TUPLE_PROTO, |out| push(out, CTA_PROTO_NUM, &[1]));
        });
        assert_eq!(entry(&ping), None);
    }

    #[test]
    fn every_deletion_names_a_tuple() {
        let request = delete_request(&ConntrackEntry { id: None, zone: 0, ..sample() });
        let kinds: Vec<_> = attributes(&request[HEADER_BYTES..]).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [CTA_TUPLE_ORIG]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..400)) {
            let _ = entry(&bytes);
            let _ = read_datagram(&bytes, 0, |row| {
                let _ = entry(row);
            });
        }

        #[test]
        fn damaged_rows_do_not_panic(at in 0..200_usize, value: u8, cut in 0..200_usize) {
            let mut bytes = row(&sample());
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = entry(&bytes);
            let mut datagram = Vec::new();
            datagram.extend(u32::try_from(16 + bytes.len()).unwrap().to_ne_bytes());
            datagram.extend([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            datagram.extend(&bytes);
            let _ = read_datagram(&datagram, 0, |row| {
                let _ = entry(row);
            });
        }
    }
}
