//! The maps of the socket programs, by `bpftool`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::Node;

type Bytes = Vec<u8>;

/// Offsets in `ServiceValue` (ebpf/abi).
const BASE: usize = 4;
const COUNT: usize = 8;
const FLAGS: usize = 12;
const AFFINITY_SECONDS: usize = 20;

pub(super) fn facts(node: &Node) -> Result<BTreeSet<String>> {
    let mut facts = BTreeSet::new();
    for (family, address_length) in [(4, 4), (6, 16)] {
        let services = dump(node, &format!("SERVICES{family}"))?;
        let backends: BTreeMap<u32, Bytes> =
            dump(node, &format!("BACKENDS{family}"))?.into_iter().map(|(key, value)| (word(&key, 0), value)).collect();
        let mut blocks = BTreeMap::new();
        let mut counters: BTreeMap<u32, Bytes> = BTreeMap::new();
        for (key, value) in services {
            let (base, count) = (word(&value, BASE), word(&value, COUNT));
            let mut endpoints = Vec::new();
            for index in base..base + count {
                let backend = backends.get(&index).with_context(|| format!("no element {index}"))?;
                let (address, counter) = (backend[..address_length + 2].to_vec(), word(backend, address_length + 4));
                // An element that belongs to two is overwritten by one of them some day.
                let other = counters.insert(counter, address.clone());
                ensure!(other.is_none_or(|other| other == address), "counter {counter} has two endpoints");
                endpoints.push(hex(&address));
            }
            if count > 0 {
                blocks.insert(base, base + count);
            }
            let (flags, affinity) = (word(&value, FLAGS), word(&value, AFFINITY_SECONDS));
            facts.insert(format!("v{family} {} flags {flags} affinity {affinity} {}", hex(&key), endpoints.join(" ")));
        }
        let disjoint = blocks.iter().zip(blocks.iter().skip(1)).all(|((_, end), (next, _))| end <= next);
        ensure!(disjoint, "blocks of BACKENDS{family} overlap");
        let addresses = dump(node, &format!("NODE_ADDRESSES{family}"))?;
        facts.extend(addresses.into_iter().map(|(key, value)| format!("node address {} {}", hex(&key), hex(&value))));
    }
    Ok(facts)
}

fn dump(node: &Node, map: &str) -> Result<Vec<(Bytes, Bytes)>> {
    let pin = pins(node)?.join(map);
    let output = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&pin).output()?;
    ensure!(output.status.success(), "{}: {}", pin.display(), String::from_utf8_lossy(&output.stdout));
    let elements: Vec<Value> = serde_json::from_slice(&output.stdout).context("output of bpftool")?;
    let both = |element: &Value| Some((bytes(&element["key"])?, bytes(&element["value"])?));
    elements.iter().map(|element| both(element).with_context(|| format!("element {element}"))).collect()
}

/// The one directory of pins.
fn pins(node: &Node) -> Result<PathBuf> {
    let top = node.directory().join("bpf/weft");
    let mut entries = fs::read_dir(&top).with_context(|| top.display().to_string())?;
    let first = entries.next().context("no pins")??.path();
    ensure!(entries.next().is_none(), "pins of two versions in {}", top.display());
    Ok(first)
}

fn bytes(value: &Value) -> Option<Bytes> {
    let bytes = value.as_array()?.iter();
    bytes.map(|byte| u8::from_str_radix(byte.as_str()?.strip_prefix("0x")?, 16).ok()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
