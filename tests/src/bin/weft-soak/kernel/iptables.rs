//! Our chains, by `iptables-save`.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use weft_tests::Node;

/// Removes all rules of both families and both variants, as an administrator in despair does.
pub(crate) const FLUSH: &str = "for v in legacy nft; do for i in iptables-$v ip6tables-$v; do
    $i -t nat -F; $i -t filter -F; done; done 2>/dev/null";

/// Whether what [`FLUSH`] removed is back in every table. A table is flushed and restored as a whole, so its jump stands for all
/// of it.
pub(crate) fn is_back(node: &Node) -> Result<()> {
    for family in ["iptables", "ip6tables"] {
        for table in ["nat", "filter"] {
            let rules = ["legacy", "nft"].map(|variant| node.run(&format!("{family}-{variant}-save"), &["-t", table]));
            let is_jump = |line: &str| line.starts_with("-A OUTPUT ") && line.ends_with(" -j KUBE-SERVICES");
            let is_there = rules.iter().flatten().any(|rules| rules.lines().any(is_jump));
            ensure!(is_there, "{family} has no rules in {table}");
        }
    }
    Ok(())
}

pub(super) fn facts(node: &Node) -> Result<BTreeSet<String>> {
    let mut facts = BTreeSet::new();
    for program in ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"] {
        let text = node.run(program, &[])?;
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            }
            // Others' chains stand apart, and their rules.
            if line.contains("KUBE-") {
                facts.insert(format!("{program} {table} {}", meaning(line)));
            }
        }
    }
    Ok(facts)
}

/// Without counters, and without whose turn it is first: both are history.
fn meaning(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    if line.starts_with(':') {
        words.truncate(1);
    }
    while let Some(at) = words.iter().position(|word| *word == "--packet") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words.join(" ")
}
