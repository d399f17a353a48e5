//! The seam to the kernel: what the data plane needs of nft, and nft itself.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
    sync::Arc,
};

use weft_netlink::{NftBatch, NftQuery, NftWriter, sysctl};

use super::{
    element::Element,
    listing::{self, Seen},
    ruleset::{self, TABLE_NAME},
    transaction::{Operation, Transaction},
    wire,
};
use crate::{plan::PacketSettings, program};

/// Our table in the kernel.
pub(crate) trait Nft: Send + Sync {
    /// Reads all there is, once nothing changes it any more for an agent that is gone.
    fn observe(&self) -> Result<Seen, NftError>;

    /// Whether the table is there and has rules: a look, not a comparison.
    fn is_present(&mut self) -> Result<bool, NftError>;

    /// Carries out a transaction, wholly or not at all. An empty one costs nothing.
    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError>;

    /// Lets packets with a loopback address leave by other interfaces, for NodePorts at 127.0.0.1 (6.6).
    fn route_localnet(&mut self) -> Result<(), NftError>;

    /// New connections each endpoint element was chosen for. Elements without a counter are left out.
    fn counters(&self, elements: &[Element]) -> Result<BTreeMap<Element, u64>, NftError>;
}

/// nft could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// Not usual; the same after a retry.
    #[error("the program `nft` is not in PATH: install the package `nftables`, version 1.0.1 or newer")]
    Missing,
    /// Not usual: out of processes or memory. Retry.
    #[error("run nft")]
    Run(#[source] io::Error),
    /// Somebody else changed our table, or the kernel lacks a feature. Retry after reading the table again.
    #[error("nft refused {}: {stderr}", at(line.as_deref()))]
    Refused { line: Option<String>, stderr: String },
    /// As [`weft_netlink::Error`] says.
    #[error(transparent)]
    Netlink(#[from] weft_netlink::Error),
}

fn at(line: Option<&str>) -> String {
    line.map_or_else(|| "a command".to_owned(), |line| format!("`{line}`"))
}

/// Elements by netlink, all else by the program `nft`; both in the network namespace of the calling thread, which is always the
/// same one.
#[derive(Debug)]
pub(crate) struct Kernel {
    program: &'static str,
    settings: Arc<PacketSettings>,
    /// Made by the first transaction, and anew after an error.
    writer: Option<NftWriter>,
    query: Option<NftQuery>,
}

impl Kernel {
    pub(crate) fn new(settings: Arc<PacketSettings>) -> Self {
        Self { program: "nft", settings, writer: None, query: None }
    }

    fn script(&self, script: &str) -> Result<(), NftError> {
        let discard = |mut stdout: BufReader<_>| stdout.read_to_end(&mut Vec::new());
        let (finished, _) =
            program::change(self.program, &["-f", "-"], &[script], discard).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => NftError::Missing,
                _ => NftError::Run(error),
            })?;
        if finished.status.success() {
            return Ok(());
        }
        let line = failed_line(&finished.stderr, script);
        Err(NftError::Refused { line, stderr: first_error(&finished.stderr) })
    }
}

impl Nft for Kernel {
    fn observe(&self) -> Result<Seen, NftError> {
        program::wait_for_others().map_err(NftError::Run)?;
        Ok(listing::observe(&mut NftQuery::open()?, &self.settings)?)
    }

    fn is_present(&mut self) -> Result<bool, NftError> {
        let (chain, rules) = ruleset::ENTRANCE;
        // Kept for the reason given at `NftWriter`.
        let mut query = match self.query.take() {
            Some(query) => query,
            None => NftQuery::open()?,
        };
        let present = query.rules(TABLE_NAME, chain)? == rules;
        self.query = Some(query);
        Ok(present)
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        if !transaction.is_of_elements() {
            return self.script(&transaction.render(&self.settings));
        }
        let mut batch = NftBatch::new(transaction.table.name());
        for operation in &transaction.operations {
            match operation {
                Operation::AddElement { element, value, connections } => {
                    batch.add(&element.collection().to_string(), &wire::encode(*element, *value, *connections));
                }
                Operation::DeleteElement(element) => {
                    batch.delete(&element.collection().to_string(), &wire::identify(*element));
                }
                _ => unreachable!("it is of elements only"),
            }
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => NftWriter::open()?,
        };
        writer.commit(batch)?;
        self.writer = Some(writer);
        Ok(())
    }

    fn route_localnet(&mut self) -> Result<(), NftError> {
        Ok(sysctl::set("net/ipv4/conf/all/route_localnet", "1").map(drop)?)
    }

    fn counters(&self, elements: &[Element]) -> Result<BTreeMap<Element, u64>, NftError> {
        if elements.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut query = NftQuery::open()?;
        let mut counters = BTreeMap::new();
        for element in elements {
            let (set, key) = (element.collection().to_string(), wire::identify(*element).key);
            if let Some(packets) = query.packets(TABLE_NAME, &set, &key)? {
                counters.insert(*element, packets);
            }
        }
        Ok(counters)
    }
}

/// The line of `script` that nft names in its first error (`/dev/stdin:12:1-9: Error: ...`), cut to what a log can hold.
fn failed_line(stderr: &str, script: &str) -> Option<String> {
    let number: usize = stderr.split(':').nth(1)?.parse().ok()?;
    let line = script.lines().nth(number.checked_sub(1)?)?;
    Some(line.chars().take(300).collect())
}

/// What comes after `Error:` in the first line; the rest only repeats the command and underlines it.
fn first_error(stderr: &str) -> String {
    let line = stderr.lines().next().unwrap_or("no message");
    line.split_once("Error: ").map_or(line, |(_, text)| text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::table::Table;

    #[test]
    fn without_nft_the_error_says_what_to_install() {
        let mut nft = Kernel { program: "nft-that-is-not-there", settings: Arc::default(), writer: None, query: None };
        let error = nft.run(&Transaction::removal(Table::Ours)).unwrap_err().to_string();
        assert!(error.contains("install the package `nftables`"), "{error}");
    }

    #[test]
    fn a_refusal_names_the_line_and_the_reason() {
        let script = "add table inet x\ndelete chain inet x gone\n";
        let stderr = "/dev/stdin:2:21-24: Error: Could not process rule: No such file or directory\n\
                      delete chain inet x gone\n                    ^^^^\n";
        let (line, stderr) = (failed_line(stderr, script), first_error(stderr));
        let error = NftError::Refused { line, stderr }.to_string();
        let expected = "nft refused `delete chain inet x gone`: Could not process rule: No such file or directory";
        assert_eq!(error, expected);
        assert_eq!(failed_line("internal:0:0-0: Error: odd", script), None);
        assert_eq!(first_error(""), "no message");
    }
}
