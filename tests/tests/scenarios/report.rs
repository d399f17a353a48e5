//! `docs/scenarios.md`: what the suite holds, as a table for people.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use weft_tests::Protocol;

use crate::{
    scenario::{Group, Mode, Row},
    table,
};

/// Set to write the file instead of comparing it.
const WRITE: &str = "WEFT_WRITE_DOCS";

const HEAD: &str = "\
# What happens to a connection: the scenarios

Written by the test suite `tests/tests/scenarios`, which runs every row over real packets, in every mode and in the families
named, against two nodes and a host outside. Do not edit it; after a change of the suite:

```
WEFT_WRITE_DOCS=1 cargo test -p weft-tests --test scenarios docs
```

Numbers are rules of `shared/reference/kube-proxy.md`. Servers `a1` and `a2` are pods of node n1, `b1` and `b2` pods of node n2,
`n1` is a process of node n1; `:8081` is another port of the same server. Several servers answer in strict turn. `sees ...` is
the address the server sees. *Silence*: the client's time runs out. *Refused*: ICMP port unreachable, or ECONNREFUSED from
`connect`. *Untouched*: the packet goes where it would go without Weft. SCTP is missing here, because the kernels that run
the suite need not have SCTP sockets: `proxy/tests/nftables/sctp.rs` looks at its packets.

Rules that one connection cannot show have tests of their own: 4.13 and 9.5 (what is there already when endpoints come or go) in
`tests/tests/cluster/flows.rs`, 9.12 and 9.13 (forwarding) in `proxy/tests/iptables/forward.rs`, 9.14 in
`tests/tests/cluster/health_checks.rs`.
";

/// The file's text.
pub(crate) fn text() -> String {
    let sections = table::sections();
    let rows: Vec<&Row> = sections.iter().flat_map(|(_, groups)| groups).flat_map(Group::rows).collect();
    let instances: usize = rows.iter().map(|row| row.families.len() * Mode::ALL.len()).sum();
    let mut text = format!("{HEAD}\n{} scenarios; with modes and families, {instances}.\n", rows.len());
    let mut reasons = BTreeSet::new();
    let mut number = 0;
    for (heading, groups) in &sections {
        let _ = write!(
            text,
            "\n## {heading}\n\n| # | rule | given | client | to | scenario | families | ebpf | nftables | iptables |\n\
             |---|---|---|---|---|---|---|---|---|---|\n"
        );
        for group in groups {
            number += 1;
            for (index, row) in (1..).zip(group.rows()) {
                let given = if index == 1 { words(group) } else { "".to_owned() };
                let _ = writeln!(text, "| s{number}.{index} | {} | {given} | {}", row.rule, cells(row));
                reasons
                    .extend(row.otherwise.iter().map(|(mode, outcome, why)| (why, mode.name(), outcome.to_string())));
            }
        }
    }
    text += "\n## Where modes differ\n\n";
    let mut whys: BTreeSet<String> = BTreeSet::new();
    for (why, mode, _) in &reasons {
        whys.insert(format!("* `{mode}`: {why}.\n"));
    }
    text.extend(whys);
    text += "\n[modes.md](modes.md) says more about each.\n";
    text
}

fn words(group: &Group) -> String {
    match group.flags.in_words() {
        Some(flags) => format!("{} ({flags})", group.given),
        None => group.given.to_owned(),
    }
}

fn cells(row: &Row) -> String {
    let families: Vec<&str> = row.families.iter().map(|family| family.name()).collect();
    let mut target = row.target.to_string();
    if let Some(port) = row.port {
        let _ = write!(target, ", port {port}");
    }
    target += match row.protocol {
        Some(Protocol::Udp) => ", UDP",
        Some(Protocol::UdpUnconnected) => ", sendto",
        Some(Protocol::Tcp) => ", TCP",
        None => "",
    };
    let outcomes = Mode::ALL.map(|mode| row.outcome(mode).to_string());
    format!("{} | {target} | {} | {} | {} |", row.client, row.name, families.join(", "), outcomes.join(" | "))
}

/// Compares the file with the suite, or writes it.
///
/// # Errors
/// They differ.
pub(crate) fn check_docs() -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    let wanted = text();
    if env::var_os(WRITE).is_some() {
        return fs::write(&path, wanted).with_context(|| format!("write {}", path.display()));
    }
    let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        found == wanted,
        "{} is not what the suite says: {WRITE}=1 cargo test -p weft-tests --test scenarios docs",
        path.display()
    );
    Ok(())
}
