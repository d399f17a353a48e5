//! The part of our table that does not depend on Services: hooks, dispatch, masquerade and refusal.
//!
//! ```text
//! nat prerouting, output  -> dispatch4|6: (address . protocol . port) or, at a node-port address, (protocol . port)
//!                            -> one of the round-robin chains -> dnat
//! nat postrouting         -> masquerade what such a chain marked, and what a local endpoint sent to itself
//! filter input, forward, output -> reject or drop new connections to targets without endpoints
//! ```
//! * Priorities: one before the standard ones, so that our decision does not depend on who loaded first. NAT is decided
//!   once per hook: a kube-proxy or flannel at the standard priority skips what we have translated, and gets all the rest.
//! * Every dispatch is written twice, and round-robin chains are jumped to. A packet that meets a commit half way may take
//!   its verdict from the old generation and find the endpoints of the old one gone; it comes back, and the second try sees
//!   the new generation only. Only the first packet of a connection passes here.
//! * NodePorts are matched by a set of addresses, not `fib daddr type local`: the set is what the agent computed from
//!   nodePortAddresses (kube-proxy.md 6), so socket and packet path agree, and the node's pod-side and VTEP addresses do
//!   not become frontends by accident. Loopback is never in it (6.6).

use std::fmt::Write;

use super::objects::{Chain, Class, EndpointMap, digit};
use crate::model::{IpFamily, Protocol};

/// Family and name of our table, as nft commands want them.
pub(crate) const TABLE: &str = "inet weft-proxy";

/// The name alone.
pub(crate) const TABLE_NAME: &str = "weft-proxy";

/// The first chain a packet from outside meets, and how many rules it has.
pub(crate) const ENTRANCE: (&str, usize) = ("nat-prerouting", 1);

/// Where targets without any endpoint go.
pub(crate) const REJECT_CHAIN: &str = "refuse";

/// Bit 14: kube-proxy's masquerade mark (kube-proxy.md 8.10), which flannel and CNI plugins leave alone.
const MASQUERADE_MARK: &str = "0x4000";

/// A chain of the static part, and its rules.
pub(crate) struct StaticChain {
    pub(crate) name: String,
    /// `type ... hook ... priority ...` of a base chain; empty for the others.
    hook: &'static str,
    pub(crate) rules: Vec<String>,
}

impl StaticChain {
    fn new(name: impl Into<String>, hook: &'static str, rules: Vec<String>) -> Self {
        Self { name: name.into(), hook, rules }
    }
}

/// All chains of the static part but the layout mark; a chain comes after those it jumps to.
pub(crate) fn static_chains() -> Vec<StaticChain> {
    let rule = |text: &str| vec![text.to_owned()];
    let both = |f: fn(&str, char) -> Vec<String>| [f("ip", '4'), f("ip6", '6')].concat();
    let by_family = ["meta nfproto vmap { ipv4 : goto dispatch4, ipv6 : goto dispatch6 }"];
    let by_family = by_family.map(str::to_owned).to_vec();
    let mut refuse_local = both(|ip, n| {
        let nodeport = format!("{ip} daddr @nodeport-addresses{n} meta l4proto . th dport");
        vec![format!("{nodeport} vmap @refused-nodeports{n}")]
    });
    refuse_local.push("goto refuse-services".to_owned());
    vec![
        StaticChain::new("dispatch4", "", dispatch("ip", '4')),
        StaticChain::new("dispatch6", "", dispatch("ip6", '6')),
        StaticChain::new("nat-prerouting", "type nat hook prerouting priority dstnat - 1", by_family.clone()),
        StaticChain::new("nat-output", "type nat hook output priority -101", by_family),
        StaticChain::new("nat-postrouting", "type nat hook postrouting priority srcnat - 1", postrouting()),
        // Without "with": icmpx port-unreachable, for TCP too (kube-proxy.md 9.3).
        StaticChain::new(REJECT_CHAIN, "", rule("reject")),
        StaticChain::new(
            "refuse-services",
            "",
            both(|ip, n| vec![format!("{ip} daddr . meta l4proto . th dport vmap @refused-services{n}")]),
        ),
        StaticChain::new("refuse-local", "", refuse_local),
        StaticChain::new(
            "filter-input",
            "type filter hook input priority filter - 1",
            rule("ct state new goto refuse-local"),
        ),
        StaticChain::new(
            "filter-forward",
            "type filter hook forward priority filter - 1",
            rule("ct state new goto refuse-services"),
        ),
        StaticChain::new(
            "filter-output",
            "type filter hook output priority filter - 1",
            rule("ct state new goto refuse-services"),
        ),
    ]
}

/// An address and port of a Service beats a NodePort of the same number (kube-proxy.md 2.7).
fn dispatch(ip: &str, n: char) -> Vec<String> {
    let once = [
        format!("{ip} daddr . meta l4proto . th dport vmap @services{n}"),
        format!("{ip} daddr @nodeport-addresses{n} meta l4proto . th dport vmap @nodeports{n}"),
    ];
    [once.clone(), once].concat()
}

/// `ct status dnat` keeps other people's packets with this mark out; the bit is cleared, the others stay (8.10).
fn postrouting() -> Vec<String> {
    let marked = format!("meta mark & {MASQUERADE_MARK} == {MASQUERADE_MARK}");
    let clear = format!("meta mark set meta mark ^ {MASQUERADE_MARK}");
    vec![
        format!("ct status dnat {marked} {clear} masquerade fully-random"),
        "ct status dnat ip saddr . ip daddr @hairpin4 masquerade fully-random".to_owned(),
        "ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade fully-random".to_owned(),
    ]
}

/// Names and types of the sets and maps that are always there.
fn static_collections() -> Vec<String> {
    let mut lines = Vec::new();
    for (n, address) in [('4', "ipv4_addr"), ('6', "ipv6_addr")] {
        let vip = format!("type {address} . inet_proto . inet_service : verdict");
        let nodeport = "type inet_proto . inet_service : verdict";
        lines.extend([
            format!("add set {TABLE} nodeport-addresses{n} {{ type {address}; }}"),
            format!("add set {TABLE} hairpin{n} {{ type {address} . {address}; }}"),
            format!("add map {TABLE} services{n} {{ {vip}; }}"),
            format!("add map {TABLE} nodeports{n} {{ {nodeport}; }}"),
            format!("add map {TABLE} refused-services{n} {{ {vip}; }}"),
            format!("add map {TABLE} refused-nodeports{n} {{ {nodeport}; }}"),
        ]);
    }
    lines
}

/// The commands that make the static part anew, in place of whatever table of our name is there.
pub(crate) fn rebuild_commands() -> String {
    // "add" first: deleting a table that is not there is an error.
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    text.push_str(&static_commands());
    writeln!(text, "add chain {TABLE} {}", layout_mark()).expect("writing to a String");
    text
}

fn static_commands() -> String {
    let mut lines = static_collections();
    for chain in static_chains() {
        let hook = match chain.hook {
            "" => String::new(),
            hook => format!(" {{ {hook}; policy accept; }}"),
        };
        lines.push(format!("add chain {TABLE} {}{hook}", chain.name));
        lines.extend(chain.rules.iter().map(|r| format!("add rule {TABLE} {} {r}", chain.name)));
    }
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// Name of an empty chain that says which layout the table has: a hash of everything in this file that shapes it.
///
/// An agent whose layout differs builds the table anew; a restart of the same agent changes nothing.
pub(crate) fn layout_mark() -> String {
    let [vip, nodeport] = [Class::Vip, Class::NodePort].map(|class| {
        let map = EndpointMap { class, family: IpFamily::V4, protocol: Protocol::Tcp, count: 1 };
        let pool = super::objects::Pool { map, masquerade: true };
        format!("{} {}", endpoint_map_type(map), round_robin_rule(Chain { pool, bucket: 0 }))
    });
    // FNV-1a: std's hasher may differ between compilers.
    let hash = [static_commands(), vip, nodeport]
        .iter()
        .flat_map(|text| text.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("layout-{hash:016x}")
}

/// Type of an endpoint map. `typeof`, because `type` has no word for the slot; each element counts the connections it got.
///
/// One protocol a map: with `th dport` for all of them, nft 1.0.6 loads the map but refuses every later rule that looks
/// into it ("conflicting protocols specified: ip vs. th"), and any other word for a port ties the rule to its protocol.
pub(crate) fn endpoint_map_type(map: EndpointMap) -> String {
    let (ip, protocol) = (ip(map.family), map.protocol.lowercase());
    format!("typeof {} : {ip} daddr . {protocol} dport; counter;", endpoint_key(map))
}

/// The rule of a round-robin chain.
pub(crate) fn round_robin_rule(chain: Chain) -> String {
    let map = chain.pool.map;
    let mark =
        if chain.pool.masquerade { format!("meta mark set meta mark | {MASQUERADE_MARK} ") } else { String::new() };
    format!("{mark}dnat {} to {} map @{map}", ip(map.family), endpoint_key(map))
}

fn endpoint_key(map: EndpointMap) -> String {
    let rest = format!("{} dport . numgen inc mod {}", map.protocol.lowercase(), map.count);
    match map.class {
        Class::Vip => format!("{} daddr . {rest}", ip(map.family)),
        Class::NodePort => rest,
    }
}

const fn ip(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

/// Names of the sets and maps that are always there.
pub(crate) fn static_collection_names() -> Vec<String> {
    let names = ["nodeport-addresses", "hairpin", "services", "nodeports", "refused-services", "refused-nodeports"];
    [IpFamily::V4, IpFamily::V6]
        .iter()
        .flat_map(|family| names.map(|name| format!("{name}{}", digit(*family))))
        .collect()
}
