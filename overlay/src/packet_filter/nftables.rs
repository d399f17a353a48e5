//! Looks at our own nftables table and writes it, and knows those of others. Connections that were translated before the table
//! existed are found in conntrack when it is made.

use std::{collections::BTreeSet, net::IpAddr};

use weft_netlink::{Conntrack, NftQuery};

use super::{
    command::{FilterError, run},
    rules::PodNetworks,
    table_text::{TABLE, TableRules, transaction},
};
use crate::{family::Family, observe::netlink_family};

/// Tables of a flannel that ran here before, with family.
const FLANNELS_TABLES: [&str; 2] = ["ip flannel-ipv4", "ip6 flannel-ipv6"];

/// IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const STATUS_DNAT: u32 = 1 << 5;

/// Protocols whose connections somebody may have translated: TCP, UDP, SCTP.
const TRANSLATED: [u8; 3] = [6, 17, 132];

/// Our table as it was last written.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The table as `nft` lists it: what it must still look like.
    written: Option<(TableRules, String)>,
}

impl Table {
    /// Makes the table be as `rules` say, in one transaction that keeps the set of clients; true if it was not so.
    pub(super) fn ensure(&mut self, rules: &TableRules) -> Result<bool, FilterError> {
        let listing = list(TABLE)?;
        if let Some((written, expected)) = &self.written
            && written == rules
            && listing.as_ref() == Some(expected)
        {
            return Ok(false);
        }
        self.written = None;
        let had_clients = listing.as_ref().is_some_and(|listing| listing.contains("packet-clients"));
        let clients = if rules.bypass && !had_clients { translated_clients(&rules.networks) } else { BTreeSet::new() };
        let text = transaction(rules, &clients);
        let loaded = load("load the table", &text);
        if loaded.is_err() && listing.is_some() {
            // A chain of an older agent has another type or priority, which cannot change.
            load("load the table anew", &format!("delete table {TABLE}\n{text}"))?;
        } else {
            loaded?;
        }
        // What is listed now is what must stay; so nobody may have changed it in between.
        let listing = list(TABLE)?.filter(|listing| count_rules(listing) == count_rules(&text));
        let listing = listing.ok_or_else(|| FilterError::Refused {
            program: "nft",
            doing: "load the table",
            message: "somebody else changed it at once".into(),
        })?;
        self.written = Some((rules.clone(), listing));
        Ok(true)
    }

    /// Removes the table; true if there was one.
    pub(super) fn remove(&mut self) -> Result<bool, FilterError> {
        self.written = None;
        remove(TABLE)
    }
}

/// Removes the tables of a flannel that ran here before; true if there were any.
pub(super) fn remove_flannels() -> Result<bool, FilterError> {
    let tables = tables()?;
    let mut removed = false;
    for table in FLANNELS_TABLES.into_iter().filter(|table| tables.iter().any(|there| there == table)) {
        removed |= remove(table)?;
    }
    Ok(removed)
}

/// Whether some other table decides by conntrack's state what is forwarded: it would not know what to make of packets that
/// are not tracked.
pub(super) fn others_track() -> Result<bool, FilterError> {
    for table in &tables()? {
        let Some((family, name)) = table.split_once(' ') else { continue };
        // Those of iptables are looked at through iptables.
        let of_iptables =
            matches!(family, "ip" | "ip6") && matches!(name, "filter" | "nat" | "mangle" | "raw" | "security");
        if !of_iptables
            && !is_known(name)
            && list(table)?.is_some_and(|text| text.contains("hook forward") && text.contains("ct state"))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the table of that name is known not to judge by conntrack's state what is forwarded.
pub(super) fn is_known(name: &str) -> bool {
    name.starts_with("weft-") || name.starts_with("flannel-ipv") || name == "kube-proxy"
}

/// Pods with connections that are translated already. What cannot be read has none: then there is no conntrack either.
fn translated_clients(networks: &[PodNetworks]) -> BTreeSet<IpAddr> {
    let mut clients = BTreeSet::new();
    for PodNetworks { network, .. } in networks {
        for protocol in TRANSLATED {
            let Ok(mut conntrack) = Conntrack::open() else { return clients };
            // An error ends the reading; what was read counts.
            let _ = conntrack.for_each(netlink_family(Family::of(network.ip())), protocol, |entry| {
                let (client, server) = (entry.original.source.ip(), entry.reply.source.ip());
                if entry.status & STATUS_DNAT != 0 && network.contains(client) && network.contains(server) {
                    clients.insert(client);
                }
            });
        }
    }
    clients
}

/// All tables, with family.
fn tables() -> Result<Vec<String>, FilterError> {
    // Not by the program, which reads all elements of other tables for it.
    let tables = NftQuery::open().and_then(|mut query| query.tables());
    tables.map_err(|error| FilterError::Refused {
        program: "nftables",
        doing: "list tables",
        message: error.to_string(),
    })
}

/// How many rules a text has: each has a comment.
fn count_rules(text: &str) -> usize {
    text.matches(" comment \"").count()
}

/// The table as nft prints it, without the contents of its sets; `None` if there is none.
fn list(table: &str) -> Result<Option<String>, FilterError> {
    let arguments: Vec<&str> = ["-n", "-t", "list", "table"].into_iter().chain(table.split(' ')).collect();
    let answer = run("nft", &arguments, "")?;
    // nft 1.0 has no other way to say ENOENT; it does not translate the text, because it never calls setlocale for it.
    if !answer.success && answer.stderr.contains("No such file or directory") {
        return Ok(None);
    }
    answer.expect("nft", "list the table").map(Some)
}

fn remove(table: &str) -> Result<bool, FilterError> {
    if list(table)?.is_none() {
        return Ok(false);
    }
    // Adding first makes the deletion succeed even if somebody else was faster.
    load("delete the table", &format!("add table {table}\ndelete table {table}\n")).map(|()| true)
}

fn load(doing: &'static str, text: &str) -> Result<(), FilterError> {
    run("nft", &["-f", "-"], text)?.expect("nft", doing).map(drop)
}
