//! Netlink attributes, as far as rows are read and requests written by hand: type, length, value, padded to four bytes.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK, NlasIterator};

/// `struct nlattr`.
const HEADER_BYTES: usize = 4;

/// Attributes of one level: kind without flags, and value. Ends at the first one that is malformed.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let length = usize::from(attribute.length());
        let value = attribute.into_inner().get(HEADER_BYTES..length).unwrap_or_default();
        (attribute.kind() & NLA_TYPE_MASK, value)
    })
}

/// Appends one attribute.
pub(crate) fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(HEADER_BYTES + value.len()).expect("attributes of requests are short");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends one attribute that holds others.
pub(crate) fn push_nested(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    fill(&mut value);
    push(out, kind | NLA_F_NESTED, &value);
}
