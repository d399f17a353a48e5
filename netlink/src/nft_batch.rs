//! Writes elements of nftables sets and maps, many in one transaction, from the process itself: `nft` takes milliseconds to
//! start and hundreds of megabytes to read 100,000 elements. Tables, chains, rules and sets
//! are the business of `nft`, or of `nft_object`.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    attributes::push,
    error::{During, Error, Failure, Result},
    nft_element::{NftElement, name},
    raw::RawSocket,
};

/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END (linux/netfilter/nfnetlink.h).
const BEGIN: u16 = 16;
const END: u16 = 17;

/// NFNL_SUBSYS_NFTABLES, and NFT_MSG_NEWSETELEM and NFT_MSG_DELSETELEM of it.
const SUBSYSTEM: u16 = 10;
const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENTS: u16 = SUBSYSTEM << 8 | 14;

/// NFNL_BATCH_GENID.
const GENERATION: u16 = 1;

/// NFTA_SET_ELEM_LIST_TABLE, _SET and _ELEMENTS.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;

/// NLA_F_NESTED.
const NESTED: u16 = 1 << 15;

/// The length of an attribute is 16 bits wide; an element is far shorter than what is left.
const LIST_BYTES: usize = 48 * 1024;

const HEADER_BYTES: usize = 16;

/// A connection to nftables of one network namespace, for writing.
///
/// It is worth keeping: when such a connection is closed, the kernel first waits until what the last transactions deleted is
/// destroyed, which takes it some ten milliseconds (`nft_rcv_nl_event`, Linux 6.18).
#[derive(Debug)]
pub struct NftWriter {
    socket: RawSocket,
}

impl NftWriter {
    /// Connects to nftables of the network namespace the calling thread is in now.
    ///
    /// # Errors
    /// The socket cannot be made, or the kernel has no nfnetlink.
    pub fn open() -> Result<Self> {
        let socket = RawSocket::open(NETLINK_NETFILTER).during("open", "a netfilter netlink socket")?;
        Ok(Self { socket })
    }

    /// Carries out a transaction. After an error, open another connection: this one may still have answers to it.
    ///
    /// # Errors
    /// [`is_exists`](Error::is_exists) or [`is_not_found`](Error::is_not_found): the sets are not as the caller believed;
    /// nothing was changed. `EBUSY`: an element is there with other data. Out of memory.
    pub fn commit(&mut self, mut batch: NftBatch) -> Result<()> {
        batch.close();
        let Some(last) = batch.last_message() else { return Ok(()) };
        // Errors come before this acknowledgement. Not at the end message, which kernels before 6.10 do not acknowledge.
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        batch.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        let acknowledged = u32::try_from(batch.messages.len()).expect("messages fit in memory");
        batch.control(END, &[]);
        match self.socket.batch(&batch.bytes, acknowledged).during("write to table", &batch.table)? {
            None => Ok(()),
            Some((sequence, errno)) => Err(batch.refusal(sequence, errno)),
        }
    }
}

/// A transaction: all elements are added and deleted in the order of the calls, or none is.
#[derive(Debug)]
pub struct NftBatch {
    table: String,
    bytes: Vec<u8>,
    /// What each message does, for errors: the message with sequence number n is at n - 1.
    messages: Vec<(&'static str, String)>,
    /// The list of the message being put together.
    list: Vec<u8>,
    open: Option<(u16, String)>,
}

impl NftBatch {
    /// An empty transaction on an `inet` table.
    pub fn new(table: &str) -> Self {
        let mut batch = Self::empty(table);
        batch.control(BEGIN, &[]);
        batch
    }

    /// An empty transaction that fails ([`is_outdated`](Error::is_outdated)) if any ruleset of the namespace was changed since
    /// [`NftQuery::generation`](crate::NftQuery::generation) gave that number.
    pub fn at_generation(table: &str, generation: u32) -> Self {
        let mut batch = Self::empty(table);
        batch.control(BEGIN, &generation.to_be_bytes());
        batch
    }

    fn empty(table: &str) -> Self {
        let (table, bytes) = (table.to_owned(), Vec::new());
        Self { table, bytes, messages: Vec::new(), list: Vec::new(), open: None }
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Adds an element. One that is there with other data makes the transaction fail; with the same data it changes nothing.
    pub fn add(&mut self, set: &str, element: &NftElement) {
        self.open(NEW_ELEMENTS, set);
        element.encode(&mut self.list);
    }

    /// Deletes an element, of which only the key counts. One that is not there makes the transaction fail.
    pub fn delete(&mut self, set: &str, element: &NftElement) {
        self.open(DELETE_ELEMENTS, set);
        element.encode_identity(&mut self.list);
    }

    fn refusal(&self, sequence: u32, errno: i32) -> Error {
        let message = (sequence as usize).checked_sub(1).and_then(|index| self.messages.get(index));
        let (operation, object) = message.map_or(("write to table", &self.table), |(doing, set)| (doing, set));
        let failure: std::result::Result<(), _> = Err(Failure::System(io::Error::from_raw_os_error(errno)));
        failure.during(operation, object).expect_err("it is one")
    }

    /// Makes the message being put together one of this kind about this set.
    fn open(&mut self, kind: u16, set: &str) {
        let fits = self.list.len() < LIST_BYTES;
        if !fits || self.open.as_ref().is_none_or(|(open, name)| *open != kind || name != set) {
            self.close();
            self.open = Some((kind, set.to_owned()));
        }
    }

    pub(crate) fn close(&mut self) {
        let Some((kind, set)) = self.open.take() else { return };
        let doing = if kind == NEW_ELEMENTS { "add elements to" } else { "delete elements of" };
        // NFPROTO_INET, version 0, resource 0.
        let mut payload = vec![1, 0, 0, 0];
        push(&mut payload, TABLE, &name(&self.table));
        push(&mut payload, SET, &name(&set));
        push(&mut payload, ELEMENTS | NESTED, &self.list);
        self.list.clear();
        self.message(kind, NLM_F_REQUEST | NLM_F_CREATE, &payload, (doing, set));
    }

    fn control(&mut self, kind: u16, generation: &[u8]) {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let mut payload = vec![0, 0, high, low];
        if !generation.is_empty() {
            push(&mut payload, GENERATION, generation);
        }
        self.message(kind, NLM_F_REQUEST, &payload, ("write to table", self.table.clone()));
    }

    pub(crate) fn message(&mut self, kind: u16, flags: u16, payload: &[u8], doing: (&'static str, String)) {
        self.messages.push(doing);
        let length = u32::try_from(HEADER_BYTES + payload.len()).expect("a list is short");
        let sequence = u32::try_from(self.messages.len()).expect("messages fit in memory");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        self.bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Where the last message starts; `None` if there is only the begin message.
    fn last_message(&self) -> Option<usize> {
        let length = |at: usize| {
            let bytes = self.bytes[at..at + 4].try_into().expect("4 bytes");
            (u32::from_ne_bytes(bytes) as usize).next_multiple_of(4)
        };
        let starts =
            std::iter::successors(Some(0), |at| Some(at + length(*at)).filter(|next| *next < self.bytes.len()));
        starts.last().filter(|at| *at > 0)
    }
}
