//! Our own nftables table as text: masquerading, and the conntrack bypass.
//!
//! The bypass (design section 4, nftables.md): packets from pod to pod are not tracked, in a chain before conntrack. Excepted is
//! what needs NAT on this node, that is conntrack:
//! * packets to this node's own addresses: the VTEP's is the source of masqueraded NodePort connections, and inside the pod
//!   network;
//! * packets from and to the pods in the sets `packet-clients4` and `packet-clients6`: those whose packets somebody translated
//!   here. The chain `clients`, right behind all DNAT, finds them itself by `ct status dnat`, whoever the translator was: our
//!   proxy's packet path, kube-proxy, portmap. So nobody has to fill the sets, and a reply always finds its entry.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use super::rules::{PodNetworks, multicast};
use crate::family::Family;

/// Name of our table, in family inet.
pub(super) const TABLE_NAME: &str = "weft-overlay";
pub(super) const TABLE: &str = "inet weft-overlay";

/// Set by kube-proxy on packets that it masquerades itself. One bit of a mark others use too, so the rest is masked out
/// (flannel's nft mode compares the whole mark: flannel-defects.md E.1).
const KUBE_PROXY_MARK: &str = "0x4000";

/// As long as conntrack keeps an idle TCP connection (nf_conntrack_tcp_timeout_established): as long as a reply may come.
const CLIENT_TIMEOUT: &str = "5d";

/// What the table is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableRules {
    pub(super) networks: Vec<PodNetworks>,
    pub(super) masquerade: bool,
    pub(super) bypass: bool,
}

/// Replaces the rules of all chains, with the meaning of flannel's iptables rules 1 to 6 (flannel.md section 8).
pub(super) fn transaction(rules: &TableRules, clients: &BTreeSet<IpAddr>) -> String {
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
