//! Small questions about nftables objects, answered without reading the rest: one `nft get element` reads every element
//! of every set first (1.4 s with 100,000 of them, nft 1.0.6), the kernel finds it in microseconds.

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    attributes::{push, push_nested},
    error::{During, Error, Result},
    nft_element::{NftElement, counter, find, name, read_name},
    raw::{Listing, RawSocket},
};

/// NFNL_SUBSYS_NFTABLES, the upper byte of the message type.
const SUBSYSTEM: u16 = 10 << 8;

/// Of linux/netfilter/nf_tables.h.
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// NFTA_GEN_ID.
const GENERATION: u16 = 1;

/// `struct nfgenmsg` for tables of the `inet` family: NFPROTO_INET, version 0, resource 0.
const INET: [u8; 4] = [1, 0, 0, 0];

/// The same for all families: NFPROTO_UNSPEC.
const ANY_FAMILY: [u8; 4] = [0; 4];

/// Families of tables as nft names them (linux/netfilter.h).
const FAMILIES: [(u8, &str); 6] = [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];

/// NFTA_TABLE_NAME, NFTA_RULE_TABLE and NFTA_SET_ELEM_LIST_TABLE; NFTA_RULE_CHAIN and NFTA_SET_ELEM_LIST_SET.
const TABLE: u16 = 1;
const CHAIN_OR_SET: u16 = 2;

/// NFTA_CHAIN_NAME.
const CHAIN_NAME: u16 = 3;

/// NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM: the way down to an element.
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;

/// How often a listing is begun again because somebody changed a ruleset meanwhile.
const ATTEMPTS: usize = 10;

/// A connection to nftables of one network namespace. Reads only.
#[derive(Debug)]
pub struct NftQuery {
    socket: RawSocket,
}

impl NftQuery {
    /// Connects to nftables of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The socket cannot be made, or the kernel has no nfnetlink.
    pub fn open() -> Result<Self> {
        let socket = RawSocket::open(NETLINK_NETFILTER).during("open", "a netfilter netlink socket")?;
        Ok(Self { socket })
    }

    /// Number of the state all rulesets of the namespace are in: every change makes it another.
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub fn generation(&mut self) -> Result<u32> {
        let (mut generation, object) = (None, "generation of nftables");
        let read = |row: &[u8]| find(row.get(INET.len()..)?, GENERATION)?.try_into().ok().map(u32::from_be_bytes);
        self.socket.ask(GET_GENERATION, &[0; 4], |row| generation = read(row)).during("read", object)?;
        generation.ok_or_else(|| Error::unreadable("read", object, "it has no number"))
    }

    /// All tables with their families: `inet weft-proxy`. (`nft list tables` reads every element of every set for that: two seconds and
    /// 230 MB with 10,000 Services, nft 1.0.6.)
    ///
    /// # Errors
    /// As [`NftQuery::rules`].
    pub fn tables(&mut self) -> Result<Vec<String>> {
        let mut tables = Vec::new();
        let each = |row: &[u8]| {
            let family = row.first().and_then(|family| FAMILIES.iter().find(|(number, _)| number == family));
            let name = row.get(ANY_FAMILY.len()..).and_then(|row| find(row, TABLE)).and_then(read_name);
            tables.extend(family.zip(name).map(|((_, family), name)| format!("{family} {name}")));
        };
        // A listing that somebody changed meanwhile is as good as one from before or after.
        self.socket.dump(GET_TABLE, &ANY_FAMILY, each).during("list", "nftables' tables")?;
        Ok(tables)
    }

    /// How many rules the chains of the `inet` table have, of those that have any; empty also if there is no such table.
    ///
    /// # Errors
    /// As [`NftQuery::chains`].
    pub fn rule_counts(&mut self, table: &str) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for chain in
            self.list(GET_RULE, &table_only(table), table, |row| find(row, CHAIN_OR_SET).and_then(read_name))?
        {
            *counts.entry(chain).or_default() += 1;
        }
        Ok(counts)
    }

    /// How many rules a chain of the `inet` table has; 0 also if there is no such chain or table.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied), or the kernel has no nftables.
    pub fn rules(&mut self, table: &str, chain: &str) -> Result<usize> {
        let mut rules = 0;
        match self.socket.dump(GET_RULE, &named(table, chain), |_| rules += 1).during("count rules of", chain) {
            Err(error) if error.is_not_found() => Ok(0),
            other => other.map(|_| rules),
        }
    }

    /// Packets counted by the element with this key in a set or map of the `inet` table; `None` if it is not there or has
    /// no counter.
    ///
    /// `key` is what the kernel compares: network byte order, each part of a concatenation padded to 4 bytes.
    ///
    /// # Errors
    /// [`is_permission_denied`](crate::Error::is_permission_denied), or the kernel has no nftables.
    pub fn packets(&mut self, table: &str, set: &str, key: &[u8]) -> Result<Option<u64>> {
        let mut request = named(table, set);
        let element = NftElement { key: key.to_vec(), ..NftElement::default() };
        push_nested(&mut request, ELEMENTS, |out| element.encode_identity(out));
        let mut counted = None;
        match self.socket.ask(GET_ELEMENT, &request, |row| counted = packets(row)).during("read an element of", set) {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(|()| counted),
        }
    }

    /// The element that `key` is found in: with this key, or in an interval set with this key in its range; `None` if there
    /// is no such element, set or table. `key` is as for [`NftQuery::packets`].
    ///
    /// # Errors
    /// As [`NftQuery::packets`], and [`Error::Unreadable`] for an element that [`NftElement`] has no words for.
    pub fn element(&mut self, table: &str, set: &str, key: &[u8]) -> Result<Option<NftElement>> {
        let mut request = named(table, set);
        let wanted = NftElement { key: key.to_vec(), ..NftElement::default() };
        push_nested(&mut request, ELEMENTS, |out| wanted.encode_identity(out));
        let mut found = None;
        let read = |row: &[u8]| {
            found = row
                .get(INET.len()..)
                .and_then(|row| find(row, ELEMENTS))
                .and_then(|list| NftElement::decode_list(list).next());
        };
        match self.socket.ask(GET_ELEMENT, &request, read).during("read an element of", set) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
            Ok(()) => match found {
                Some(Some(element)) => Ok(Some(element)),
                _ => Err(Error::unreadable("read an element of", set, "it is of a kind we do not know")),
            },
        }
    }

    /// The chains of the `inet` table, each with how many rules it has.
    ///
    /// # Errors
    /// As [`NftQuery::rules`]; [`Error::Unstable`] if rulesets kept changing meanwhile.
    pub fn chains(&mut self, table: &str) -> Result<BTreeMap<String, usize>> {
        let of_table = |row: &[u8]| find(row, TABLE).and_then(read_name).is_some_and(|name| name == table);
        let request = table_only(table);
        let names = |row: &[u8]| of_table(row).then(|| find(row, CHAIN_NAME).and_then(read_name)).flatten();
        let mut chains: BTreeMap<_, _> =
            self.list(GET_CHAIN, &INET, table, names)?.into_iter().map(|c| (c, 0)).collect();
        for chain in self.list(GET_RULE, &request, table, |row| find(row, CHAIN_OR_SET).and_then(read_name))? {
            *chains.entry(chain).or_default() += 1;
        }
        Ok(chains)
    }

    /// The names of the sets and maps of the `inet` table; none also if there is no such table.
    ///
    /// # Errors
    /// As [`NftQuery::chains`].
    pub fn sets(&mut self, table: &str) -> Result<Vec<String>> {
        self.list(GET_SET, &table_only(table), table, |row| find(row, CHAIN_OR_SET).and_then(read_name))
    }

    /// The elements of a set or map of the `inet` table, in no order; none also if there is no such set. `None` stands for
    /// one that [`NftElement`] has no words for.
    ///
    /// # Errors
    /// As [`NftQuery::chains`].
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Option<NftElement>>> {
        let list = |row: &[u8]| find(row, ELEMENTS).map(|list| NftElement::decode_list(list).collect::<Vec<_>>());
        self.list(GET_ELEMENT, &named(table, set), set, list).map(|lists| lists.into_iter().flatten().collect())
    }

    /// What `read` finds in the rows of a dump, without their `struct nfgenmsg`.
    fn list<T>(
        &mut self,
        kind: u16,
        request: &[u8],
        object: &str,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut rows = Vec::new();
            let each = |row: &[u8]| rows.extend(row.get(INET.len()..).and_then(&read));
            match self.socket.dump(kind, request, each).during("list", object) {
                Ok(Listing::Complete) => return Ok(rows),
                Ok(Listing::Partial) => {}
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unstable { operation: "list", object: object.to_owned() })
    }
}

fn table_only(table: &str) -> Vec<u8> {
    let mut request = INET.to_vec();
    push(&mut request, TABLE, &name(table));
    request
}

fn named(table: &str, object: &str) -> Vec<u8> {
    let mut request = table_only(table);
    push(&mut request, CHAIN_OR_SET, &name(object));
    request
}

/// The counter of the first element in an answer.
fn packets(row: &[u8]) -> Option<u64> {
    let element = [ELEMENTS, LIST_ELEMENT].iter().try_fold(row.get(INET.len()..)?, |bytes, kind| find(bytes, *kind))?;
    counter(element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_answers_have_no_counter() {
        for row in [&[][..], &[1], &INET, &[0xff; 64]] {
            assert_eq!(packets(row), None);
        }
    }
}
