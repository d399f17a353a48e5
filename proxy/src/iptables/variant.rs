//! The two iptables: which of them this node uses.
//!
//! Both may be installed, and rules of one are invisible to the other; what decides is whose rules are in use. As the image of
//! kube-proxy does it (kubernetes-sigs/iptables-wrappers): the hint chains of kubelet, else the one with more rules, else nft.

use std::{collections::BTreeMap, fmt, io};

use super::{
    failure::XtablesError,
    names::{CANARY, OWNER, SERVICES, Table},
};
use crate::{model::IpFamily, program};

/// Which iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// `iptables-nft`: rules in nf_tables.
    Nft,
    /// `iptables-legacy`: rules in x_tables, which replaces a whole table at each change.
    Legacy,
}

/// The programs of one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) variant: Variant,
    /// `-nft`, `-legacy`, or nothing where only one of them is installed, under the plain name.
    suffix: &'static str,
}

const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Programs {
    pub(crate) const fn of(variant: Variant) -> Self {
        let suffix = match variant {
            Variant::Nft => "-nft",
            Variant::Legacy => "-legacy",
        };
        Self { variant, suffix }
    }

    /// `ip6tables-legacy-restore`, for the `tool` `-restore`.
    pub(crate) fn name(self, family: IpFamily, tool: &str) -> String {
        let base = match family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        format!("{base}{}{tool}", self.suffix)
    }

    /// What `iptables --version` says, such as `iptables v1.8.9 (legacy)`; `None`: not installed.
    pub(crate) fn version(self) -> Result<Option<String>, XtablesError> {
        let mut version = String::new();
        let program = self.name(IpFamily::V4, "");
        match program::run(&program, &["--version"], program::lines(|line| version.push_str(line))) {
            Ok(_) => Ok(Some(version)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(XtablesError::Run { program, source }),
        }
    }

    /// All variants that are installed, nft first.
    pub(crate) fn installed() -> Result<Vec<Self>, XtablesError> {
        let mut installed = Vec::new();
        for programs in [Self::of(Variant::Nft), Self::of(Variant::Legacy)] {
            if programs.version()?.is_some() {
                installed.push(programs);
            }
        }
        if !installed.is_empty() {
            return Ok(installed);
        }
        let plain = Self { variant: Variant::Legacy, suffix: "" };
        let version = plain.version()?.ok_or(XtablesError::Missing)?;
        let variant = if version.contains("(nf_tables)") { Variant::Nft } else { Variant::Legacy };
        Ok(vec![Self { variant, ..plain }])
    }
}

/// What the rules in use say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// kubelet uses this variant.
    hinted: bool,
    /// Rules of anybody, both families.
    rules: usize,
    /// Our own chains are there.
    pub(crate) ours: bool,
    /// A kube-proxy's entrance is there, which reads like ours.
    services: bool,
    /// A kube-proxy's canary in mangle, where we have nothing.
    canary: bool,
}

impl Survey {
    /// Looks at the tables that exist: without `-t`, the legacy program makes none, and an empty table would cost every packet.
    pub(crate) fn of(programs: Programs) -> Self {
        let mut survey = Self::default();
        for family in FAMILIES {
            let mut table = None;
            let read = program::lines(|line| survey.add(&mut table, line));
            if let Err(error) = program::run(&programs.name(family, "-save"), &[], read) {
                tracing::debug!(?programs, %family, %error, "rules could not be listed");
            }
        }
        survey
    }

    /// Whether rules of a kube-proxy are there.
    pub(crate) const fn has_kube_proxy(&self) -> bool {
        self.services && !self.ours || self.canary
    }

    /// Whether its chains would have to make room for ours, which have the same names.
    pub(crate) const fn is_taken_by_kube_proxy(&self) -> bool {
        self.services && !self.ours
    }

    fn add(&mut self, table: &mut Option<Table>, line: &str) {
        if let Some(name) = line.strip_prefix('*') {
            *table = [Table::Filter, Table::Nat, Table::Mangle].into_iter().find(|table| table.to_string() == name);
        } else if let Some(chain) = line.strip_prefix(':').and_then(|line| line.split(' ').next()) {
            self.hinted |=
                *table == Some(Table::Mangle) && ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"].contains(&chain);
            self.ours |= *table == Some(Table::Nat) && chain == OWNER;
            self.services |= *table == Some(Table::Nat) && chain == SERVICES;
            self.canary |= *table == Some(Table::Mangle) && chain == CANARY;
        } else if line.starts_with('-') {
            self.rules += 1;
        }
    }
}

/// Which variant is in use, going by what there is of each that is installed.
pub(crate) fn in_use(surveys: &BTreeMap<Variant, Survey>) -> Option<Variant> {
    let hinted = surveys.iter().find(|(_, survey)| survey.hinted);
    // Of two with as many rules the first: nft.
    let most = || surveys.iter().rev().max_by_key(|(_, survey)| survey.rules);
    hinted.or_else(most).map(|(variant, _)| *variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(text: &str) -> Survey {
        let (mut survey, mut table) = (Survey::default(), None);
        text.lines().for_each(|line| survey.add(&mut table, line));
        survey
    }

    fn chosen(nft: &str, legacy: &str) -> Option<Variant> {
        in_use(&[(Variant::Nft, survey(nft)), (Variant::Legacy, survey(legacy))].into())
    }

    const HINT: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT";
    const RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\n-A INPUT -j ACCEPT\nCOMMIT";
    const RULE: &str = "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT";

    #[test]
    fn kubelets_hint_decides_before_the_number_of_rules() {
        assert_eq!(chosen(HINT, RULES), Some(Variant::Nft));
        assert_eq!(chosen(RULES, HINT), Some(Variant::Legacy));
        assert_eq!(chosen(RULES, "*mangle\n:KUBE-IPTABLES-HINT - [0:0]"), Some(Variant::Legacy));
        assert_eq!(chosen(HINT, HINT), Some(Variant::Nft));
        assert_eq!(chosen(RULES, "*nat\n:KUBE-KUBELET-CANARY - [0:0]"), Some(Variant::Nft), "not in nat");
    }

    #[test]
    fn else_the_one_with_more_rules_else_nft() {
        assert_eq!(chosen(RULE, RULES), Some(Variant::Legacy));
        assert_eq!(chosen(RULES, RULE), Some(Variant::Nft));
        assert_eq!(chosen(RULE, RULE), Some(Variant::Nft));
        assert_eq!(chosen("", ""), Some(Variant::Nft));
    }

    #[test]
    fn a_variant_that_is_not_installed_is_not_chosen() {
        assert_eq!(in_use(&[(Variant::Legacy, Survey::default())].into()), Some(Variant::Legacy));
        assert_eq!(in_use(&BTreeMap::new()), None);
    }

    #[test]
    fn our_mark_is_seen() {
        assert!(survey("*nat\n:WEFT-PROXY - [0:0]").ours);
        assert!(!survey("*nat\n:KUBE-SERVICES - [0:0]").ours);
    }

    #[test]
    fn a_kube_proxy_is_told_from_us_and_from_kubelet() {
        for (rules, there, taken) in [
            ("*nat\n:KUBE-SERVICES - [0:0]", true, true),
            ("*nat\n:KUBE-SERVICES - [0:0]\n:WEFT-PROXY - [0:0]", false, false),
            ("*nat\n:KUBE-SERVICES - [0:0]\n:WEFT-PROXY - [0:0]\n*mangle\n:KUBE-PROXY-CANARY - [0:0]", true, false),
            ("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n*filter\n:KUBE-FIREWALL - [0:0]", false, false),
            ("*nat\n:KUBE-MARK-DROP - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]", false, false),
        ] {
            let survey = survey(rules);
            assert_eq!((survey.has_kube_proxy(), survey.is_taken_by_kube_proxy()), (there, taken), "{rules}");
        }
    }
}
