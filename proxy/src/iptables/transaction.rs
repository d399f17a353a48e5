//! Changes of the tables of one family, as input for `iptables-restore --noflush`.

use std::fmt::Write;

use super::names::Table;

/// Changes of the tables of one family. Each table changes at once: the kernel gets it as a whole (legacy) or as one
/// transaction (nft).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transaction {
    filter: TableChange,
    nat: TableChange,
    mangle: TableChange,
}

impl Transaction {
    pub(crate) fn table(&mut self, table: Table) -> &mut TableChange {
        match table {
            Table::Filter => &mut self.filter,
            Table::Nat => &mut self.nat,
            Table::Mangle => &mut self.mangle,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables().all(|(_, change)| change.is_empty())
    }

    pub(crate) fn nat(&self) -> &TableChange {
        &self.nat
    }

    fn tables(&self) -> impl Iterator<Item = (&'static str, &TableChange)> {
        // Refusals come first and go first, as in kube-proxy's input: what is translated never meets them anyway.
        [("*filter\n", &self.filter), ("*nat\n", &self.nat), ("*mangle\n", &self.mangle)].into_iter()
    }

    /// The input, in pieces to be written one after the other: it can be 40 MB.
    pub(crate) fn input(&self) -> Vec<&str> {
        let changed = self.tables().filter(|(_, change)| !change.is_empty());
        changed.flat_map(|(head, c)| [head, &c.declarations, &c.rules, &c.deletions, "COMMIT\n"]).collect()
    }
}

/// Changes of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableChange {
    /// `:CHAIN - [0:0]`: makes the chain, or empties it.
    declarations: String,
    rules: String,
    deletions: String,
}

impl TableChange {
    fn is_empty(&self) -> bool {
        self.declarations.is_empty() && self.rules.is_empty()
    }

    /// Makes the chain if need be, with exactly these rules.
    pub(crate) fn rewrite(&mut self, chain: &str, rules: impl IntoIterator<Item = impl AsRef<str>>) {
        self.declare(chain);
        for rule in rules {
            self.append(chain, rule.as_ref());
        }
    }

    /// Removes the chain, which nothing may jump to after this transaction.
    pub(crate) fn delete(&mut self, chain: &str) {
        self.declare(chain);
        write(&mut self.deletions, format_args!("-X {chain}\n"));
    }

    /// Makes the chain, or empties it.
    pub(crate) fn declare(&mut self, chain: &str) {
        write(&mut self.declarations, format_args!(":{chain} - [0:0]\n"));
    }

    pub(crate) fn append(&mut self, chain: &str, rule: &str) {
        write(&mut self.rules, format_args!("-A {chain} {rule}\n"));
    }

    pub(crate) fn insert_first(&mut self, chain: &str, rule: &str) {
        write(&mut self.rules, format_args!("-I {chain} 1 {rule}\n"));
    }

    pub(crate) fn remove(&mut self, chain: &str, rule: &str) {
        write(&mut self.rules, format_args!("-D {chain} {rule}\n"));
    }

    /// The chains that this makes, rewrites or deletes.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &str> {
        self.declarations.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next())
    }
}

fn write(to: &mut String, what: std::fmt::Arguments<'_>) {
    to.write_fmt(what).expect("writing to a String never fails");
}
