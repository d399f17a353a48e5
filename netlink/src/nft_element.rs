//! Set and map elements of nftables as the kernel's messages hold them (linux/netfilter/nf_tables.h).

use crate::attributes::{attributes, push, push_nested};

/// NFTA_LIST_ELEM, NFTA_DATA_VALUE and NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN.
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// NFTA_SET_ELEM_*.
const KEY: u16 = 1;
const DATA: u16 = 2;
const USER_DATA: u16 = 6;
const EXPRESSION: u16 = 7;
const KEY_END: u16 = 10;

/// NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// NFTNL_UDATA_SET_ELEM_COMMENT (libnftnl), in a list of one-byte types and lengths.
const COMMENT: u8 = 0;

/// NF_DROP, NFT_JUMP and NFT_GOTO.
const CODE_DROP: i32 = 0;
const CODE_JUMP: i32 = -3;
const CODE_GOTO: i32 = -4;

/// One element of a set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NftElement {
    /// What the kernel compares: network byte order for addresses and ports, each part of a concatenation padded to 4 bytes.
    pub key: Vec<u8>,
    /// The last key it stands for, in an interval set of concatenations.
    pub key_end: Option<Vec<u8>>,
    /// What it maps to; `None` in a set.
    pub data: Option<NftData>,
    /// Packets its counter has seen; when it is written, what the counter starts at. 0 also without a counter.
    pub packets: u64,
    /// What `nft` shows as its comment: up to 253 bytes without NUL.
    pub comment: Option<String>,
}

/// What an element of a map maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftData {
    /// A value, laid out as a key is.
    Value(Vec<u8>),
    /// The verdict `drop`.
    Drop,
    /// The verdict `jump` to a chain.
    Jump(String),
    /// The verdict `goto` a chain.
    Goto(String),
}

impl NftElement {
    /// Appends the element as one of a list.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push_nested(out, LIST_ELEMENT, |out| {
            self.encode_keys(out);
            if let Some(data) = &self.data {
                push_nested(out, DATA, |out| data.encode(out));
            }
            if self.packets > 0 {
                push_nested(out, EXPRESSION, |out| encode_counter(out, self.packets));
            }
            if let Some(comment) = &self.comment {
                let text = name(comment);
                let length = u8::try_from(text.len()).expect("comments are up to 253 bytes");
                push(out, USER_DATA, &[&[COMMENT, length], text.as_slice()].concat());
            }
        });
    }

    /// Appends what identifies the element, as one of a list: enough to delete or to find it.
    pub(crate) fn encode_identity(&self, out: &mut Vec<u8>) {
        push_nested(out, LIST_ELEMENT, |out| self.encode_keys(out));
    }

    fn encode_keys(&self, out: &mut Vec<u8>) {
        push_nested(out, KEY, |out| push(out, DATA_VALUE, &self.key));
        if let Some(end) = &self.key_end {
            push_nested(out, KEY_END, |out| push(out, DATA_VALUE, end));
        }
    }

    /// The elements in a list; `None` in place of what this crate has no words for.
    pub(crate) fn decode_list(list: &[u8]) -> impl Iterator<Item = Option<Self>> {
        attributes(list).map(|(_, element)| Self::decode(element))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let value = |kind| find(bytes, kind).and_then(|data| find(data, DATA_VALUE)).map(<[u8]>::to_vec);
        let data = match find(bytes, DATA) {
            Some(data) => Some(NftData::decode(data)?),
            None => None,
        };
        let (packets, comment) = (counter(bytes).unwrap_or(0), find(bytes, USER_DATA).and_then(comment));
        Some(Self { key: value(KEY)?, key_end: value(KEY_END), data, packets, comment })
    }
}

impl NftData {
    fn encode(&self, out: &mut Vec<u8>) {
        let (code, chain) = match self {
            Self::Value(value) => return push(out, DATA_VALUE, value),
            Self::Drop => (CODE_DROP, None),
            Self::Jump(chain) => (CODE_JUMP, Some(chain)),
            Self::Goto(chain) => (CODE_GOTO, Some(chain)),
        };
        push_nested(out, DATA_VERDICT, |out| {
            push(out, VERDICT_CODE, &code.to_be_bytes());
            if let Some(chain) = chain {
                push(out, VERDICT_CHAIN, &name(chain));
            }
        });
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if let Some(value) = find(bytes, DATA_VALUE) {
            return Some(Self::Value(value.to_vec()));
        }
        let verdict = find(bytes, DATA_VERDICT)?;
        let chain = || read_name(find(verdict, VERDICT_CHAIN)?);
        match i32::from_be_bytes(find(verdict, VERDICT_CODE)?.try_into().ok()?) {
            CODE_DROP => Some(Self::Drop),
            CODE_JUMP => chain().map(Self::Jump),
            CODE_GOTO => chain().map(Self::Goto),
            _ => None,
        }
    }
}

fn encode_counter(out: &mut Vec<u8>, packets: u64) {
    push(out, EXPRESSION_NAME, &name("counter"));
    push_nested(out, EXPRESSION_DATA, |out| {
        push(out, COUNTER_BYTES, &0_u64.to_be_bytes());
        push(out, COUNTER_PACKETS, &packets.to_be_bytes());
    });
}

/// The comment in an element's user data.
fn comment(data: &[u8]) -> Option<String> {
    let mut rest = data;
    while let [kind, length, after @ ..] = rest {
        let (value, others) = after.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return read_name(value);
        }
        rest = others;
    }
    None
}

/// Packets the counter of an element has seen; `None` if it has none.
pub(crate) fn counter(element: &[u8]) -> Option<u64> {
    let expression = find(element, EXPRESSION)?;
    find(expression, EXPRESSION_NAME).filter(|name| name.starts_with(b"counter"))?;
    let packets = find(find(expression, EXPRESSION_DATA)?, COUNTER_PACKETS)?;
    packets.try_into().ok().map(u64::from_be_bytes)
}

/// The value of the first attribute of that kind.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A name as attributes hold it: with a final NUL.
pub(crate) fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Reads a name back; `None` if it is not UTF-8, so none of ours.
pub(crate) fn read_name(value: &[u8]) -> Option<String> {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let value = NftData::Value(vec![10, 0, 0, 1, 0, 80, 0, 0]);
        let datas =
            [None, Some(value), Some(NftData::Drop), Some(NftData::Jump("a".into())), Some(NftData::Goto("b".into()))];
        for data in datas {
            for key_end in [None, Some(vec![9; 8])] {
                for packets in [0, 7] {
                    let (key, comment) = (vec![1; 8], (packets > 0).then(|| "whose".to_owned()));
                    let element = NftElement { key, key_end: key_end.clone(), data: data.clone(), packets, comment };
                    let mut list = Vec::new();
                    element.encode(&mut list);
                    element.encode(&mut list);
                    let read: Vec<_> = NftElement::decode_list(&list).collect();
                    assert_eq!(read, [Some(element.clone()), Some(element)]);
                }
            }
        }
    }

    #[test]
    fn odd_lists_do_no_harm() {
        let mut list = Vec::new();
        let data = Some(NftData::Jump("somewhere".into()));
        let comment = Some("whose".to_owned());
        NftElement { key: vec![1; 4], data, comment, ..NftElement::default() }.encode(&mut list);
        for cut in 0..list.len() {
            let _ = NftElement::decode_list(&list[..cut]).count();
            let mut bent = list.clone();
            bent[cut] ^= 0xff;
            let _ = NftElement::decode_list(&bent).count();
        }
    }
}
