//! Black-box scenarios of Services, over real packets, in every mode: one table, `docs/scenarios.md` shows it.

mod at;
mod exact;
mod flags;
mod objects;
mod outcome;
mod report;
mod run;
mod scenario;
mod slices;
mod table;
mod world;

use anyhow::Result;

use crate::scenario::{Flags, Mode};

macro_rules! modes {
    ($($name:ident: $mode:ident, $flags:ident, $api_server:literal;)*) => {
        $(#[test]
        fn $name() -> Result<()> {
            run::run(Mode::$mode, Flags::$flags, $api_server)
        })*
    };
}

modes! {
    ebpf: Ebpf, ClusterCidr, false;
    ebpf_from_an_api_server: Ebpf, ClusterCidr, true;
    ebpf_masquerade_all: Ebpf, MasqueradeAll, false;
    ebpf_no_detector: Ebpf, NoDetector, false;
    ebpf_interface_prefix: Ebpf, InterfacePrefix, false;
    ebpf_node_cidr: Ebpf, NodeCidr, false;
    ebpf_bridge: Ebpf, Bridge, false;
    nftables: Nftables, ClusterCidr, false;
    nftables_masquerade_all: Nftables, MasqueradeAll, false;
    nftables_no_detector: Nftables, NoDetector, false;
    nftables_interface_prefix: Nftables, InterfacePrefix, false;
    nftables_node_cidr: Nftables, NodeCidr, false;
    nftables_bridge: Nftables, Bridge, false;
    iptables: Iptables, ClusterCidr, false;
    iptables_masquerade_all: Iptables, MasqueradeAll, false;
    iptables_no_detector: Iptables, NoDetector, false;
    iptables_interface_prefix: Iptables, InterfacePrefix, false;
    iptables_node_cidr: Iptables, NodeCidr, false;
    iptables_bridge: Iptables, Bridge, false;
}

#[test]
fn docs_show_what_the_suite_has() -> Result<()> {
    report::check_docs()
}

/// What issue 3 asks for: each scenario another one.
#[test]
fn there_are_120_distinct_scenarios() {
    let all = table::all();
    let mut rows: Vec<String> =
        all.iter().flat_map(|group| group.rows().map(move |row| format!("{} {:?}", group.given, row))).collect();
    rows.sort();
    let total = rows.len();
    rows.dedup();
    assert_eq!(rows.len(), total, "two scenarios say the same");
    assert!(total >= 120, "{total}");
}

#[test]
fn ebpf_shares_are_exact_while_others_change() -> Result<()> {
    exact::shares_are_exact(Mode::Ebpf)
}

#[test]
fn nftables_shares_are_exact_while_others_change() -> Result<()> {
    exact::shares_are_exact(Mode::Nftables)
}

#[test]
fn iptables_shares_are_exact_while_others_change() -> Result<()> {
    exact::shares_are_exact(Mode::Iptables)
}
