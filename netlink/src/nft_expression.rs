//! Expressions, the instructions rules are made of, as the kernel's messages hold them (linux/netfilter/nf_tables.h).
//!
//! Only what rules of programs need that cannot run `nft`; whoever can, writes rules as text.

use crate::{
    attributes::{push, push_nested},
    nft_element::name,
};

/// NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and _CHAIN.
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const CODE: u16 = 1;
const CHAIN: u16 = 2;

/// NFT_REG32_00, the first of the 4-byte registers; and NFT_REG_VERDICT.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

/// NF_NAT_RANGE_PROTO_SPECIFIED and NF_NAT_RANGE_PROTO_RANDOM_FULLY (linux/netfilter/nf_nat.h).
const PORTS_GIVEN_AND_RANDOM: u32 = 0x12;

/// One instruction. Registers are numbered from 0 and hold 4 bytes each; longer values take several, shorter ones are padded
/// with zeros. An instruction that finds nothing ends the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftExpression {
    /// Loads a property of the packet, 1 byte: `meta nfproto`.
    FamilyOfPacket(u32),
    /// Loads 1 byte: `meta l4proto`.
    Protocol(u32),
    /// Loads 16 bytes: `meta iifname`.
    InputName(u32),
    /// Loads bytes of the network header: register, offset, length.
    NetworkHeader(u32, u32, u32),
    /// Loads bytes of the transport header: register, offset, length.
    TransportHeader(u32, u32, u32),
    /// Loads 4 bytes in host order: `ct status`.
    ConnectionStatus(u32),
    /// Loads 4 bytes in host order, an RTN_ number: `fib daddr type`.
    DestinationType(u32),
    /// Ands a register of 4 bytes with a mask.
    Mask(u32, [u8; 4]),
    /// Goes on if the bytes from a register on are equal to these.
    Equal(u32, Vec<u8>),
    /// Goes on if the bytes from a register on are not equal to these.
    Unequal(u32, Vec<u8>),
    /// Goes on if the key that starts in a register is an element of a set.
    In(u32, &'static str),
    /// Looks up the key that starts in a register in a map, and puts the data over it.
    MapTo(u32, &'static str),
    /// Loads a constant.
    Load(u32, Vec<u8>),
    /// `dnat ip to`: registers of address and port.
    DnatV4(u32, u32),
    /// `dnat ip6 to`.
    DnatV6(u32, u32),
    /// `masquerade to :MIN-MAX fully-random`: registers of both ports.
    Masquerade(u32, u32),
    /// Ends the rule with NF_ACCEPT.
    Accept,
    /// Ends the rule with NF_DROP.
    Drop,
    /// Ends the chain.
    Return,
    /// Goes on in another chain, not to come back.
    Goto(&'static str),
}

impl NftExpression {
    /// Appends the expression as one of a list.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_nested(out, LIST_ELEMENT, |out| {
            push(out, NAME, &name(self.kind()));
            push_nested(out, DATA, |out| self.encode_data(out));
        });
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::FamilyOfPacket(_) | Self::Protocol(_) | Self::InputName(_) => "meta",
            Self::NetworkHeader(..) | Self::TransportHeader(..) => "payload",
            Self::ConnectionStatus(_) => "ct",
            Self::DestinationType(_) => "fib",
            Self::Mask(..) => "bitwise",
            Self::Equal(..) | Self::Unequal(..) => "cmp",
            Self::In(..) | Self::MapTo(..) => "lookup",
            Self::Load(..) | Self::Accept | Self::Drop | Self::Return | Self::Goto(_) => "immediate",
            Self::DnatV4(..) | Self::DnatV6(..) => "nat",
            Self::Masquerade(..) => "masq",
        }
    }

    /// Numbers of attributes are NFTA_META_*, NFTA_PAYLOAD_*, NFTA_CT_*, NFTA_FIB_*, NFTA_BITWISE_*, NFTA_CMP_*,
    /// NFTA_LOOKUP_*, NFTA_IMMEDIATE_*, NFTA_NAT_* and NFTA_MASQ_*.
    fn encode_data(&self, out: &mut Vec<u8>) {
        match self {
            // NFT_META_NFPROTO, NFT_META_L4PROTO, NFT_META_IIFNAME.
            Self::FamilyOfPacket(to) => numbers(out, &[(1, register(*to)), (2, 15)]),
            Self::Protocol(to) => numbers(out, &[(1, register(*to)), (2, 16)]),
            Self::InputName(to) => numbers(out, &[(1, register(*to)), (2, 6)]),
            // NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER.
            Self::NetworkHeader(to, offset, length) => {
                numbers(out, &[(1, register(*to)), (2, 1), (3, *offset), (4, *length)]);
            }
            Self::TransportHeader(to, offset, length) => {
                numbers(out, &[(1, register(*to)), (2, 2), (3, *offset), (4, *length)]);
            }
            // NFT_CT_STATUS.
            Self::ConnectionStatus(to) => numbers(out, &[(1, register(*to)), (2, 2)]),
            // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR.
            Self::DestinationType(to) => numbers(out, &[(1, register(*to)), (2, 3), (3, 2)]),
            Self::Mask(at, mask) => {
                numbers(out, &[(1, register(*at)), (2, register(*at)), (3, 4)]);
                value(out, 4, mask);
                value(out, 5, &[0; 4]);
            }
            // NFT_CMP_EQ, NFT_CMP_NEQ.
            Self::Equal(at, bytes) => {
                numbers(out, &[(1, register(*at)), (2, 0)]);
                value(out, 3, bytes);
            }
            Self::Unequal(at, bytes) => {
                numbers(out, &[(1, register(*at)), (2, 1)]);
                value(out, 3, bytes);
            }
            Self::In(at, set) => {
                push(out, 1, &name(set));
                numbers(out, &[(2, register(*at))]);
            }
            Self::MapTo(at, map) => {
                push(out, 1, &name(map));
                numbers(out, &[(2, register(*at)), (3, register(*at))]);
            }
            Self::Load(to, bytes) => {
                numbers(out, &[(1, register(*to))]);
                value(out, 2, bytes);
            }
            // NFT_NAT_DNAT; NFPROTO_IPV4, NFPROTO_IPV6.
            Self::DnatV4(address, port) => {
                numbers(out, &[(1, 1), (2, 2), (3, register(*address)), (5, register(*port))]);
            }
            Self::DnatV6(address, port) => {
                numbers(out, &[(1, 1), (2, 10), (3, register(*address)), (5, register(*port))]);
            }
            Self::Masquerade(min, max) => {
                numbers(out, &[(1, PORTS_GIVEN_AND_RANDOM), (2, register(*min)), (3, register(*max))]);
            }
            // NF_ACCEPT, NF_DROP, NFT_RETURN, NFT_GOTO.
            Self::Accept => verdict(out, 1, None),
            Self::Drop => verdict(out, 0, None),
            Self::Return => verdict(out, -5, None),
            Self::Goto(chain) => verdict(out, -4, Some(chain)),
        }
    }
}

fn register(number: u32) -> u32 {
    FIRST_REGISTER + number
}

fn numbers(out: &mut Vec<u8>, attributes: &[(u16, u32)]) {
    for (kind, number) in attributes {
        push(out, *kind, &number.to_be_bytes());
    }
}

fn value(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    push_nested(out, kind, |out| push(out, VALUE, bytes));
}

fn verdict(out: &mut Vec<u8>, code: i32, chain: Option<&str>) {
    numbers(out, &[(1, VERDICT_REGISTER)]);
    push_nested(out, 2, |out| {
        push_nested(out, VERDICT, |out| {
            push(out, CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                push(out, CHAIN, &name(chain));
            }
        });
    });
}
