//! The seam to the kernel: what the data plane needs of nft, and nft itself.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
};

use weft_netlink::NftQuery;

use super::{
    listing,
    objects::Element,
    plan::Content,
    ruleset::{self, TABLE},
    transaction::Transaction,
};
use crate::program::{self, Finished};

/// Our table in the kernel.
pub(crate) trait Nft: Send + Sync {
    /// Reads all of the table; `None` if it is absent or not as we would have made it.
    fn list(&self) -> Result<Option<Content>, NftError>;

    /// Whether the table is there and has rules: a look, not a comparison.
    fn is_present(&self) -> Result<bool, NftError>;

    /// Carries out a transaction, wholly or not at all. An empty one costs nothing.
    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError>;

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
    Query(#[from] weft_netlink::Error),
    /// Not usual: a version of nft that prints something else.
    #[error("understand the listing of table {TABLE}")]
    Listing(#[source] serde_json::Error),
}

fn at(line: Option<&str>) -> String {
    line.map_or_else(|| "a command".to_owned(), |line| format!("`{line}`"))
}

/// The `nft` program, and netlink for small questions; both in the network namespace of the calling thread.
#[derive(Debug)]
pub(crate) struct NftCommand {
    program: &'static str,
}

impl Default for NftCommand {
    fn default() -> Self {
        Self { program: "nft" }
    }
}

impl NftCommand {
    fn spawn(&self, arguments: &[&str], input: &str) -> Result<(Finished, Vec<u8>), NftError> {
        let read = |mut output: BufReader<_>| {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).map(|_| bytes)
        };
        program::run(self.program, arguments, &[input], read).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NftError::Missing,
            _ => NftError::Run(error),
        })
    }

    fn script(&self, script: &str) -> Result<(), NftError> {
        let (Finished { status, stderr }, _) = self.spawn(&["-f", "-"], script)?;
        if status.success() {
            return Ok(());
        }
        Err(NftError::Refused { line: failed_line(&stderr, script), stderr: first_error(&stderr) })
    }
}

impl Nft for NftCommand {
    fn list(&self) -> Result<Option<Content>, NftError> {
        let arguments: Vec<&str> = ["-j", "list", "table"].into_iter().chain(TABLE.split(' ')).collect();
        let (Finished { status, stderr }, stdout) = self.spawn(&arguments, "")?;
        if status.success() {
            return listing::parse_table(&stdout).map_err(NftError::Listing);
        }
        if stderr.contains("No such file or directory") {
            return Ok(None);
        }
        Err(NftError::Refused { line: Some(arguments.join(" ")), stderr: first_error(&stderr) })
    }

    fn is_present(&self) -> Result<bool, NftError> {
        let (chain, rules) = ruleset::ENTRANCE;
        Ok(NftQuery::open()?.rules(ruleset::TABLE_NAME, chain)? == rules)
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), NftError> {
        if transaction.is_empty() {
            return Ok(());
        }
        self.script(&transaction.render())
    }

    fn counters(&self, elements: &[Element]) -> Result<BTreeMap<Element, u64>, NftError> {
        if elements.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut query = NftQuery::open()?;
        let mut counters = BTreeMap::new();
        for element in elements {
            let Some(key) = element.endpoint_key() else { continue };
            if let Some(packets) = query.packets(ruleset::TABLE_NAME, &element.collection(), &key)? {
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

    #[test]
    fn without_nft_the_error_says_what_to_install() {
        let nft = NftCommand { program: "nft-that-is-not-there" };
        let error = nft.list().unwrap_err().to_string();
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
