//! The difference between what the table holds and what it should hold, as transactions in a safe order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    objects::{Chain, Element, EndpointMap, Target, Value},
    transaction::{Operation, Transaction},
};

/// Elements and what they map to.
pub(crate) type Elements = BTreeMap<Element, Value>;

/// What is in the kernel, or ought to be; or the part of it a change is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) maps: BTreeSet<EndpointMap>,
    pub(crate) chains: BTreeSet<Chain>,
    pub(crate) elements: Elements,
}

impl Content {
    /// Content with exactly the maps that `chains` look into.
    pub(crate) fn new(chains: BTreeSet<Chain>, elements: Elements) -> Self {
        Self { maps: chains.iter().map(|chain| chain.pool.map).collect(), chains, elements }
    }
}

/// Two transactions, run one after the other; either may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Maps and chains that nothing refers to yet. Apart from `commit`, because a packet that is in the table while a
    /// transaction is committed sees the chains it created as empty: they have to be there before a verdict names them.
    pub(crate) prepare: Transaction,
    /// All the rest; clients see all of it or nothing.
    pub(crate) commit: Transaction,
    /// Endpoint elements of `commit` that take the place of another (new, old): it hands on its counter.
    pub(crate) inherited: Vec<(Element, Element)>,
}

impl Plan {
    /// Builds the table anew with `desired` in it, in one transaction.
    pub(crate) fn rebuild(desired: &Content) -> Self {
        let mut plan = Self::between(&Content::default(), desired);
        let mut operations = vec![Operation::Rebuild];
        operations.append(&mut plan.prepare.operations);
        operations.append(&mut plan.commit.operations);
        Self { commit: Transaction { operations }, ..Self::default() }
    }

    /// Turns `before` into `after`: add, switch, then remove.
    pub(crate) fn between(before: &Content, after: &Content) -> Self {
        let new_maps = after.maps.difference(&before.maps).copied().map(Operation::AddMap);
        let new_chains = after.chains.difference(&before.chains).copied().map(Operation::AddChain);

        let is_in = |elements: &Elements, (element, value): (&Element, &Value)| elements.get(element) == Some(value);
        let (replaced, gone): (Vec<_>, Vec<_>) = before
            .elements
            .iter()
            .filter(|e| !is_in(&after.elements, *e))
            .map(|(element, _)| *element)
            .partition(|element| after.elements.contains_key(element));
        let added = after
            .elements
            .iter()
            .filter(|e| !is_in(&before.elements, *e))
            .map(|(element, value)| Operation::AddElement { element: *element, value: *value, connections: 0 });

        let gone_chains = before.chains.difference(&after.chains).copied().map(Operation::DeleteChain);
        let gone_maps = before.maps.difference(&after.maps).copied().map(Operation::DeleteMap);
        let mut commit: Vec<Operation> = replaced.into_iter().map(Operation::DeleteElement).collect();
        commit.extend(added);
        commit.extend(gone.into_iter().rev().map(Operation::DeleteElement));
        commit.extend(gone_chains);
        commit.extend(gone_maps);
        Self {
            prepare: Transaction { operations: new_maps.chain(new_chains).collect() },
            commit: Transaction { operations: commit },
            inherited: inherited(&before.elements, &after.elements),
        }
    }

    /// Lets endpoints go on counting where they were. Elements `counted` does not name start at 0.
    pub(crate) fn carry(&mut self, counted: &BTreeMap<Element, u64>) {
        let inherited: BTreeMap<Element, u64> =
            self.inherited.iter().filter_map(|(new, old)| Some((*new, *counted.get(old)?))).collect();
        for operation in &mut self.commit.operations {
            if let Operation::AddElement { element, connections, .. } = operation {
                *connections = inherited.get(element).copied().unwrap_or(0);
            }
        }
    }
}

/// Pairs endpoint elements that are new or changed with those that gave the same target the same endpoint before.
fn inherited(before: &Elements, after: &Elements) -> Vec<(Element, Element)> {
    let endpoint = |element: &Element, value: &Value| -> Option<(Target, SocketAddr)> {
        match (element, value) {
            (Element::Endpoint { target, .. }, Value::Endpoint(to)) => Some((*target, *to)),
            _ => None,
        }
    };
    let old: BTreeMap<_, _> = before
        .iter()
        .filter(|(element, value)| after.get(element) != Some(value))
        .filter_map(|(element, value)| Some((endpoint(element, value)?, *element)))
        .collect();
    after
        .iter()
        .filter(|(element, value)| before.get(element) != Some(value))
        .filter_map(|(element, value)| Some((*element, *old.get(&endpoint(element, value)?)?)))
        .collect()
}
