//! The seam to the kernel: what the data plane needs of iptables, and the programs themselves.

use std::{collections::BTreeMap, path::Path};

use weft_netlink::{Family, NftWatch, sysctl, xtables_entries};

use super::{
    failure::{XtablesError, failed_line, last_line},
    layout::Features,
    listing::{Line, Observed},
    names::Table,
    transaction::Transaction,
    variant::{Programs, Survey, Variant, in_use},
};
use crate::{model::IpFamily, program};

/// The tables of both families, of one variant.
pub(crate) trait Xtables: Send + Sync {
    /// The families this node has.
    fn families(&self) -> Vec<IpFamily>;

    fn features(&self) -> Features;

    /// Whether every change replaces a whole table, and so starts the counters of `--mode nth` again.
    fn replaces_tables(&self) -> bool;

    /// Reads one table, line by line.
    fn list(&self, family: IpFamily, table: Table, each: &mut dyn FnMut(Line<'_>)) -> Result<(), XtablesError>;

    /// Carries out a transaction, each table wholly or not at all. An empty one costs nothing.
    fn run(&mut self, family: IpFamily, transaction: &Transaction) -> Result<(), XtablesError>;

    /// Whether somebody else removed rules, or may have, from the tables that we have rules in, since the last
    /// [`run`](Self::run) or call of this, where asking for that costs nothing.
    fn disturbed(&mut self) -> bool;

    /// Whether every rule named by `-C` in this input is there.
    fn holds(&self, family: IpFamily, checks: &str) -> Result<bool, XtablesError>;

    /// How many rules the tables have that we have rules in, where asking for that costs nothing.
    fn entries(&self, family: IpFamily) -> Option<u32>;

    /// Lets packets with a loopback address leave by other interfaces, for NodePorts at 127.0.0.1 (6.6).
    fn route_localnet(&mut self) -> Result<(), XtablesError>;

    /// Removes what we left in the other variant when this node used that.
    fn retire_other_variant(&mut self) -> Result<(), XtablesError>;
}

/// Reads the tables we have rules in.
pub(crate) fn observe(tables: &dyn Xtables, family: IpFamily) -> Result<Observed, XtablesError> {
    let mut observed = Observed::default();
    for table in [Table::Filter, Table::Nat] {
        let into = observed.table(table);
        tables.list(family, table, &mut |line| into.add(line))?;
    }
    Ok(observed)
}

/// Seconds to wait for another program to release the lock of legacy tables.
const LOCK_WAIT: &str = "30";

/// What `iptables-restore` and `-C` exit with when a rule is wrong or absent; other codes: wrong use, lock not free.
const EXIT_RULE: i32 = 1;

/// The programs, in the network namespace of the calling thread.
#[derive(Debug)]
pub(crate) struct Commands {
    programs: Programs,
    features: Features,
    /// The other variant, if we left rules there.
    left_behind: Option<Programs>,
    /// Chains with the names of ours were there, and are a kube-proxy's.
    taken: bool,
    /// Tells of removed rules, in the nft variant; there from the first change on.
    watch: Option<NftWatch>,
}

impl Commands {
    /// The variant that is in use on this node.
    pub(crate) fn find() -> Result<Self, XtablesError> {
        wait_for_others()?;
        let installed = Programs::installed()?;
        let surveys: BTreeMap<Variant, Survey> =
            installed.iter().map(|programs| (programs.variant, Survey::of(*programs))).collect();
        let chosen = in_use(&surveys).ok_or(XtablesError::Missing)?;
        let is_chosen = |programs: &&Programs| programs.variant == chosen;
        let programs = *installed.iter().find(is_chosen).ok_or(XtablesError::Missing)?;
        let left_behind =
            installed.iter().find(|other| other.variant != chosen && surveys[&other.variant].ours).copied();
        tracing::info!(variant = ?chosen, ?surveys, "iptables");
        let taken = surveys[&chosen].is_taken_by_kube_proxy();
        Ok(Self { taken, ..Self::with(programs, left_behind)? })
    }

    /// One variant, whatever is in use.
    pub(crate) fn of(variant: Variant) -> Result<Self, XtablesError> {
        wait_for_others()?;
        Self::with(Programs::of(variant), None)
    }

    /// All variants that are installed.
    pub(crate) fn all() -> Result<Vec<Self>, XtablesError> {
        Programs::installed()?.into_iter().map(|programs| Self::with(programs, None)).collect()
    }

    fn with(programs: Programs, left_behind: Option<Programs>) -> Result<Self, XtablesError> {
        let version = programs.version()?.ok_or(XtablesError::Missing)?;
        // Absent until conntrack is loaded, and then 0.
        let liberal = sysctl::get("net/netfilter/nf_conntrack_tcp_be_liberal");
        let features = Features {
            random_fully: has_random_fully(&version),
            tcp_be_liberal: liberal.is_ok_and(|value| value != "0"),
        };
        Ok(Self { programs, features, left_behind, taken: false, watch: None })
    }

    /// Whether our chains are there, as opposed to a kube-proxy's.
    pub(crate) fn has_ours(&self) -> bool {
        Survey::of(self.programs).ours
    }

    /// Which variant.
    pub(crate) const fn variant(&self) -> Variant {
        self.programs.variant
    }

    /// Whether a kube-proxy has rules there.
    pub(crate) fn has_kube_proxy(&self) -> bool {
        Survey::of(self.programs).has_kube_proxy()
    }

    /// What stands in the way of our chains, where a kube-proxy's are to stay.
    pub(crate) const fn in_the_way(&self) -> Result<(), XtablesError> {
        if self.taken { Err(XtablesError::KubeProxy(self.programs.variant)) } else { Ok(()) }
    }

    fn restore(&self, family: IpFamily, input: &[&str]) -> Result<Result<(), XtablesError>, XtablesError> {
        let program = self.programs.name(family, "-restore");
        let arguments = ["-w", LOCK_WAIT, "--noflush", "--counters"];
        let (done, ()) = program::change(&program, &arguments, input, program::lines(|_| {}))
            .map_err(|source| XtablesError::Run { program: program.clone(), source })?;
        if done.status.success() {
            return Ok(Ok(()));
        }
        let error =
            XtablesError::Refused { program, line: failed_line(&done.stderr, input), stderr: last_line(&done.stderr) };
        if done.status.code() == Some(EXIT_RULE) { Ok(Err(error)) } else { Err(error) }
    }
}

impl Xtables for Commands {
    fn families(&self) -> Vec<IpFamily> {
        // Absent where the kernel has no IPv6 or it is off for good (14.6).
        let has_v6 = Path::new("/proc/thread-self/net/if_inet6").exists();
        [Some(IpFamily::V4), has_v6.then_some(IpFamily::V6)].into_iter().flatten().collect()
    }

    fn features(&self) -> Features {
        self.features
    }

    fn replaces_tables(&self) -> bool {
        self.programs.variant == Variant::Legacy
    }

    fn list(&self, family: IpFamily, table: Table, each: &mut dyn FnMut(Line<'_>)) -> Result<(), XtablesError> {
        let program = self.programs.name(family, "-save");
        let read = program::lines(|line| {
            if let Some(line) = Line::parse(line) {
                each(line);
            }
        });
        let (done, ()) = program::run(&program, &["-c", "-t", &table.to_string()], read)
            .map_err(|source| XtablesError::Run { program: program.clone(), source })?;
        if done.status.success() {
            return Ok(());
        }
        Err(XtablesError::Refused { program, line: Some(format!("-t {table}")), stderr: last_line(&done.stderr) })
    }

    fn run(&mut self, family: IpFamily, transaction: &Transaction) -> Result<(), XtablesError> {
        if transaction.is_empty() {
            return Ok(());
        }
        if self.watch.is_none() && self.programs.variant == Variant::Nft {
            self.watch = NftWatch::open().inspect_err(|error| tracing::debug!(%error, "no notices")).ok();
        }
        let result = self.restore(family, &transaction.input())?;
        // Our own.
        self.disturbed();
        result
    }

    fn disturbed(&mut self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.disturbed(&super::TABLE_NAMES).unwrap_or(false))
    }

    fn holds(&self, family: IpFamily, checks: &str) -> Result<bool, XtablesError> {
        self.restore(family, &[checks]).map(|held| held.is_ok())
    }

    fn entries(&self, family: IpFamily) -> Option<u32> {
        let is_legacy = self.programs.variant == Variant::Legacy;
        let tables = is_legacy.then_some([Table::Filter, Table::Nat])?;
        let family = match family {
            IpFamily::V4 => Family::V4,
            IpFamily::V6 => Family::V6,
        };
        tables.into_iter().map(|table| xtables_entries(family, &table.to_string()).ok()).sum()
    }

    fn route_localnet(&mut self) -> Result<(), XtablesError> {
        sysctl::set("net/ipv4/conf/all/route_localnet", "1").map(drop).map_err(XtablesError::RouteLocalnet)
    }

    fn retire_other_variant(&mut self) -> Result<(), XtablesError> {
        let Some(programs) = self.left_behind else { return Ok(()) };
        tracing::info!(variant = ?programs.variant, "removing rules left in the other iptables");
        super::cleanup::remove(&mut Self::with(programs, None)?)?;
        self.left_behind = None;
        Ok(())
    }
}

/// Before the first look: a program whose agent was killed may still be at it.
pub(crate) fn wait_for_others() -> Result<(), XtablesError> {
    program::wait_for_others().map_err(|source| XtablesError::Run { program: "iptables-restore".to_owned(), source })
}

/// `--random-fully` came with 1.6.2.
fn has_random_fully(version: &str) -> bool {
    let number = version.split_once(" v").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or_default());
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0)) >= [1, 6, 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_8_12_random_ports_need_version_1_6_2() {
        for (version, supported) in [
            ("iptables v1.8.9 (nf_tables)", true),
            ("iptables v1.6.2", true),
            ("iptables v1.6.1", false),
            ("iptables v1.4.21", false),
            ("", false),
        ] {
            assert_eq!(has_random_fully(version), supported, "{version}");
        }
    }
}
