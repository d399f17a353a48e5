//! Our nftables table: what is in it and how packets go through it.
//!
//! ```text
//! nat prerouting, output -> translate: (address . protocol . port), else (protocol . port) -> dnat
//! nat postrouting        -> masquerade: the pod's own connections, those from 127.0.0.1, or all
//! filter input           -> drops what comes from pods for loopback addresses
//! ```
//! * One lookup a packet, and that for the first one of a connection only, however many pods have host ports.
//! * Priorities: one after the standard ones. A Service's NodePort of the same number wins, whatever the mode of the proxy:
//!   Weft's and kube-proxy's rules all come earlier, and NAT is decided once per hook.
//! * `claims4|6` say what is wanted and by whom, as a comment; the other sets and maps follow from them.

use weft_netlink::{NftBatch, NftExpression as Do, NftHook, NftType};

/// Its name, in the family `inet`. Another layout needs another name.
pub(super) const TABLE: &str = "weft-hostports";

/// Sets and maps of one family.
pub(super) struct Family {
    pub(super) v4: bool,
    /// node address . protocol . port . pod address . pod port
    pub(super) claims: &'static str,
    /// protocol . port : pod address . pod port
    pub(super) any: &'static str,
    /// node address . protocol . port : pod address . pod port
    pub(super) addressed: &'static str,
    /// pod address . pod address . protocol . pod port
    pub(super) hairpin: &'static str,
    /// pod address . protocol . pod port
    pub(super) masquerade: &'static str,
}

/// Both.
pub(super) const FAMILIES: [Family; 2] = [
    Family {
        v4: true,
        claims: "claims4",
        any: "any4",
        addressed: "addressed4",
        hairpin: "hairpin4",
        masquerade: "masquerade4",
    },
    Family {
        v4: false,
        claims: "claims6",
        any: "any6",
        addressed: "addressed6",
        hairpin: "hairpin6",
        masquerade: "masquerade6",
    },
];

/// Masquerading keeps off the usual NodePorts, as the proxy's does and for its reason: the answer of a UDP server in a pod
/// to such a port of its node would be taken for a request to the Service.
pub(super) const MASQUERADE_PORTS: (u16, u16) = (32768, 65535);

/// NFPROTO_IPV4 and NFPROTO_IPV6; RTN_LOCAL; IPS_DST_NAT.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const LOCAL: u32 = 2;
const TRANSLATED: u32 = 1 << 5;

/// Registers of an IPv6 address, a protocol or a port.
const IPV6_REGISTERS: u32 = 4;

impl Family {
    pub(super) fn of(v4: bool) -> &'static Self {
        if v4 { &FAMILIES[0] } else { &FAMILIES[1] }
    }

    pub(super) fn sets(&self) -> [&'static str; 5] {
        [self.claims, self.any, self.addressed, self.hairpin, self.masquerade]
    }

    fn make_sets(&self, batch: &mut NftBatch) {
        let address = if self.v4 { NftType::Ipv4Address } else { NftType::Ipv6Address };
        let (protocol, port) = (NftType::Protocol, NftType::Port);
        batch.make_set(self.claims, &[address, protocol, port, address, port], &[]);
        batch.make_set(self.any, &[protocol, port], &[address, port]);
        batch.make_set(self.addressed, &[address, protocol, port], &[address, port]);
        batch.make_set(self.hairpin, &[address, address, protocol, port], &[]);
        batch.make_set(self.masquerade, &[address, protocol, port], &[]);
    }

    fn registers(&self) -> u32 {
        if self.v4 { 1 } else { IPV6_REGISTERS }
    }

    fn is_family(&self) -> [Do; 2] {
        [Do::FamilyOfPacket(0), Do::Equal(0, vec![if self.v4 { IPV4 } else { IPV6 }])]
    }

    fn source(&self, to: u32) -> Do {
        if self.v4 { Do::NetworkHeader(to, 12, 4) } else { Do::NetworkHeader(to, 8, 16) }
    }

    fn destination(&self, to: u32) -> Do {
        if self.v4 { Do::NetworkHeader(to, 16, 4) } else { Do::NetworkHeader(to, 24, 16) }
    }

    fn dnat(&self) -> Do {
        if self.v4 { Do::DnatV4(0, 1) } else { Do::DnatV6(0, IPV6_REGISTERS) }
    }

    /// `dnat ip to ip daddr . meta l4proto . th dport map @addressed`, and the same without the address.
    fn translations(&self) -> [Vec<Do>; 2] {
        let size = self.registers();
        let addressed = [self.destination(0), Do::Protocol(size), port(size + 1), Do::MapTo(0, self.addressed)];
        let any = [Do::Protocol(0), port(1), Do::MapTo(0, self.any)];
        [
            [&self.is_family()[..], &addressed, &[self.dnat()]].concat(),
            [&self.is_family()[..], &any, &[self.dnat()]].concat(),
        ]
    }

    /// `ADDRESS . ip daddr . meta l4proto . th dport @hairpin`.
    fn hairpin_of(&self, address: Do) -> [Do; 5] {
        let size = self.registers();
        let both = 2 * size;
        [address, self.destination(size), Do::Protocol(both), port(both + 1), Do::In(0, self.hairpin)]
    }

    fn masquerades(&self) -> Vec<Vec<Do>> {
        let size = self.registers();
        let masquerade = [Do::Goto("from-node")];
        let own = self.hairpin_of(self.source(0));
        let all = [self.destination(0), Do::Protocol(size), port(size + 1), Do::In(0, self.masquerade)];
        let mut rules = vec![
            [&self.is_family()[..], &own, &masquerade].concat(),
            [&self.is_family()[..], &all, &masquerade].concat(),
        ];
        if self.v4 {
            // From 127.0.0.0/8, to a pod of the set.
            let loopback = [Do::NetworkHeader(0, 12, 1), Do::Equal(0, vec![127])];
            let to_pod = self.hairpin_of(self.destination(0));
            rules.push([&self.is_family()[..], &loopback, &to_pod, &masquerade].concat());
        }
        rules
    }
}

fn port(to: u32) -> Do {
    Do::TransportHeader(to, 2, 2)
}

struct Chain {
    name: &'static str,
    hook: Option<NftHook>,
    rules: Vec<Vec<Do>>,
}

impl Chain {
    fn new(name: &'static str, hook: Option<NftHook>, rules: Vec<Vec<Do>>) -> Self {
        Self { name, hook, rules }
    }
}

/// The chains with their rules; one comes after those it goes to.
fn chains() -> Vec<Chain> {
    let hook = |kind, number, priority| Some(NftHook { kind, number, priority });
    let to_node = vec![Do::DestinationType(0), Do::Equal(0, LOCAL.to_ne_bytes().to_vec()), Do::Goto("translate")];
    vec![
        Chain::new("translate", None, translations()),
        Chain::new("from-node", None, masquerades()),
        Chain::new("translated", None, FAMILIES.iter().flat_map(Family::masquerades).collect()),
        Chain::new("prerouting", hook("nat", 0, -99), vec![to_node.clone()]),
        Chain::new("output", hook("nat", 3, -99), vec![to_node]),
        Chain::new(
            "postrouting",
            hook("nat", 4, 101),
            vec![[&is_translated()[..], &[Do::Goto("translated")]].concat()],
        ),
        Chain::new("input", hook("filter", 1, 0), loopback_guard()),
    ]
}

/// ::1 is left alone: there is no way from there to a pod, and a refusal at once makes clients try 127.0.0.1.
fn translations() -> Vec<Vec<Do>> {
    let [v4, v6] = &FAMILIES;
    let mut localhost = [0; 16];
    localhost[15] = 1;
    let leave = [v6.destination(0), Do::Equal(0, localhost.to_vec()), Do::Return];
    let mut rules = vec![[&v6.is_family()[..], &leave].concat()];
    rules.extend(v4.translations());
    rules.extend(v6.translations());
    rules
}

/// One rule a protocol: `nft` reads a masquerade with ports back only behind a match of the protocol.
fn masquerades() -> Vec<Vec<Do>> {
    let (min, max) = MASQUERADE_PORTS;
    let of = |protocol: u8| {
        let ports = [Do::Load(0, min.to_be_bytes().to_vec()), Do::Load(1, max.to_be_bytes().to_vec())];
        [&[Do::Protocol(0), Do::Equal(0, vec![protocol])][..], &ports, &[Do::Masquerade(0, 1)]].concat()
    };
    super::mapping::Protocol::ALL.iter().map(|protocol| of(protocol.number())).collect()
}

/// `ct status dnat`.
fn is_translated() -> [Do; 3] {
    let bit = TRANSLATED.to_ne_bytes();
    [Do::ConnectionStatus(0), Do::Mask(0, bit), Do::Unequal(0, vec![0; 4])]
}

/// route_localnet would let a pod reach what listens on 127.0.0.1 only (CVE-2020-8558). Answers to translated connections
/// have such a destination as well.
fn loopback_guard() -> Vec<Vec<Do>> {
    let mut name = b"lo".to_vec();
    name.resize(16, 0);
    let loopback =
        [FAMILIES[0].is_family().to_vec(), vec![Do::NetworkHeader(0, 16, 1), Do::Equal(0, vec![127])]].concat();
    vec![
        vec![Do::InputName(0), Do::Equal(0, name), Do::Accept],
        [&loopback[..], &is_translated(), &[Do::Accept]].concat(),
        [&loopback[..], &[Do::Drop]].concat(),
    ]
}

/// Makes the table with all but elements.
pub(super) fn make(batch: &mut NftBatch) {
    batch.make_table();
    FAMILIES.iter().for_each(|family| family.make_sets(batch));
    for Chain { name, hook, rules } in chains() {
        batch.make_chain(name, hook);
        rules.iter().for_each(|rule| batch.append_rule(name, rule));
    }
}

/// How many rules each chain has.
pub(super) fn rule_counts() -> std::collections::BTreeMap<String, usize> {
    chains().into_iter().map(|chain| (chain.name.to_owned(), chain.rules.len())).collect()
}
