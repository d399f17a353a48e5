//! What is in the kernel, in a form in which two nodes can be compared: one fact a line, without what depends on the
//! order of events (numbers of slots and blocks, counters, who is next).

mod bpf;
mod iptables;
mod nft;

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Result, bail};
use weft_tests::Node;

use crate::soak::Mode;

pub(crate) use iptables::{FLUSH as FLUSH_IPTABLES, is_back};

/// Differences told.
const TOLD: usize = 10;

/// All facts about a node.
pub(crate) fn facts(mode: Mode, node: &Node) -> Result<BTreeSet<String>> {
    let facts = match mode {
        Mode::Ebpf => {
            let mut facts = bpf::facts(node)?;
            facts.extend(nft::facts(node)?);
            facts
        }
        Mode::Nftables => nft::facts(node)?,
        Mode::Iptables => iptables::facts(node)?,
    };
    Ok(facts.into_iter().map(|fact| anonymous(&fact, node)).collect())
}

/// The node's own addresses are the same on every node.
fn anonymous(fact: &str, node: &Node) -> String {
    let hex = |address: Ipv4Addr| address.octets().map(|byte| format!("{byte:02x}")).concat();
    let hex6 = node.v6().octets().map(|byte| format!("{byte:02x}")).concat();
    let text = fact.replace(&hex6, "node").replace(&hex(node.v4()), "node");
    words(&text, &[node.v4().to_string(), node.v6().to_string()])
}

/// Replaces whole addresses only: `192.0.2.1` is not in `192.0.2.10`.
fn words(text: &str, addresses: &[String]) -> String {
    let mut result = String::new();
    for word in text.split_inclusive(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':')) {
        let (body, end) = match word.char_indices().last() {
            Some((at, c)) if !(c.is_ascii_hexdigit() || c == '.' || c == ':') => word.split_at(at),
            _ => (word, ""),
        };
        result += if addresses.iter().any(|address| address == body) { "node" } else { body };
        result += end;
    }
    result
}

/// How many facts there are.
///
/// # Errors
/// What one has and the other has not.
pub(crate) fn same(soaked: &BTreeSet<String>, fresh: &BTreeSet<String>) -> Result<usize> {
    let left: Vec<_> = soaked.difference(fresh).collect();
    let missing: Vec<_> = fresh.difference(soaked).collect();
    if left.is_empty() && missing.is_empty() {
        return Ok(soaked.len());
    }
    let some = |facts: &[&String]| facts.iter().take(TOLD).map(|fact| format!("\n    {fact}")).collect::<String>();
    bail!(
        "the kernel does not hold a plan from scratch; {} too many:{}\n  {} missing:{}",
        left.len(),
        some(&left),
        missing.len(),
        some(&missing)
    )
}
