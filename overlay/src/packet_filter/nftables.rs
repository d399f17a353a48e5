//! Our own nftables table: masquerading, and the conntrack bypass.
//!
//! The bypass (design section 4, nftables.md): packets from pod to pod are not tracked, in a chain before conntrack. Excepted is
//! what needs NAT on this node, that is conntrack:
//! * packets to this node's own addresses: the VTEP's is the source of masqueraded NodePort connections, and inside the pod
//!   network;
//! * packets from and to the pods in the sets `packet-clients4` and `packet-clients6`: those whose packets somebody translated
//!   here. The chain `clients`, right behind all DNAT, finds them itself by `ct status dnat`, whoever the translator was: our
//!   proxy's packet path, kube-proxy, portmap. So nobody has to fill the sets, and a reply always finds its entry.
//!
//! Connections translated before the table existed are found in conntrack when it is made.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use weft_netlink::{Conntrack, NftQuery};

use super::{
    PodNetworks,
    command::{FilterError, run},
    multicast,
};
use crate::{family::Family, observe::netlink_family};

/// Name of our table, in family inet.
pub(super) const TABLE_NAME: &str = "weft-overlay";
const TABLE: &str = "inet weft-overlay";

/// Tables of a flannel that ran here before, with family.
const FLANNELS_TABLES: [&str; 2] = ["ip flannel-ipv4", "ip6 flannel-ipv6"];

/// Set by kube-proxy on packets that it masquerades itself. One bit of a mark others use too, so the rest is masked out
/// (flannel's nft mode compares the whole mark: flannel-defects.md E.1).
const KUBE_PROXY_MARK: &str = "0x4000";

/// As long as conntrack keeps an idle TCP connection (nf_conntrack_tcp_timeout_established): as long as a reply may come.
const CLIENT_TIMEOUT: &str = "5d";

/// IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const STATUS_DNAT: u32 = 1 << 5;

/// Protocols whose connections somebody may have translated: TCP, UDP, SCTP.
const TRANSLATED: [u8; 3] = [6, 17, 132];

/// What the table is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableRules {
    pub(super) networks: Vec<PodNetworks>,
    pub(super) masquerade: bool,
    pub(super) bypass: bool,
}

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
        let known = name.starts_with("weft-")
            || name.starts_with("flannel-ipv")
            || name == "kube-proxy"
            || (matches!(family, "ip" | "ip6") && matches!(name, "filter" | "nat" | "mangle" | "raw" | "security"));
        if !known && list(table)?.is_some_and(|text| text.contains("hook forward") && text.contains("ct state")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replaces the rules of all chains, with the meaning of flannel's iptables rules 1 to 6 (flannel.md section 8).
fn transaction(rules: &TableRules, clients: &BTreeSet<IpAddr>) -> String {
    let mut text = format!("add table {TABLE}\n");
    let hooks = [
        ("postrouting", "type nat hook postrouting priority srcnat", postrouting(rules)),
        // Right behind DNAT, by whatever priority close to the standard one.
        ("clients", "type filter hook prerouting priority -90", clients_chain(rules)),
        // Raw: before conntrack.
        ("bypass", "type filter hook prerouting priority -300", bypass_chain(rules)),
    ];
    for (family, kind) in [(Family::V4, "ipv4_addr"), (Family::V6, "ipv6_addr")] {
        let set = client_set(family);
        let _ =
            writeln!(text, "add set {TABLE} {set} {{ type {kind}; flags dynamic,timeout; timeout {CLIENT_TIMEOUT}; }}");
    }
    for client in clients {
        let _ = writeln!(text, "add element {TABLE} {} {{ {client} }}", client_set(Family::of(*client)));
    }
    for (chain, hook, rules) in hooks {
        let _ = write!(text, "add chain {TABLE} {chain} {{ {hook}; policy accept; }}\nflush chain {TABLE} {chain}\n");
        for rule in &rules {
            let _ = writeln!(text, "add rule {TABLE} {chain} {rule}");
        }
        if rules.is_empty() {
            let _ = writeln!(text, "delete chain {TABLE} {chain}");
        }
    }
    if !rules.bypass {
        for family in Family::ALL {
            let _ = writeln!(text, "delete set {TABLE} {}", client_set(family));
        }
    }
    text
}

fn client_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "packet-clients4",
        Family::V6 => "packet-clients6",
    }
}

fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn postrouting(rules: &TableRules) -> Vec<String> {
    if !rules.masquerade {
        return Vec::new();
    }
    let mark = format!("meta mark & {KUBE_PROXY_MARK} == {KUBE_PROXY_MARK}");
    let mut lines = vec![format!("{mark} return comment \"kube-proxy masquerades it\"")];
    for PodNetworks { network, subnet } in &rules.networks {
        let family = Family::of(network.ip());
        let ip = protocol(family);
        let multicast = multicast(family);
        lines.extend([
            format!("{ip} saddr {subnet} {ip} daddr {network} return comment \"pod to pod, outgoing\""),
            format!("{ip} saddr {network} {ip} daddr {subnet} return comment \"pod to pod, incoming\""),
            format!(
                "{ip} saddr != {network} {ip} daddr {subnet} return comment \"outside to local pod keeps its source\""
            ),
            format!(
                "{ip} saddr {network} {ip} daddr != {multicast} masquerade fully-random comment \"pod to outside\""
            ),
            format!(
                "{ip} saddr != {network} {ip} daddr {network} masquerade fully-random comment \"outside to remote pod\""
            ),
        ]);
    }
    lines
}

fn clients_chain(rules: &TableRules) -> Vec<String> {
    let networks = rules.networks.iter().filter(|_| rules.bypass);
    networks
        .map(|PodNetworks { network, .. }| {
            let family = Family::of(network.ip());
            let (ip, set) = (protocol(family), client_set(family));
            format!(
                "ct direction original ct status dnat {ip} saddr {network} {ip} daddr {network} \
                 update @{set} {{ {ip} saddr }} comment \"a pod whose packets are translated here\""
            )
        })
        .collect()
}

fn bypass_chain(rules: &TableRules) -> Vec<String> {
    let networks = rules.networks.iter().filter(|_| rules.bypass);
    networks
        .map(|PodNetworks { network, .. }| {
            let family = Family::of(network.ip());
            let (ip, set) = (protocol(family), client_set(family));
            format!(
                "{ip} saddr {network} {ip} daddr {network} {ip} saddr != @{set} {ip} daddr != @{set} \
                 fib daddr type != local notrack comment \"pod to pod\""
            )
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(network: &str, subnet: &str) -> TableRules {
        let networks = vec![PodNetworks { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }];
        TableRules { networks, masquerade: true, bypass: true }
    }

    #[test]
    fn rules_mean_what_flannels_iptables_rules_mean() {
        let lines = postrouting(&rules("10.244.0.0/16", "10.244.1.0/24"));
        let rules: Vec<&str> = lines.iter().map(|line| line.split(" comment").next().unwrap()).collect();
        assert_eq!(
            rules,
            [
                "meta mark & 0x4000 == 0x4000 return",
                "ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return",
                "ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.1.0/24 return",
                "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random",
            ]
        );
    }

    #[test]
    fn ipv6_has_its_own_multicast() {
        let lines = postrouting(&rules("fd44::/48", "fd44:0:0:1::/64"));
        assert!(lines[4].starts_with("ip6 saddr fd44::/48 ip6 daddr != ff00::/8 masquerade"), "{lines:?}");
    }

    #[test]
    fn what_is_off_leaves_no_chain_behind() {
        let off = TableRules { bypass: false, ..rules("10.244.0.0/16", "10.244.1.0/24") };
        let text = transaction(&off, &BTreeSet::new());
        for chain in ["clients", "bypass"] {
            assert!(text.contains(&format!("delete chain inet weft-overlay {chain}\n")), "{text}");
        }
        assert!(!text.contains("delete chain inet weft-overlay postrouting") && text.contains("delete set"), "{text}");
    }
}
