//! The difference between what the table holds and what it should hold, as transactions in a safe order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    element::{Element, Value},
    pool::{Chain, EndpointMap, List},
    table::Table,
    target::Target,
    transaction::{Operation, Transaction},
};

/// Operations in a transaction of a load that may be divided: some 2 MB in the kernel's and our own buffers.
const OPERATIONS_A_PART: usize = 16_384;

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
        Self { maps: chains.iter().flat_map(|chain| chain.maps()).collect(), chains, elements }
    }
}

/// Transactions to run one after the other; any may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Maps and chains that nothing refers to yet. Apart from `commit`, because a packet that is in the table while a
    /// transaction is committed sees the chains it created as empty: they have to be there before a verdict names them.
    pub(crate) prepare: Transaction,
    /// Elements; clients see all of it or nothing. Where nothing of ours was there before, nobody could tell, and it may be
    /// done in parts.
    pub(crate) commit: Transaction,
    /// Removes chains and maps that nothing refers to any more. Not urgent.
    pub(crate) retire: Transaction,
    /// Whether `commit` may be done in parts, which bounds the memory it takes.
    pub(crate) divisible: bool,
    /// Endpoint elements of `commit` that take the place of another (new, old): it hands on its counter.
    pub(crate) inherited: Vec<(Element, Element)>,
    /// Whether all of it is done to the stand-in first, which then serves meanwhile.
    pub(crate) with_stand_in: bool,
    /// Whether the stand-in is to go in the end.
    pub(crate) remove_stand_in: bool,
}

impl Plan {
    /// Makes the table and then fills it; there is none now.
    pub(crate) fn build(desired: &Content) -> Self {
        let mut plan = Self::between(&Content::default(), desired);
        plan.prepare.operations.insert(0, Operation::Rebuild);
        Self { divisible: true, ..plan }
    }

    /// Builds the table anew; nobody is to miss the one of another layout that is there now.
    pub(crate) fn rebuild(desired: &Content) -> Self {
        Self { with_stand_in: true, remove_stand_in: true, ..Self::build(desired) }
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

        let mut commit: Vec<Operation> = replaced.into_iter().map(Operation::DeleteElement).collect();
        commit.extend(added);
        commit.extend(gone.into_iter().rev().map(Operation::DeleteElement));
        let gone_chains = before.chains.difference(&after.chains).copied().map(Operation::DeleteChain);
        let gone_maps = before.maps.difference(&after.maps).copied().map(Operation::DeleteMap);
        Self {
            prepare: of_ours(new_maps.chain(new_chains).collect()),
            commit: of_ours(commit),
            retire: of_ours(gone_chains.chain(gone_maps).collect()),
            inherited: inherited(&before.elements, &after.elements),
            ..Self::default()
        }
    }

    /// Postpones `retire` to `idle`, and takes back from there what is needed again: making and removing chains is the
    /// work of `nft`, and the slowest part of a change, but only the making is urgent.
    pub(crate) fn postpone(&mut self, idle: &mut Transaction) {
        self.prepare.operations.retain(|operation| {
            let removal = match operation {
                Operation::AddMap(map) => Operation::DeleteMap(*map),
                Operation::AddChain(chain) => Operation::DeleteChain(*chain),
                _ => return true,
            };
            let position = idle.operations.iter().position(|postponed| *postponed == removal);
            position.map(|position| idle.operations.remove(position)).is_none()
        });
        idle.operations.append(&mut self.retire.operations);
        // A map goes after the chains that look into it.
        idle.operations.sort_by_key(|operation| matches!(operation, Operation::DeleteMap(_)));
    }

    /// The transactions in their order; none is empty.
    pub(crate) fn transactions(self) -> Vec<Transaction> {
        let mut transactions = Vec::new();
        if self.with_stand_in {
            transactions.extend(self.clone().transactions_of(Table::StandIn));
        }
        let remove_stand_in = self.remove_stand_in;
        transactions.extend(self.transactions_of(Table::Ours));
        transactions.extend(remove_stand_in.then(|| Transaction::removal(Table::StandIn)));
        transactions
    }

    fn transactions_of(self, table: Table) -> impl Iterator<Item = Transaction> {
        let part = if self.divisible { OPERATIONS_A_PART } else { usize::MAX };
        let mut rest = self.commit.operations.into_iter().peekable();
        let commits = std::iter::from_fn(move || {
            rest.peek()?;
            Some(rest.by_ref().take(part).collect())
        });
        let others = |transaction: Transaction| Some(transaction.operations).filter(|o| !o.is_empty()).into_iter();
        let all = others(self.prepare).chain(commits).chain(others(self.retire));
        all.map(move |operations| Transaction { table, operations })
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

fn of_ours(operations: Vec<Operation>) -> Transaction {
    Transaction { table: Table::Ours, operations }
}

/// Pairs endpoint elements that are new or changed with those that gave the same target the same endpoint before.
fn inherited(before: &Elements, after: &Elements) -> Vec<(Element, Element)> {
    let endpoint = |element: &Element, value: &Value| -> Option<(Target, List, SocketAddr)> {
        match (element, value) {
            (Element::Endpoint { target, map, .. }, Value::Endpoint(to)) => Some((*target, map.pool.list, *to)),
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
