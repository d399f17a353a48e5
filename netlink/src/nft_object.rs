//! Makes tables, sets, chains and rules of nftables, for programs that cannot run `nft`: it takes milliseconds to start, and
//! need not be installed.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use crate::{
    NftBatch,
    attributes::{push, push_nested},
    nft_element::name,
    nft_expression::NftExpression,
};

/// NFNL_SUBSYS_NFTABLES with NFT_MSG_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE and _NEWSET.
const NEW_TABLE: u16 = 10 << 8;
const DELETE_TABLE: u16 = 10 << 8 | 2;
const NEW_CHAIN: u16 = 10 << 8 | 3;
const NEW_RULE: u16 = 10 << 8 | 6;
const NEW_SET: u16 = 10 << 8 | 9;

/// NFT_SET_MAP.
const IS_MAP: u32 = 8;

/// Types of which several make one number, as `nft` composes them for concatenations.
const TYPE_BITS: u32 = 6;

/// Type of a value, or of a part of a concatenation. The kernel knows lengths only; the rest is for `nft` to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NftType {
    /// 4 bytes.
    Ipv4Address,
    /// 16 bytes.
    Ipv6Address,
    /// 1 byte, padded to 4.
    Protocol,
    /// 2 bytes, padded to 4.
    Port,
}

/// Where a chain is called by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NftHook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// NF_INET_*: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}

impl NftType {
    /// Number in `nft` (datatype.h), and length in a key.
    const fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Ipv4Address => (7, 4),
            Self::Ipv6Address => (8, 16),
            Self::Protocol => (12, 4),
            Self::Port => (13, 4),
        }
    }

    fn concatenation(types: &[Self]) -> (u32, u32) {
        types
            .iter()
            .map(|kind| kind.number_and_length())
            .fold((0, 0), |(number, length), (next, more)| (number << TYPE_BITS | next, length + more))
    }
}

impl NftBatch {
    /// Makes the table; one that is there stays as it is.
    pub fn make_table(&mut self) {
        self.object(NEW_TABLE, NLM_F_CREATE, ("make table", self.table().to_owned()), |_| ());
    }

    /// Deletes the table with all in it; the transaction fails if there is none.
    pub fn delete_table(&mut self) {
        self.object(DELETE_TABLE, 0, ("delete table", self.table().to_owned()), |_| ());
    }

    /// Makes a chain; without a hook, one to go to. Its policy is accept.
    pub fn make_chain(&mut self, chain: &str, hook: Option<NftHook>) {
        // NFTA_CHAIN_NAME, _HOOK with NFTA_HOOK_HOOKNUM and _PRIORITY, and _TYPE.
        self.object(NEW_CHAIN, NLM_F_CREATE | NLM_F_EXCL, ("make chain", chain.to_owned()), |out| {
            push(out, 3, &name(chain));
            if let Some(hook) = hook {
                push_nested(out, 4, |out| {
                    push(out, 1, &hook.number.to_be_bytes());
                    push(out, 2, &hook.priority.to_be_bytes());
                });
                push(out, 7, &name(hook.kind));
            }
        });
    }

    /// Makes a set, or with `data` a map.
    pub fn make_set(&mut self, set: &str, key: &[NftType], data: &[NftType]) {
        let (key_type, key_length) = NftType::concatenation(key);
        let (data_type, data_length) = NftType::concatenation(data);
        // NFTA_SET_NAME, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN, and _ID, which the kernel wants but only
        // sets without a name are found by.
        self.object(NEW_SET, NLM_F_CREATE | NLM_F_EXCL, ("make set", set.to_owned()), |out| {
            let mut number = |kind, number: u32| push(out, kind, &number.to_be_bytes());
            number(3, if data.is_empty() { 0 } else { IS_MAP });
            number(4, key_type);
            number(5, key_length);
            if !data.is_empty() {
                number(6, data_type);
                number(7, data_length);
            }
            number(10, 1);
            push(out, 2, &name(set));
        });
    }

    /// Appends a rule to a chain.
    pub fn append_rule(&mut self, chain: &str, expressions: &[NftExpression]) {
        // NFTA_RULE_CHAIN and NFTA_RULE_EXPRESSIONS.
        self.object(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, ("append a rule to", chain.to_owned()), |out| {
            push(out, 2, &name(chain));
            push_nested(out, 4, |out| expressions.iter().for_each(|expression| expression.encode(out)));
        });
    }

    fn object(&mut self, kind: u16, flags: u16, doing: (&'static str, String), fill: impl FnOnce(&mut Vec<u8>)) {
        self.close();
        // NFPROTO_INET, version 0, resource 0; the table's name is attribute 1 of all kinds.
        let mut payload = vec![1, 0, 0, 0];
        push(&mut payload, 1, &name(self.table()));
        fill(&mut payload);
        self.message(kind, NLM_F_REQUEST | flags, &payload, doing);
    }
}
