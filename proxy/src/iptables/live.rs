//! What the rules would do with a packet, read from the tables as they are now.
//!
//! Understands the matches our own rules are made of, and follows our own chains only, from the jumps in the built-in ones.
//! `iptables-save` is run once a table and family for all probes together.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
};

use super::{
    driver::{Commands, Xtables},
    error,
    failure::XtablesError,
    listing::Line,
    names::{EXTERNAL_SERVICES, MARK_MASQ, NODE_PORTS, NODE_PORTS_REFUSED, PROXY_FIREWALL, SERVICES, Table},
    packet::{Packet, Rule},
    turns::RoundRobin,
};
use crate::{
    dataplane::DataPlaneError,
    live::{Live, Next, NextReason, Probe, Verdict},
    model::IpFamily,
};

/// Reads the tables of the calling thread's network namespace, of the variant that is in use, for each probe.
///
/// # Errors
/// The programs are not installed or cannot list the tables.
pub fn live(probes: &[Probe]) -> Result<Vec<Live>, DataPlaneError> {
    let read = || -> Result<Vec<Live>, XtablesError> {
        let commands = Commands::find()?;
        let mut tables: HashMap<IpFamily, Tables> = HashMap::new();
        for probe in probes {
            if let Entry::Vacant(entry) = tables.entry(probe.family()) {
                entry.insert(Tables::read(&commands, probe.family())?);
            }
        }
        Ok(probes.iter().map(|probe| Reader::new(&tables[&probe.family()], probe).read()).collect())
    };
    read().map_err(error("read the tables"))
}

/// The chains of one family with their rules, each with the packets it has matched.
#[derive(Debug, Default)]
struct Tables {
    nat: HashMap<String, Vec<(String, u64)>>,
    filter: HashMap<String, Vec<(String, u64)>>,
}

impl Tables {
    fn read(commands: &dyn Xtables, family: IpFamily) -> Result<Self, XtablesError> {
        let mut tables = Self::default();
        for (table, into) in [(Table::Nat, &mut tables.nat), (Table::Filter, &mut tables.filter)] {
            commands.list(family, table, &mut |line| match line {
                Line::Chain(name) => {
                    into.insert(name.to_owned(), Vec::new());
                }
                Line::Rule { chain, rule, packets } => {
                    into.entry(chain.to_owned()).or_default().push((rule.to_owned(), packets));
                }
            })?;
        }
        Ok(tables)
    }
}

/// How a packet comes back from a chain.
enum Way {
    /// To the next rule of the chain before.
    Back,
    /// Not at all: its fate is in `live`.
    Done,
}

struct Reader<'a> {
    tables: &'a Tables,
    probe: &'a Probe,
    live: Live,
    endpoints: Vec<SocketAddr>,
    /// In the order of turns.
    turns: Option<Vec<Option<SocketAddr>>>,
    turn: Option<u64>,
}

impl<'a> Reader<'a> {
    fn new(tables: &'a Tables, probe: &'a Probe) -> Self {
        Self { tables, probe, live: Live::new(), endpoints: Vec::new(), turns: None, turn: None }
    }

    fn read(mut self) -> Live {
        let from_node = self.probe.client.interface.is_none();
        self.enter(Table::Nat, if from_node { "OUTPUT" } else { "PREROUTING" }, &[SERVICES]);
        if !self.endpoints.is_empty() {
            self.finish();
        } else if self.live.verdict == Verdict::Untouched {
            let ours = [PROXY_FIREWALL, SERVICES, EXTERNAL_SERVICES, NODE_PORTS];
            let hooks: &[&str] = match (from_node, self.probe.to_node) {
                (true, false) => &["OUTPUT"],
                (true, true) => &["OUTPUT", "INPUT"],
                (false, true) => &["INPUT"],
                (false, false) => &["FORWARD"],
            };
            for hook in hooks {
                if self.live.verdict == Verdict::Untouched {
                    self.enter(Table::Filter, hook, &ours);
                }
            }
        }
        self.live
    }

    fn finish(&mut self) {
        if self.live.next.is_none() {
            self.live.next = match (&self.turns, self.turn) {
                (Some(turns), Some(turn)) => turns.get(turn as usize).copied().flatten().map(|endpoint| Next {
                    endpoint,
                    reason: NextReason::Turn { slot: turn as u32, of: turns.len() as u32 },
                }),
                (None, _) if self.endpoints.len() == 1 => {
                    Some(Next { endpoint: self.endpoints[0], reason: NextReason::Only })
                }
                _ => None,
            };
        }
        let endpoints = std::mem::take(&mut self.endpoints);
        self.live.lead_to(endpoints);
    }

    fn chain(&self, table: Table, name: &str) -> Option<&'a [(String, u64)]> {
        let chains = if table == Table::Nat { &self.tables.nat } else { &self.tables.filter };
        chains.get(name).map(Vec::as_slice)
    }

    /// A built-in chain, of which only the jumps to ours are followed.
    fn enter(&mut self, table: Table, chain: &str, ours: &[&str]) {
        let rules = self.chain(table, chain).unwrap_or_default();
        let jumps: Vec<String> =
            rules.iter().filter_map(|(rule, _)| Rule::parse(rule)?.target.map(str::to_owned)).collect();
        if !jumps.iter().any(|target| target == SERVICES || target == EXTERNAL_SERVICES || target == NODE_PORTS) {
            self.live.problem(format!("chain {chain} of table {table} has no jump to our chains"));
        }
        for target in jumps.iter().filter(|target| ours.contains(&target.as_str())) {
            if matches!(self.walk(table, target), Way::Done) {
                return;
            }
        }
    }

    fn walk(&mut self, table: Table, name: &str) -> Way {
        let Some(rules) = self.chain(table, name) else {
            self.live.problem(format!("chain {name} of table {table} is not there"));
            return Way::Back;
        };
        if name.starts_with("KUBE-SVC-") || name.starts_with("KUBE-SVL-") {
            return self.balance(name, rules);
        }
        let packet = Packet::of(self.probe);
        for (text, _) in rules {
            let Some(rule) = Rule::parse(text) else {
                self.live.problem(format!("a rule of {name} is not of our making: {text}"));
                continue;
            };
            if !rule.matches(&packet) {
                continue;
            }
            match rule.target {
                Some("RETURN") => return Way::Back,
                Some("DROP") => return self.decided(name, Verdict::Drop),
                Some("REJECT") => return self.decided(name, Verdict::Reject),
                Some("ACCEPT") => return Way::Done,
                Some(MARK_MASQ) => self.live.masquerade = true,
                Some(chain) if chain.starts_with("KUBE-") => {
                    if chain != NODE_PORTS_REFUSED && table == Table::Nat {
                        self.live.step(format!("{name}: {chain}"));
                    }
                    if matches!(self.walk(table, chain), Way::Done) {
                        return Way::Done;
                    }
                }
                _ => {}
            }
        }
        Way::Back
    }

    fn decided(&mut self, chain: &str, verdict: Verdict) -> Way {
        self.live.step(format!("{chain}: {verdict:?}"));
        self.live.verdict = verdict;
        Way::Done
    }

    /// A chain that balances: all endpoints it can lead to, and whose turn it is.
    fn balance(&mut self, name: &str, rules: &[(String, u64)]) -> Way {
        let packet = Packet::of(self.probe);
        let mut round = RoundRobin::default();
        let mut turns = Vec::new();
        for (text, packets) in rules {
            round.add(text, *packets);
            let Some(rule) = Rule::parse(text) else {
                self.live.problem(format!("a rule of {name} is not of our making: {text}"));
                continue;
            };
            if !rule.matches(&packet) {
                continue;
            }
            match rule.target {
                Some(MARK_MASQ) => self.live.masquerade = true,
                // Who was there before: what a list of clients holds is in /proc, not in the table.
                Some(target) if rule.is_recent => self.remembered(target),
                Some(target) => turns.push(self.endpoint(target)),
                None => {}
            }
        }
        self.live.step(format!("{name}: {} endpoints in turn", turns.len()));
        self.endpoints.extend(turns.iter().flatten());
        if turns.len() > 1 {
            self.turn = round.turns().map(|(_, turn)| turn);
            self.turns = Some(turns);
        }
        Way::Done
    }

    fn remembered(&mut self, endpoint_chain: &str) {
        if self.live.next.is_some() || !is_listed(endpoint_chain, self.probe) {
            return;
        }
        if let Some(endpoint) = self.endpoint(endpoint_chain) {
            self.live.step(format!("list {endpoint_chain}: this client had {endpoint}"));
            self.live.next = Some(Next { endpoint, reason: NextReason::Affinity { left: None } });
        }
    }

    fn endpoint(&mut self, chain: &str) -> Option<SocketAddr> {
        let rules = self.chain(Table::Nat, chain).unwrap_or_default();
        let at = rules.iter().find_map(|(rule, _)| rule.split_once("--to-destination ")?.1.trim().parse().ok());
        if at.is_none() {
            self.live.problem(format!("chain {chain} of table nat leads to no endpoint"));
        }
        at
    }
}

/// Whether a client is in an endpoint's list of clients. How long ago is left to the kernel, whose clock it is.
fn is_listed(chain: &str, probe: &Probe) -> bool {
    let list = std::fs::read_to_string(format!("/proc/thread-self/net/xt_recent/{chain}")).unwrap_or_default();
    let client = match probe.client.address {
        std::net::IpAddr::V4(address) => address.to_string(),
        // All eight groups in full, as the kernel's %pI6.
        std::net::IpAddr::V6(address) => address.segments().map(|segment| format!("{segment:04x}")).join(":"),
    };
    list.lines().any(|line| line.split(' ').next() == Some(&format!("src={client}")))
}
