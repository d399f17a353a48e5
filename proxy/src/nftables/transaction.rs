//! An ordered list of changes to our table, carried out by the kernel all at once or not at all.

use std::fmt::Write;

use super::{
    element::{Element, Value},
    pool::{Chain, EndpointMap},
    rules, ruleset,
    table::Table,
};
use crate::plan::PacketSettings;

/// Elements in one command: enough that commands cost nothing, few enough that an error names a readable line.
const ELEMENTS_A_COMMAND: usize = 200;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Replaces the whole table by an empty one with the static part; there need not be one.
    Rebuild,
    /// Removes the whole table; it need not be there.
    DeleteTable,
    AddMap(EndpointMap),
    /// With its rules.
    AddChain(Chain),
    AddElement {
        element: Element,
        value: Value,
        /// What an endpoint's counter starts at; 0 for other elements.
        connections: u64,
    },
    DeleteElement(Element),
    /// With its rules.
    DeleteChain(Chain),
    DeleteMap(EndpointMap),
}

/// What one transaction does. The order of operations is the order in which the kernel checks them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) table: Table,
    pub(crate) operations: Vec<Operation>,
}

impl Transaction {
    /// Removes the whole table; it need not be there.
    pub(crate) fn removal(table: Table) -> Self {
        Self { table, operations: vec![Operation::DeleteTable] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Whether it is about nothing but elements.
    pub(crate) fn is_of_elements(&self) -> bool {
        let is_element = |op: &Operation| matches!(op, Operation::AddElement { .. } | Operation::DeleteElement(_));
        self.operations.iter().all(is_element)
    }

    /// The commands for `nft -f -`, one a line.
    pub(crate) fn render(&self, settings: &PacketSettings) -> String {
        let mut text = String::new();
        let mut rest = self.operations.as_slice();
        while let [first, ..] = rest {
            let run = rest.iter().take_while(|op| mergeable(first, op)).count().max(1);
            let run = run.min(ELEMENTS_A_COMMAND);
            let (group, tail) = rest.split_at(run);
            self.render_group(&mut text, group, settings).expect("writing to a String");
            rest = tail;
        }
        text
    }

    fn render_group(&self, text: &mut String, group: &[Operation], settings: &PacketSettings) -> std::fmt::Result {
        let table = self.table;
        match &group[0] {
            Operation::Rebuild => text.push_str(&ruleset::rebuild_commands(settings, table)),
            Operation::DeleteTable => {
                writeln!(text, "add table {table}")?;
                writeln!(text, "delete table {table}")?;
            }
            Operation::AddMap(map) => {
                writeln!(text, "add map {table} {map} {{ {} }}", rules::map_type(*map))?;
            }
            Operation::AddChain(chain) => {
                writeln!(text, "add chain {table} {chain}")?;
                for rule in rules::chain_rules(settings, *chain) {
                    writeln!(text, "add rule {table} {chain} {rule}")?;
                }
            }
            Operation::DeleteChain(chain) => writeln!(text, "delete chain {table} {chain}")?,
            Operation::DeleteMap(map) => writeln!(text, "delete map {table} {map}")?,
            Operation::AddElement { element, .. } => {
                write!(text, "add element {table} {} {{ ", element.collection())?;
                render_elements(text, group)?;
            }
            Operation::DeleteElement(element) => {
                write!(text, "delete element {table} {} {{ ", element.collection())?;
                render_elements(text, group)?;
            }
        }
        Ok(())
    }
}

/// Whether both can be in one `add element` or `delete element` command.
fn mergeable(a: &Operation, b: &Operation) -> bool {
    match (a, b) {
        (Operation::AddElement { element: a, .. }, Operation::AddElement { element: b, .. })
        | (Operation::DeleteElement(a), Operation::DeleteElement(b)) => a.collection() == b.collection(),
        _ => false,
    }
}

fn render_elements(text: &mut String, group: &[Operation]) -> std::fmt::Result {
    for (i, operation) in group.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        match operation {
            Operation::AddElement { element, value: Value::Present, .. } | Operation::DeleteElement(element) => {
                write!(text, "{element}")?
            }
            Operation::AddElement { element, value, connections } => {
                write!(text, "{element}")?;
                if *connections > 0 {
                    write!(text, " counter packets {connections} bytes 0")?;
                }
                write!(text, " : {value}")?;
            }
            _ => unreachable!("only element operations are merged"),
        }
    }
    text.push_str(" }\n");
    Ok(())
}
