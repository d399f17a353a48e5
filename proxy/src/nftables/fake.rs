//! Our table in memory: checks references as the kernel does and dumps sorted text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::{Arc, Mutex},
};

use super::{
    driver::{Nft, NftError},
    objects::{Element, EndpointMap, Value},
    plan::Content,
    transaction::{Operation, Transaction},
};

/// Shared, so that a test can look at the table a data plane owns.
#[derive(Clone, Default)]
pub(crate) struct FakeNft(Arc<Mutex<Table>>);

#[derive(Clone, Default)]
struct Table {
    /// `None`: there is no table.
    content: Option<Content>,
    counters: BTreeMap<Element, u64>,
    /// Every transaction run, as nft would have got it.
    scripts: Vec<String>,
    fail_next: bool,
}

impl FakeNft {
    pub(crate) fn content(&self) -> Content {
        self.0.lock().unwrap().content.clone().expect("the table exists")
    }

    pub(crate) fn delete_table(&self) {
        self.0.lock().unwrap().content = None;
    }

    /// Makes the next transaction fail.
    pub(crate) fn fail_next(&self) {
        self.0.lock().unwrap().fail_next = true;
    }

    pub(crate) fn count(&self, element: Element, connections: u64) {
        self.0.lock().unwrap().counters.insert(element, connections);
    }

    /// The transactions since the last call.
    pub(crate) fn take_scripts(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().scripts)
    }

    /// One line an object, sorted; `*` in place of the bucket, which depends on history.
    pub(crate) fn dump(&self) -> String {
        let content = self.content();
        let mut text = String::new();
        for map in &content.maps {
            writeln!(text, "map {map}").unwrap();
        }
        for (element, value) in &content.elements {
            let value = match value {
                Value::Chain(chain) => format!("jump {:?}", chain.pool),
                other => other.to_string(),
            };
            writeln!(text, "{} {element} : {value}", element.collection()).unwrap();
        }
        text
    }

    /// No verdict without its chain, no chain without its map, no slot empty, nothing left over.
    pub(crate) fn check_references(&self) -> Result<(), String> {
        let content = self.content();
        let chain_maps: BTreeSet<_> = content.chains.iter().map(|chain| chain.pool.map).collect();
        if chain_maps != content.maps {
            return Err(format!("maps {:?} but chains look into {chain_maps:?}", content.maps));
        }
        let (mut used, mut slots) = (BTreeSet::new(), BTreeSet::new());
        for (element, value) in &content.elements {
            if let (Element::Dispatch(target), Value::Chain(chain)) = (element, value) {
                used.insert(*chain);
                let count = chain.pool.map.count;
                slots.extend((0..count).map(|slot| Element::Endpoint { count, target: *target, slot }));
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

impl Table {
    fn run(&mut self, operation: &Operation) -> Result<(), String> {
        match operation {
            Operation::Rebuild => self.content = Some(Content::default()),
            Operation::DeleteTable => self.content = None,
            _ => self.change(operation)?,
        }
        Ok(())
    }

    fn change(&mut self, operation: &Operation) -> Result<(), String> {
        let content = self.content.as_mut().ok_or("no table")?;
        let fail = |why: &str| Err(format!("{operation:?}: {why}"));
        match operation {
            Operation::Rebuild | Operation::DeleteTable => {}
            Operation::AddMap(map) => {
                if !content.maps.insert(*map) {
                    return fail("exists");
                }
            }
            Operation::AddChain(chain) => {
                if !content.maps.contains(&chain.pool.map) || !content.chains.insert(*chain) {
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
                let used = content.chains.iter().any(|chain| chain.pool.map == *map);
                if used || !content.maps.remove(map) {
                    return fail("in use, or does not exist");
                }
            }
        }
        Ok(())
    }
}

fn map_of(element: &Element) -> Option<EndpointMap> {
    EndpointMap::parse(&element.collection())
}

impl Nft for FakeNft {
    fn list(&self) -> Result<Option<Content>, NftError> {
        Ok(self.0.lock().unwrap().content.clone())
    }

    fn is_present(&self) -> Result<bool, NftError> {
        Ok(self.0.lock().unwrap().content.is_some())
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let mut table = self.0.lock().unwrap();
        let refused = |stderr| NftError::Refused { line: None, stderr };
        if std::mem::take(&mut table.fail_next) {
            return Err(refused("told to fail".to_owned()));
        }
        let mut next = table.clone();
        for operation in &transaction.operations {
            next.run(operation).map_err(refused)?;
        }
        next.scripts.push(transaction.render());
        *table = next;
        Ok(())
    }

    fn counters(&self, elements: &[Element]) -> Result<BTreeMap<Element, u64>, NftError> {
        let table = self.0.lock().unwrap();
        let counter = |element: &Element| Some((*element, *table.counters.get(element)?));
        Ok(elements.iter().filter_map(counter).collect())
    }
}
