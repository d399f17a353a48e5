//! The part of our table that does not depend on Services: hooks, dispatch, masquerade and refusal.
//!
//! ```text
//! nat prerouting, output  -> dispatch4|6: (address . protocol . port) or, at a node-port address, (protocol . port)
//!                            [-> guard4|6: only from the source ranges]
//!                            [-> by-source4|6: pods and processes of this node are not concerned by a policy Local]
//!                            -> one of the round-robin chains -> dnat
//! nat postrouting         -> masquerade what was marked on the way, and what a local endpoint sent to itself
//! filter input, forward, output -> reject or drop new connections to targets without endpoints
//! ```
//! * Priorities: one before the standard ones (`dstnat`, `srcnat`, `filter`), so that our decision does not depend on who loaded first. NAT is decided
//!   once per hook: a kube-proxy or flannel at the standard priority skips what we have translated, and gets all the rest.
//! * Every dispatch is written twice, and round-robin chains are jumped to. A packet that meets a commit half way may take
//!   its verdict from the old generation and find the endpoints of the old one gone; it comes back, and the second try sees
//!   the new generation only. Only the first packet of a connection passes here.
//! * NodePorts are matched by a set of addresses, not `fib daddr type local`: the set is what the agent computed from
//!   nodePortAddresses (kube-proxy.md 6), so socket and packet path agree, and the node's pod-side and VTEP addresses do
//!   not become frontends by accident. Loopback is never in it: 127.0.0.0/8 has a rule of its own, for processes of this node
//!   only (6.6). Nothing leads from `::1` to another interface.
//! * A guard drops in a NAT chain: only the first packet of a connection has to be looked at, and one that was dropped is
//!   never of a connection, so the next is looked at again. A filter chain would see every packet of the node.

use std::fmt::Write;

use super::{
    collection::{Collection, Stage},
    element::FixedChain,
    rules,
    table::Table,
    target::{Class, FAMILIES, digit, ip},
};
use crate::{model::IpFamily, plan::PacketSettings};

/// Family and name of our table, as nft commands want them.
pub(crate) const TABLE: &str = "inet weft-proxy";

/// Name of our table, of family `inet`.
pub const TABLE_NAME: &str = "weft-proxy";

/// The first chain a packet from outside meets, and how many rules it has.
pub(crate) const ENTRANCE: (&str, usize) = ("nat-prerouting", 1);

/// A chain of the static part, and its rules.
pub(crate) struct StaticChain {
    pub(crate) name: String,
    /// `type ... hook ...` and priority of a base chain.
    hook: Option<(&'static str, i32)>,
    pub(crate) rules: Vec<String>,
}

impl StaticChain {
    fn new(name: impl ToString, rules: Vec<String>) -> Self {
        Self { name: name.to_string(), hook: None, rules }
    }

    fn base(name: &str, hook: &'static str, priority: i32, rules: Vec<String>) -> Self {
        Self { hook: Some((hook, priority)), ..Self::new(name, rules) }
    }
}

/// All chains of the static part but the layout mark; a chain comes after those it jumps to.
pub(crate) fn static_chains(settings: &PacketSettings) -> Vec<StaticChain> {
    let mut chains: Vec<StaticChain> =
        FAMILIES.into_iter().flat_map(|family| dispatch_chains(settings, family)).collect();
    let by_family = vec!["meta nfproto vmap { ipv4 : goto dispatch4, ipv6 : goto dispatch6 }".to_owned()];
    chains.extend([
        StaticChain::base("nat-prerouting", "type nat hook prerouting", -101, by_family.clone()),
        StaticChain::base("nat-output", "type nat hook output", -101, by_family),
        StaticChain::base("nat-postrouting", "type nat hook postrouting", 99, postrouting(settings)),
    ]);
    chains.extend(filter_chains(settings));
    chains
}

/// The way to the round-robin chains.
fn dispatch_chains(settings: &PacketSettings, family: IpFamily) -> Vec<StaticChain> {
    let from_node = format!("from-node{}", digit(family));
    let mut by_source: Vec<String> = Vec::new();
    // Local traffic first: a source that is both keeps its address (8.6).
    by_source.extend(rules::is_local(settings, family, "").map(|local| format!("{local} goto {from_node}")));
    by_source.push(format!("fib saddr type local {} goto {from_node}", rules::mark(settings)));
    by_source.extend(look_up(Stage::Outside, family));
    let own = |stage| [look_up(stage, family), look_up_localhost(settings, stage, family)].concat();
    let guard = vec![outsiders(family, "drop"), vip_lookup(Collection::Dispatch(Stage::Admitted, Class::Vip, family))];
    let once = own(Stage::First);
    vec![
        StaticChain::new(&from_node, own(Stage::Node)),
        StaticChain::new(FixedChain::BySource(family), by_source),
        StaticChain::new(FixedChain::Guard(family), guard),
        StaticChain::new(format!("dispatch{}", digit(family)), [once.clone(), once].concat()),
    ]
}

/// An address and port of a Service beats a NodePort of the same number (kube-proxy.md 2.7).
fn look_up(stage: Stage, family: IpFamily) -> Vec<String> {
    let in_map = |class| Collection::Dispatch(stage, class, family);
    vec![vip_lookup(in_map(Class::Vip)), node_port_lookup(in_map(Class::NodePort), family)]
}

/// NodePorts at 127.0.0.0/8. Only in output has a packet an interface to leave by; one from outside finds nothing here.
fn look_up_localhost(settings: &PacketSettings, stage: Stage, family: IpFamily) -> Vec<String> {
    if family == IpFamily::V6 || !settings.localhost_node_ports {
        return Vec::new();
    }
    let map = Collection::Dispatch(stage, Class::NodePort, family);
    vec![format!("oifname \"lo\" ip daddr {LOCALHOST} meta l4proto . th dport vmap @{map}")]
}

const LOCALHOST: &str = "127.0.0.0/8";

fn vip_lookup(map: Collection) -> String {
    let (Collection::Dispatch(_, _, family) | Collection::Refused(_, family)) = map else {
        unreachable!("only these map targets to verdicts")
    };
    format!("{} daddr . meta l4proto . th dport vmap @{map}", ip(family))
}

fn node_port_lookup(map: Collection, family: IpFamily) -> String {
    let addresses = Collection::NodePortAddresses(family);
    format!("{} daddr @{addresses} meta l4proto . th dport vmap @{map}", ip(family))
}

/// What happens to sources outside the ranges of a guarded address.
fn outsiders(family: IpFamily, verdict: &str) -> String {
    let ip = ip(family);
    format!("{ip} daddr . meta l4proto . th dport . {ip} saddr != @{} {verdict}", Collection::Allowed(family))
}

/// Masquerading with ports above the API server's usual NodePort range (30000-32767). A UDP server in a pod answers a
/// masqueraded client by sending to (this node's address, the port chosen here); with a NodePort's number the socket
/// programs would take that for a request to the Service, and the answer would be lost.
const MASQUERADE: &str = "meta l4proto { tcp, udp, sctp } masquerade to :32768-65535 fully-random";

/// `ct status dnat` keeps other people's packets with this mark out; the bit is cleared, the others stay (8.10).
fn postrouting(settings: &PacketSettings) -> Vec<String> {
    let mark = format!("{:#x}", settings.masquerade_mark());
    let hairpin = |family| {
        let (ip, set) = (ip(family), Collection::Hairpin(family));
        format!("ct status dnat {ip} saddr . {ip} daddr @{set} {MASQUERADE}")
    };
    let marked = format!("meta mark & {mark} == {mark} meta mark set meta mark ^ {mark}");
    let mut rules = vec![format!("ct status dnat {marked} {MASQUERADE}")];
    rules.extend(FAMILIES.map(hairpin));
    rules
}

/// NodePorts are refused in input only, other ports of a ClusterIP not there: it may be an address of the node (9.2, 9.10).
fn filter_chains(settings: &PacketSettings) -> Vec<StaticChain> {
    let rule = |text: &str| vec![text.to_owned()];
    let refused = |class, family| Collection::Refused(class, family);
    let mut input: Vec<String> =
        FAMILIES.map(|family| node_port_lookup(refused(Class::NodePort, family), family)).into();
    input.push("goto refuse-services".to_owned());
    let services: Vec<String> = FAMILIES.map(|family| vip_lookup(refused(Class::Vip, family))).into();
    let unknown = |family| format!("{} daddr @{} goto refuse", ip(family), Collection::ClusterIps(family));
    // Without "with": icmpx port-unreachable, for TCP too (kube-proxy.md 9.3).
    let mut chains = vec![StaticChain::new(FixedChain::Refuse, rule("reject"))];
    let guarded = |family| vec![outsiders(family, "drop"), "goto refuse".to_owned()];
    chains.extend(FAMILIES.map(|family| StaticChain::new(FixedChain::RefuseGuarded(family), guarded(family))));
    let passing = [services.clone(), FAMILIES.map(unknown).into()].concat();
    let mut arriving = Vec::new();
    if settings.localhost_node_ports {
        // With route_localnet a neighbour could send packets to 127.0.0.1 from outside (CVE-2020-8558). What somebody else
        // translates to there, and answers to our own clients there, may come in.
        let uninvited = "ct state != { established, related } ct status & dnat != dnat";
        arriving.push(format!("ip daddr {LOCALHOST} iifname != \"lo\" {uninvited} drop"));
    }
    arriving.push("ct state new goto refuse-input".to_owned());
    let leaving = rule("ct state new goto refuse-passing");
    chains.extend([
        StaticChain::new("refuse-services", services),
        StaticChain::new("refuse-passing", passing),
        StaticChain::new("refuse-input", input),
        StaticChain::base("filter-input", "type filter hook input", -1, arriving),
        StaticChain::base("filter-forward", "type filter hook forward", -1, leaving.clone()),
        StaticChain::base("filter-output", "type filter hook output", -1, leaving),
    ]);
    chains
}

/// The commands that make the static part of `table` anew, in place of whatever is there of its name.
pub(crate) fn rebuild_commands(settings: &PacketSettings, table: Table) -> String {
    // "add" first: deleting a table that is not there is an error.
    let mut text = format!("add table {table}\ndelete table {table}\nadd table {table}\n");
    text.push_str(&static_commands(settings, table));
    writeln!(text, "add chain {table} {}", layout_mark(settings)).expect("writing to a String");
    text
}

fn static_commands(settings: &PacketSettings, table: Table) -> String {
    let declare = |collection: Collection| {
        let (kind, declaration) = collection.declaration()?;
        Some(format!("add {kind} {table} {collection} {{ {declaration} }}"))
    };
    let mut lines: Vec<String> = Collection::fixed().filter_map(declare).collect();
    for chain in static_chains(settings) {
        let hook = chain.hook.map_or_else(String::new, |(hook, priority)| {
            format!(" {{ {hook} priority {}; policy accept; }}", table.priority(priority))
        });
        lines.push(format!("add chain {table} {}{hook}", chain.name));
        lines.extend(chain.rules.iter().map(|r| format!("add rule {table} {} {r}", chain.name)));
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// Name of an empty chain that says which layout the table has: a hash of everything that shapes it but Services.
///
/// An agent whose layout differs builds the table anew; a restart of the same agent changes nothing.
pub(crate) fn layout_mark(settings: &PacketSettings) -> String {
    // FNV-1a: std's hasher may differ between compilers.
    let hash = [static_commands(settings, Table::Ours), rules::shapes(settings)]
        .iter()
        .flat_map(|text| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("layout-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LocalTraffic;

    fn rules(local_traffic: LocalTraffic, chain: &str) -> Vec<String> {
        let settings = PacketSettings { local_traffic, ..PacketSettings::default() };
        let chain = static_chains(&settings).into_iter().find(|candidate| candidate.name == chain);
        chain.expect("there is such a chain").rules
    }

    #[test]
    fn rule_3_7_pods_of_other_nodes_are_short_circuited_only_where_their_address_tells_them() {
        let cidrs = LocalTraffic::Cidrs { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None };
        let by_address = &rules(cidrs, "by-source4")[0];
        assert_eq!(by_address, "ip saddr 10.244.0.0/16 goto from-node4", "wherever such a packet comes from");
        let by_interface = &rules(LocalTraffic::Interface("cni0".to_owned()), "by-source4")[0];
        assert_eq!(by_interface, "iifname \"cni0\" goto from-node4", "not what came over the overlay");
        assert!(rules(LocalTraffic::Unknown, "by-source4")[0].starts_with("fib saddr type local"), "only processes");
    }

    #[test]
    fn rule_6_6_localhost_is_a_frontend_for_processes_of_this_node_and_closed_to_others() {
        let at_localhost = |localhost_node_ports| {
            let settings = PacketSettings { localhost_node_ports, ..PacketSettings::default() };
            let rules = static_chains(&settings)
                .into_iter()
                .flat_map(|chain| chain.rules.into_iter().map(move |rule| format!("{}: {rule}", chain.name)));
            rules.filter(|rule| rule.contains("127.0.0.0/8")).collect::<Vec<_>>()
        };
        assert_eq!(at_localhost(false), [""; 0]);
        let rules = at_localhost(true);
        let (drops, ways): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.ends_with(" drop"));
        assert_eq!(ways.len(), 3, "twice where all come by, once for policy Local: {ways:?}");
        assert!(ways.iter().all(|rule| rule.contains(": oifname \"lo\" ")), "{ways:?}");
        assert!(drops.len() == 1 && drops[0].starts_with("filter-input: "), "{drops:?}");
    }

    #[test]
    fn rules_9_10_and_9_11_only_cluster_ips_of_known_services_are_refused() {
        let passing = rules(LocalTraffic::Unknown, "refuse-passing");
        let of_addresses = passing.iter().filter(|rule| rule.ends_with("goto refuse")).collect::<Vec<_>>();
        let sets =
            FAMILIES.map(|family| format!("{} daddr @{} goto refuse", ip(family), Collection::ClusterIps(family)));
        assert_eq!(of_addresses, sets.iter().collect::<Vec<_>>(), "no rule for all of a ServiceCIDR");
    }
}
