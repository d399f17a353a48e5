//! Our table in memory: checks references as the kernel does and dumps sorted text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex},
};

use super::{
    collection::{Collection, Stage},
    driver::{Nft, NftError},
    element::{Element, FixedChain, Value},
    listing::Seen,
    plan::Content,
    pool::{EndpointMap, MapKind},
    shadow::Observed,
    table::Table,
    transaction::{Operation, Transaction},
};
use crate::plan::PacketSettings;

/// Shared, so that a test can look at the table a data plane owns.
#[derive(Clone, Default)]
pub(crate) struct FakeNft(Arc<Mutex<Tables>>);

#[derive(Clone, Default)]
struct Tables {
    /// `None`: there is no table.
    content: Option<Content>,
    stand_in: Option<Content>,
    /// It has another layout.
    foreign: bool,
    counters: BTreeMap<Element, u64>,
    /// Every transaction run, as nft would have got it.
    scripts: Vec<String>,
    /// Transactions until one fails.
    until_failure: Option<usize>,
}

impl FakeNft {
    pub(crate) fn content(&self) -> Content {
        self.0.lock().unwrap().content.clone().expect("the table exists")
    }

    pub(crate) fn delete_table(&self) {
        self.0.lock().unwrap().content = None;
    }

    /// Makes the table one of another layout.
    pub(crate) fn change_layout(&self) {
        self.0.lock().unwrap().foreign = true;
    }

    /// Makes a transaction fail, the one after so many others.
    pub(crate) fn fail_after(&self, transactions: usize) {
        self.0.lock().unwrap().until_failure = Some(transactions);
    }

    pub(crate) fn count(&self, element: Element, connections: u64) {
        self.0.lock().unwrap().counters.insert(element, connections);
    }

    /// The transactions since the last call.
    pub(crate) fn take_scripts(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().scripts)
    }

    /// One line an object, sorted; without buckets and numbers, which depend on history.
    pub(crate) fn dump(&self) -> String {
        let content = self.content();
        let mut text = String::new();
        let maps: BTreeSet<_> = content.maps.iter().map(|map| (map.kind, map.pool)).collect();
        for (kind, pool) in maps {
            writeln!(text, "map {kind:?} of {pool:?}").unwrap();
        }
        let mut lines: Vec<String> = content.elements.iter().map(|(element, value)| line(*element, *value)).collect();
        lines.sort_unstable();
        lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        text
    }

    /// No verdict without its chain, no chain without its map, no slot empty, nothing left over.
    pub(crate) fn check_references(&self) -> Result<(), String> {
        let content = self.content();
        let chain_maps: BTreeSet<_> = content.chains.iter().flat_map(|chain| chain.maps()).collect();
        if chain_maps != content.maps {
            return Err(format!("maps {:?} but chains look into {chain_maps:?}", content.maps));
        }
        let (mut used, mut slots) = (BTreeSet::new(), BTreeSet::new());
        for (element, value) in &content.elements {
            let Element::Dispatch { target, .. } = *element else { continue };
            let leads_to = |stage| content.elements.contains_key(&Element::Dispatch { stage, target });
            match value {
                Value::Chain(chain) => {
                    used.insert(*chain);
                    let map =
                        chain.map(if chain.pool.affinity.is_some() { MapKind::Choices } else { MapKind::Endpoints });
                    for slot in 0..chain.pool.count {
                        let element = Element::Endpoint { map, target, slot };
                        slots.insert(element);
                        if let Some(Value::Number(slot)) = content.elements.get(&element) {
                            slots.insert(Element::Endpoint { map: chain.endpoints(), target, slot: *slot });
                        }
                    }
                }
                Value::Fixed(FixedChain::Guard(_)) if leads_to(Stage::Admitted) => {}
                Value::Fixed(FixedChain::BySource(_)) if leads_to(Stage::Node) || leads_to(Stage::Outside) => {}
                other => return Err(format!("{element:?} leads to {other:?}")),
            }
        }
        if used != content.chains {
            return Err(format!("chains {:?} but verdicts name {used:?}", content.chains));
        }
        let present: BTreeSet<_> = content.elements.keys().filter(|e| map_of(e).is_some()).copied().collect();
        if present != slots {
            return Err(format!("endpoints {present:?} but chains choose among {slots:?}"));
        }
        Ok(())
    }
}

fn line(element: Element, value: Value) -> String {
    let value = match value {
        Value::Chain(chain) => format!("jump {:?}", chain.pool),
        Value::Number(_) => "a number".to_owned(),
        other => other.to_string(),
    };
    match element {
        Element::Endpoint { map, target, slot } => {
            let EndpointMap { kind, pool, .. } = map;
            let slot = if kind == MapKind::Numbered { "a number".to_owned() } else { slot.to_string() };
            format!("{kind:?} of {pool:?} {target} . {slot} : {value}")
        }
        other => format!("{} {other} : {value}", other.collection()),
    }
}

impl Tables {
    fn run(&mut self, table: Table, operation: &Operation) -> Result<(), String> {
        let content = match table {
            Table::Ours => &mut self.content,
            Table::StandIn => &mut self.stand_in,
        };
        match operation {
            Operation::Rebuild => *content = Some(Content::default()),
            Operation::DeleteTable => *content = None,
            _ => return self.change(table, operation),
        }
        if table == Table::Ours {
            self.foreign = false;
        }
        Ok(())
    }

    fn change(&mut self, table: Table, operation: &Operation) -> Result<(), String> {
        let content = match table {
            Table::Ours => &mut self.content,
            Table::StandIn => &mut self.stand_in,
        };
        let content = content.as_mut().ok_or("no table")?;
        let fail = |why: &str| Err(format!("{operation:?}: {why}"));
        match operation {
            Operation::Rebuild | Operation::DeleteTable => {}
            Operation::AddMap(map) => {
                if !content.maps.insert(*map) {
                    return fail("exists");
                }
            }
            Operation::AddChain(chain) => {
                if !chain.maps().all(|map| content.maps.contains(&map)) || !content.chains.insert(*chain) {
                    return fail("no map, or exists");
                }
            }
            Operation::AddElement { element, value, connections } => {
                let refers = match value {
                    Value::Chain(chain) => content.chains.contains(chain),
                    _ => map_of(element).is_none_or(|map| content.maps.contains(&map)),
                };
                if !refers || content.elements.insert(*element, *value).is_some() {
                    return fail("refers to nothing, or exists");
                }
                self.counters.insert(*element, *connections);
            }
            Operation::DeleteElement(element) => {
                if content.elements.remove(element).is_none() {
                    return fail("does not exist");
                }
            }
            Operation::DeleteChain(chain) => {
                let used = content.elements.values().any(|value| *value == Value::Chain(*chain));
                if used || !content.chains.remove(chain) {
                    return fail("in use, or does not exist");
                }
            }
            Operation::DeleteMap(map) => {
                let used = content.chains.iter().any(|chain| chain.maps().any(|used| used == *map));
                if used || !content.maps.remove(map) {
                    return fail("in use, or does not exist");
                }
            }
        }
        Ok(())
    }
}

fn map_of(element: &Element) -> Option<EndpointMap> {
    match element.collection() {
        Collection::Endpoints(map) => Some(map),
        _ => None,
    }
}

impl Nft for FakeNft {
    fn observe(&self) -> Result<Seen, NftError> {
        let tables = self.0.lock().unwrap();
        let table = match &tables.content {
            Some(_) if tables.foreign => Observed::Foreign,
            Some(content) => Observed::Ours(content.clone()),
            None => Observed::Nothing,
        };
        Ok(Seen { table, stand_in: tables.stand_in.is_some() })
    }

    fn is_present(&mut self) -> Result<bool, NftError> {
        Ok(self.0.lock().unwrap().content.is_some())
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let mut table = self.0.lock().unwrap();
        let refused = |stderr| NftError::Refused { line: None, stderr };
        match table.until_failure.take() {
            Some(0) => return Err(refused("told to fail".to_owned())),
            left => table.until_failure = left.map(|left| left - 1),
        }
        let mut next = table.clone();
        for operation in &transaction.operations {
            next.run(transaction.table, operation).map_err(refused)?;
        }
        next.scripts.push(transaction.render(&PacketSettings::default()));
        *table = next;
        Ok(())
    }

    fn route_localnet(&mut self) -> Result<(), NftError> {
        Ok(())
    }

    fn counters(&self, elements: &[Element]) -> Result<BTreeMap<Element, u64>, NftError> {
        let table = self.0.lock().unwrap();
        let counter = |element: &Element| Some((*element, *table.counters.get(element)?));
        Ok(elements.iter().filter_map(counter).collect())
    }
}
