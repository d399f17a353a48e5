//! What `iptables-save -c` prints, line by line, and what of it we need to know.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hasher},
};

use super::names::{CLUSTER_IPS_REFUSED, FIREWALL, Table, is_kube_proxy_chain};

/// One line of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// `:KUBE-SERVICES - [0:0]`
    Chain(&'a str),
    /// `[12:720] -A KUBE-SERVICES ...`; the rule comes without `-A CHAIN`.
    Rule { chain: &'a str, rule: &'a str, packets: u64 },
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        if let Some(declared) = line.strip_prefix(':') {
            return declared.split(' ').next().map(Self::Chain);
        }
        let (counters, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        let packets = counters.split(':').next()?.parse().ok()?;
        let (chain, rule) = rule.split_once(' ')?;
        Some(Self::Rule { chain, rule, packets })
    }
}

/// The tables of one family, as far as they concern us.
#[derive(Debug, Default)]
pub(crate) struct Observed(BTreeMap<Table, ObservedTable>);

/// One table.
#[derive(Debug, Default)]
pub(crate) struct ObservedTable {
    /// Chains with names of ours, and a digest of their rules.
    chains: HashMap<String, u64>,
    /// Rules of chains we share with others: the built-in ones and KUBE-FIREWALL.
    shared: HashMap<String, Vec<String>>,
}

const SHARED: [&str; 6] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", FIREWALL];

impl Observed {
    pub(crate) fn table(&mut self, table: Table) -> &mut ObservedTable {
        self.0.entry(table).or_default()
    }
}

impl ObservedTable {
    pub(crate) fn add(&mut self, line: Line<'_>) {
        match line {
            Line::Chain(name) if is_kube_proxy_chain(name) => {
                self.chains.insert(name.to_owned(), EMPTY_DIGEST);
            }
            Line::Chain(name) if SHARED.contains(&name) => {
                self.shared.insert(name.to_owned(), Vec::new());
            }
            Line::Chain(_) => {}
            Line::Rule { chain, rule, .. } => {
                if let Some(digest) = self.chains.get_mut(chain) {
                    *digest = add_to_digest(chain, *digest, rule);
                } else if let Some(rules) = self.shared.get_mut(chain) {
                    rules.push(rule.to_owned());
                }
            }
        }
    }

    /// Takes a chain out; true if it is there with exactly these rules.
    pub(crate) fn take(&mut self, chain: &str, rules: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        let wanted = rules.into_iter().fold(EMPTY_DIGEST, |digest, rule| add_to_digest(chain, digest, rule.as_ref()));
        self.chains.remove(chain) == Some(wanted)
    }

    /// The chains that are left, sorted.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.chains.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The rules of a chain we share; `None`: there is no such chain.
    pub(crate) fn shared(&self, chain: &str) -> Option<&[String]> {
        self.shared.get(chain).map(Vec::as_slice)
    }

    /// The chains we share that are there, with their rules, sorted by name.
    pub(crate) fn all_shared(&self) -> BTreeMap<&str, &[String]> {
        self.shared.iter().map(|(name, rules)| (name.as_str(), rules.as_slice())).collect()
    }
}

const EMPTY_DIGEST: u64 = 0;

/// Adds a rule to the digest of a chain, but for the turn it started with: where the round robin of a chain stands does not
/// make it another chain. Nor does the order in which ClusterIPs came.
fn add_to_digest(chain: &str, digest: u64, rule: &str) -> u64 {
    if chain == CLUSTER_IPS_REFUSED {
        let mut hasher = DefaultHasher::new();
        hasher.write(rule.as_bytes());
        return digest.wrapping_add(hasher.finish());
    }
    let (before, after) = match rule.split_once(" --packet ") {
        Some((before, rest)) => (before, rest.split_once(' ').map_or("", |(_, after)| after)),
        None => (rule, ""),
    };
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(digest);
    hasher.write(before.as_bytes());
    hasher.write_u8(0);
    hasher.write(after.as_bytes());
    hasher.finish()
}
