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
            "set" | "map" => collection(&without_buckets(name), object, &mut facts),
            "chain" => {
                rules.entry(name).or_default();
            }
            "rule" => {
                let chain = object["chain"].as_str().unwrap_or_default();
                rules.entry(chain).or_default().push(without_buckets(&object["expr"].to_string()));
            }
            _ => {}
        }
    }
    let shape = |(chain, rules): (&str, Vec<String>)| format!("chain {} {}", without_buckets(chain), rules.join("; "));
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
        format!("{name} {key} {}", target.map_or_else(|| value.to_string(), without_buckets))
    }
}

/// Which of the chains that could serve each other's Services one has got is history: the fourth part of `rr4-tcp-3-17-masq`. Maps
/// of a chain have its name in theirs.
fn without_buckets(text: &str) -> String {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split_inclusive(|c| !of_name(c)).map(without_bucket).collect()
}

fn without_bucket(name: &str) -> String {
    let Some(start) = name.find("rr4-").or_else(|| name.find("rr6-")) else { return name.to_owned() };
    let mut parts: Vec<&str> = name[start..].split('-').collect();
    // What ends the name is still there.
    let end = parts.get(3).map_or("", |bucket| bucket.trim_start_matches(|c: char| c.is_ascii_digit())).to_owned();
    let anonymous = format!("n{end}");
    if let Some(bucket) = parts.get_mut(3) {
        *bucket = &anonymous;
    }
    format!("{}{}", &name[..start], parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_history() {
        for (text, expected) in [
            ("rr4-tcp-3-17-masq", "rr4-tcp-3-n-masq"),
            ("np-rr6-udp-1-0", "np-rr6-udp-1-n"),
            (r#""data":"@endpoints-np-rr4-tcp-1-4","key""#, r#""data":"@endpoints-np-rr4-tcp-1-n","key""#),
            (
                "@choices-rr4-tcp-2-12 @numbered-rr4-tcp-2-12-sticky9",
                "@choices-rr4-tcp-2-n @numbered-rr4-tcp-2-n-sticky9",
            ),
            ("services4 10.96.0.1 . 6 . 80", "services4 10.96.0.1 . 6 . 80"),
        ] {
            assert_eq!(without_buckets(text), expected);
        }
    }
}
