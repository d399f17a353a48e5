//! The programs of iptables. There may be two on a node, and rules of one are invisible to the other.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::tables::Tables;
use crate::{
    error::{Code, Error},
    host_port::nftables,
};

/// Runtimes may give us no PATH.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// Rules in nf_tables, rules in x_tables; and whichever the node's owner prefers.
const NFT: &str = "-nft";
const LEGACY: &str = "-legacy";
const PLAIN: &str = "";

/// How long to wait for others that change rules, in seconds.
const LOCK_WAIT: &str = "5";

/// The programs of one family and variant: `iptables-legacy` and what else begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs(String);

impl Programs {
    fn of(v4: bool, variant: &str) -> Self {
        Self(format!("{}{variant}", FAMILIES[usize::from(!v4)]))
    }

    /// The ones with this name; `None`: there are none.
    pub(super) fn named(name: &str) -> Option<Self> {
        let variant = FAMILIES.iter().find_map(|family| name.strip_prefix(family))?;
        [PLAIN, NFT, LEGACY].contains(&variant).then(|| Self(name.to_owned()))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    pub(super) fn is_v4(&self) -> bool {
        self.0.starts_with(FAMILIES[0])
    }

    /// The ones that rules are to be written with.
    pub(super) fn choose(v4: bool) -> Result<Self, Error> {
        let has_nftables = nftables::is_supported()?;
        let installed = |variant: &str| Self::of(v4, variant).path("-save").is_some();
        let in_use = |variant: &str| Self::of(v4, variant).tables().is_ok_and(|tables| tables.has_kubernetes);
        Ok(Self::of(v4, choose(has_nftables, &installed, &in_use)))
    }

    /// Tables nat and filter as they are.
    pub(super) fn tables(&self) -> Result<Tables, Error> {
        // Without a name of a table, the legacy program lists those that exist, and makes none.
        self.run("-save", &[], "").map(|text| Tables::parse(&text))
    }

    /// Carries out what [`Tables`] wrote, table by table. Others of ours are kept away by the ledger's lock.
    pub(super) fn restore(&self, input: &str) -> Result<(), Error> {
        if input.is_empty() {
            return Ok(());
        }
        self.run("-restore", &["--noflush", "-w", LOCK_WAIT], input).map(drop)
    }

    fn path(&self, tool: &str) -> Option<PathBuf> {
        let program = format!("{}{tool}", self.0);
        DIRECTORIES.iter().map(|directory| PathBuf::from(directory).join(&program)).find(|path| path.exists())
    }

    fn run(&self, tool: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let failed = |why: String| Error::new(Code::Network, format!("{}{tool}: {why}", self.0));
        let path = self.path(tool).ok_or_else(|| {
            Error::with_details(
                Code::Network,
                format!("{}{tool} is not installed", self.0),
                "host ports need nftables in the kernel, or iptables",
            )
        })?;
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        // Small enough for the pipe; iptables-save does not read.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(failed(stderr.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        if !input.is_empty() {
            written.map_err(|error| failed(error.to_string()))?;
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The variant that Kubernetes uses, which has the rules of Services, else the one that the node's owner prefers.
///
/// Rules of both have the same priority, and of two hooks with one priority the kernel calls first the one that was registered
/// last (`nf_hook_entries_grow`). A NodePort is to win in any case, so host ports stand where NodePorts stand, behind them.
fn choose(has_nftables: bool, installed: &dyn Fn(&str) -> bool, in_use: &dyn Fn(&str) -> bool) -> &'static str {
    let variants: Vec<_> = [NFT, LEGACY].into_iter().filter(|variant| installed(variant)).collect();
    match variants[..] {
        // What has no suffix would mostly be the other one, which does nothing without nftables.
        [.., LEGACY] if !has_nftables => LEGACY,
        [one, other] => [one, other].into_iter().find(|variant| in_use(variant)).unwrap_or(PLAIN),
        _ => PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_8_host_ports_stand_where_services_stand() {
        let chosen = |has_nftables, installed: &[&str], services: &[&str]| {
            choose(has_nftables, &|variant| installed.contains(&variant), &|variant| services.contains(&variant))
        };
        let both = [NFT, LEGACY];
        assert_eq!(chosen(true, &both, &[LEGACY]), LEGACY);
        assert_eq!(chosen(true, &both, &[NFT]), NFT);
        assert_eq!(chosen(true, &both, &[]), PLAIN);
        assert_eq!(chosen(true, &[NFT], &[NFT]), PLAIN);
        assert_eq!(chosen(true, &[], &[]), PLAIN);
        assert_eq!(chosen(false, &both, &[]), LEGACY);
        assert_eq!(chosen(false, &[LEGACY], &[]), LEGACY);
        assert_eq!(chosen(false, &[], &[]), PLAIN);
    }

    #[test]
    fn names_are_read_back() {
        for (v4, variant) in [(true, PLAIN), (true, LEGACY), (false, NFT)] {
            let programs = Programs::of(v4, variant);
            assert_eq!(Programs::named(programs.name()), Some(programs.clone()));
            assert_eq!(programs.is_v4(), v4);
        }
        for name in ["", "nft", "iptables-save", "iptables ", "rm"] {
            assert_eq!(Programs::named(name), None, "{name}");
        }
    }
}
