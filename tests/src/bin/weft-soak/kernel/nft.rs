//! Our table, by `nft`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;
use weft_tests::Node;

/// Maps the kernel fills: whoever has sent something.
const RECORDS: [&str; 2] = ["affinity4", "affinity6"];

pub(super) fn facts(node: &Node) -> Result<BTreeSet<String>> {
    let text = node.run("nft", &["-j", "list", "table", "inet", "weft-proxy"])?;
    let table: Value = serde_json::from_str(&text).context("output of nft")?;
    let items = table["nftables"].as_array().context("output of nft")?;
    let mut facts = BTreeSet::new();
    let mut rules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for item in items {
        let (kind, object) = item.as_object().and_then(|item| item.iter().next()).context("output of nft")?;
        let name = object["name"].as_str().unwrap_or_default();
        match kind.as_str() {
            "set" | "map" => collection(name, object, &mut facts),
            "chain" => {
                rules.entry(name).or_default();
            }
            "rule" => {
                let chain = object["chain"].as_str().unwrap_or_default();
                rules.entry(chain).or_default().push(object["expr"].to_string());
            }
            _ => {}
        }
    }
    let shape = |(chain, rules): (&str, Vec<String>)| format!("chain {} {}", without_bucket(chain), rules.join("; "));
    facts.extend(rules.into_iter().map(shape));
    Ok(facts)
}

fn collection(name: &str, object: &Value, facts: &mut BTreeSet<String>) {
    facts.insert(format!("{name} {}", object["type"]));
    if RECORDS.contains(&name) {
        return;
    }
    for element in object["elem"].as_array().into_iter().flatten() {
        // An element of a set is its key alone.
        let (key, value) = match element.as_array().map(Vec::as_slice) {
            Some([key, value]) => (key, value),
            _ => (element, &Value::Null),
        };
        // A key with a counter is wrapped.
        let key = key.pointer("/elem/val").unwrap_or(key);
        facts.insert(meaning(name, key, value));
    }
}

fn meaning(name: &str, key: &Value, value: &Value) -> String {
    let parts = key["concat"].as_array().map_or_else(|| vec![key.clone()], Clone::clone);
    let without_slot = || Value::from(parts[..parts.len() - 1].to_vec());
    if name.contains("endpoints") || name.contains("numbered") {
        // Which slot or number an endpoint has is history.
        format!("{name} {} {value}", without_slot())
    } else if name.contains("choices") {
        format!("{name} {} one for each endpoint", without_slot())
    } else if name.contains("affinity-") {
        format!("{name} {key} has a number")
    } else {
        let target = ["goto", "jump"].iter().find_map(|verb| value.pointer(&format!("/{verb}/target"))?.as_str());
        format!("{name} {key} {}", target.map_or_else(|| value.to_string(), without_bucket))
    }
}

/// Which of the chains that could serve each other's Services one has got is history: the fourth part of `rr4-tcp-3-17-masq`.
fn without_bucket(chain: &str) -> String {
    let Some(start) = chain.find("rr4-").or_else(|| chain.find("rr6-")) else { return chain.to_owned() };
    let mut parts: Vec<&str> = chain[start..].split('-').collect();
    if parts.len() > 3 {
        parts[3] = "n";
    }
    format!("{}{}", &chain[..start], parts.join("-"))
}
