//! The tables in memory: reads what `iptables-restore` would read, checks it as the kernel does, and dumps text.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex},
};

use super::{
    driver::Xtables,
    failure::XtablesError,
    layout::Features,
    listing::Line,
    names::{CLUSTER_IPS_REFUSED, Table},
    transaction::Transaction,
};
use crate::model::IpFamily;

/// Chains with their rules and packet counters.
type Chains = BTreeMap<String, Vec<(String, u64)>>;
type Tables = BTreeMap<(IpFamily, Table), Chains>;

/// Shared, so that a test can look at the tables a data plane works on.
#[derive(Clone)]
pub(crate) struct FakeXtables(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: Tables,
    /// Every input, as `iptables-restore` would have got it.
    inputs: Vec<String>,
    fail_next: bool,
    replaces_tables: bool,
    localnet: bool,
    disturbed: bool,
}

const BUILT_IN: [(Table, &[&str]); 3] = [
    (Table::Filter, &["INPUT", "FORWARD", "OUTPUT"]),
    (Table::Nat, &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    (Table::Mangle, &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
];

impl FakeXtables {
    pub(crate) fn new(replaces_tables: bool) -> Self {
        let mut state = State { replaces_tables, ..State::default() };
        for family in [IpFamily::V4, IpFamily::V6] {
            for (table, chains) in BUILT_IN {
                let chains = chains.iter().map(|chain| ((*chain).to_owned(), Vec::new())).collect();
                state.tables.insert((family, table), chains);
            }
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// Makes the next transaction fail.
    pub(crate) fn fail_next(&self) {
        self.0.lock().unwrap().fail_next = true;
    }

    /// What was run since the last call, of both families.
    pub(crate) fn take_inputs(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().inputs)
    }

    pub(crate) fn localnet_is_routed(&self) -> bool {
        self.0.lock().unwrap().localnet
    }

    /// What a foreign program does; the text is input for `iptables-restore --noflush`.
    pub(crate) fn foreign(&self, family: IpFamily, input: &str) {
        restore(&mut self.0.lock().unwrap().tables, family, input).unwrap();
    }

    /// `iptables -F` of one table.
    pub(crate) fn flush(&self, family: IpFamily, table: Table) {
        let mut state = self.0.lock().unwrap();
        state.disturbed = !state.replaces_tables;
        state.tables.get_mut(&(family, table)).unwrap().values_mut().for_each(Vec::clear);
    }

    /// Makes the rules of a chain have seen packets, those with a counter in `packets`.
    pub(crate) fn count(&self, family: IpFamily, chain: &str, packets: &[u64]) {
        let mut state = self.0.lock().unwrap();
        let rules = state.tables.get_mut(&(family, Table::Nat)).unwrap().get_mut(chain).unwrap();
        rules.iter_mut().zip(packets).for_each(|((_, counter), packets)| *counter = *packets);
    }

    /// The rules of one chain.
    pub(crate) fn rules(&self, family: IpFamily, table: Table, chain: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let rules = state.tables[&(family, table)].get(chain);
        rules.map(|rules| rules.iter().map(|(rule, _)| rule.clone()).collect()).unwrap_or_default()
    }

    /// Every chain and rule of one family.
    pub(crate) fn dump(&self, family: IpFamily) -> String {
        let state = self.0.lock().unwrap();
        let mut text = String::new();
        for ((_, table), chains) in state.tables.iter().filter(|((of, _), _)| *of == family) {
            writeln!(text, "*{table}").unwrap();
            for (chain, rules) in chains {
                writeln!(text, ":{chain}").unwrap();
                let mut rules: Vec<&str> = rules.iter().map(|(rule, _)| rule.as_str()).collect();
                // Their order is that in which the ClusterIPs came.
                if chain == CLUSTER_IPS_REFUSED {
                    rules.sort_unstable();
                }
                rules.iter().for_each(|rule| writeln!(text, "-A {chain} {rule}").unwrap());
            }
        }
        text
    }

    /// Chains of Service ports that nothing leads to, if any.
    pub(crate) fn unreferenced(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let mut unused = Vec::new();
        for chains in state.tables.values() {
            let targets: Vec<&str> = chains.values().flatten().map(|(rule, _)| target(rule)).collect();
            let own = chains.keys().filter(|chain| super::names::is_service_chain(chain));
            unused.extend(own.filter(|chain| !targets.contains(&chain.as_str())).cloned());
        }
        unused
    }
}

/// Name of the chain or verdict a rule leads to.
fn target(rule: &str) -> &str {
    rule.rsplit_once("-j ").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or_default())
}

const VERDICTS: [&str; 7] = ["ACCEPT", "DROP", "RETURN", "REJECT", "MARK", "MASQUERADE", "DNAT"];

/// Each table wholly or not at all, as the program does.
fn restore(tables: &mut Tables, family: IpFamily, input: &str) -> Result<(), String> {
    let mut current: Option<((IpFamily, Table), Chains)> = None;
    for line in input.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let table = BUILT_IN.iter().find(|(table, _)| table.to_string() == name).ok_or(line)?.0;
            current = Some(((family, table), tables[&(family, table)].clone()));
        } else if line == "COMMIT" {
            let (key, chains) = current.take().ok_or("COMMIT without a table")?;
            check_targets(&chains)?;
            tables.insert(key, chains);
        } else {
            command(&mut current.as_mut().ok_or("no table")?.1, line).map_err(|why| format!("{line}: {why}"))?;
        }
    }
    current.map_or(Ok(()), |_| Err("no COMMIT".to_owned()))
}

fn command(chains: &mut Chains, line: &str) -> Result<(), &'static str> {
    if let Some(declared) = line.strip_prefix(':') {
        chains.insert(declared.split(' ').next().ok_or("no name")?.to_owned(), Vec::new());
        return Ok(());
    }
    let mut parts = line.splitn(3, ' ');
    let (verb, chain, rule) = (parts.next(), parts.next().ok_or("no chain")?, parts.next().unwrap_or_default());
    let rules = chains.get_mut(chain).ok_or("no such chain")?;
    let find = |rules: &[(String, u64)], rule: &str| rules.iter().position(|(r, _)| r == rule).ok_or("no such rule");
    match verb {
        Some("-A") => rules.push((rule.to_owned(), 0)),
        Some("-I") => rules.insert(0, (rule.strip_prefix("1 ").ok_or("not at the front")?.to_owned(), 0)),
        Some("-D") => drop(rules.remove(find(rules, rule)?)),
        Some("-C") => drop(find(rules, rule)?),
        Some("-X") if rules.is_empty() => drop(chains.remove(chain)),
        Some("-X") => return Err("not empty"),
        _ => return Err("unknown command"),
    }
    Ok(())
}

fn check_targets(chains: &Chains) -> Result<(), String> {
    for (chain, rules) in chains {
        for (rule, _) in rules {
            let target = target(rule);
            if !VERDICTS.contains(&target) && !chains.contains_key(target) {
                return Err(format!("-A {chain} {rule}: no such chain"));
            }
        }
    }
    Ok(())
}

fn refused(stderr: String) -> XtablesError {
    XtablesError::Refused { program: "fake".to_owned(), line: None, stderr }
}

impl Xtables for FakeXtables {
    fn families(&self) -> Vec<IpFamily> {
        vec![IpFamily::V4, IpFamily::V6]
    }

    fn features(&self) -> Features {
        Features { random_fully: true, tcp_be_liberal: false }
    }

    fn replaces_tables(&self) -> bool {
        self.0.lock().unwrap().replaces_tables
    }

    fn list(&self, family: IpFamily, table: Table, each: &mut dyn FnMut(Line<'_>)) -> Result<(), XtablesError> {
        let state = self.0.lock().unwrap();
        let chains = &state.tables[&(family, table)];
        chains.keys().for_each(|chain| each(Line::Chain(chain)));
        for (chain, rules) in chains {
            rules.iter().for_each(|(rule, packets)| each(Line::Rule { chain, rule, packets: *packets }));
        }
        Ok(())
    }

    fn run(&mut self, family: IpFamily, transaction: &Transaction) -> Result<(), XtablesError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let mut state = self.0.lock().unwrap();
        if std::mem::take(&mut state.fail_next) {
            return Err(refused("told to fail".to_owned()));
        }
        let input = transaction.input().concat();
        restore(&mut state.tables, family, &input).map_err(refused)?;
        state.inputs.push(input);
        Ok(())
    }

    fn disturbed(&mut self) -> bool {
        std::mem::take(&mut self.0.lock().unwrap().disturbed)
    }

    fn holds(&self, family: IpFamily, checks: &str) -> Result<bool, XtablesError> {
        let mut tables = self.0.lock().unwrap().tables.clone();
        Ok(restore(&mut tables, family, checks).is_ok())
    }

    fn entries(&self, family: IpFamily) -> Option<u32> {
        let state = self.0.lock().unwrap();
        let tables = state.replaces_tables.then_some([Table::Filter, Table::Nat])?;
        let count = |table| state.tables[&(family, table)].values().map(|rules| rules.len() as u32).sum::<u32>();
        Some(tables.into_iter().map(count).sum())
    }

    fn route_localnet(&mut self) -> Result<(), XtablesError> {
        self.0.lock().unwrap().localnet = true;
        Ok(())
    }

    fn retire_other_variant(&mut self) -> Result<(), XtablesError> {
        Ok(())
    }
}
