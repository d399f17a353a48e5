//! What the rules depend on besides Services; the chains that are the same on every node; the jumps to them.
//!
//! Rules are written exactly as `iptables-save` prints them, so that reading a table tells whether a chain is right.

use super::names::{
    CANARY, EXTERNAL_SERVICES, FIREWALL, FORWARD, MARK_MASQ, NODE_PORTS, OWNER, POSTROUTING, PROXY_FIREWALL, SERVICES,
    Table,
};
use crate::{
    model::IpFamily,
    plan::{LocalTraffic, PacketSettings},
};

/// What the programs and the kernel of this node can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// `MASQUERADE --random-fully`: iptables 1.6.2 (8.12).
    pub(crate) random_fully: bool,
    /// Sysctl `nf_conntrack_tcp_be_liberal`: packets out of window are let through on purpose (9.12).
    pub(crate) tcp_be_liberal: bool,
}

/// Settings of the rules of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) family: IpFamily,
    pub(crate) settings: PacketSettings,
    pub(crate) features: Features,
}

/// A chain and its rules, each without `-A CHAIN`.
pub(crate) struct FixedChain {
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    pub(crate) rules: Vec<String>,
}

/// A rule of a built-in chain that leads to one of ours.
#[derive(Debug)]
pub(crate) struct Jump {
    pub(crate) table: Table,
    pub(crate) from: &'static str,
    pub(crate) rule: &'static str,
}

impl Layout {
    /// `0x4000/0x4000`: the masquerade bit and nothing else.
    fn mark(&self) -> String {
        let mark = self.settings.masquerade_mark();
        format!("{mark:#x}/{mark:#x}")
    }

    /// How to tell local traffic; `None`: nobody is (8.3).
    pub(crate) fn detector(&self) -> Option<Detector> {
        let cidr = |network: String, prefix: u8| match prefix {
            0 => Detector::Everything,
            _ => Detector::Source(format!("{network}/{prefix}")),
        };
        match &self.settings.local_traffic {
            LocalTraffic::Unknown => None,
            LocalTraffic::Cidrs { v4, v6 } => match self.family {
                IpFamily::V4 => v4.map(|c| cidr(c.network().to_string(), c.prefix())),
                IpFamily::V6 => v6.map(|c| cidr(c.network().to_string(), c.prefix())),
            },
            LocalTraffic::Interface(name) => Some(Detector::Interface(name.clone())),
            LocalTraffic::InterfacePrefix(prefix) => Some(Detector::Interface(format!("{prefix}+"))),
        }
    }

    /// Whether NodePorts are served at 127.0.0.1; never at `::1`, which the kernel does not route (6.6).
    pub(crate) fn localhost_node_ports(&self) -> bool {
        self.family == IpFamily::V4 && self.settings.localhost_node_ports
    }

    /// The verdict that refuses with ICMP port unreachable, as `iptables-save` prints it (9.3).
    pub(crate) fn reject(&self) -> &'static str {
        match self.family {
            IpFamily::V4 => "REJECT --reject-with icmp-port-unreachable",
            IpFamily::V6 => "REJECT --reject-with icmp6-port-unreachable",
        }
    }

    pub(crate) fn fixed_chains(&self) -> Vec<FixedChain> {
        let chain = |table, name, rules| FixedChain { table, name, rules };
        vec![
            chain(Table::Filter, CANARY, Vec::new()),
            chain(Table::Filter, FORWARD, self.forward()),
            chain(Table::Nat, CANARY, Vec::new()),
            chain(Table::Nat, OWNER, Vec::new()),
            chain(Table::Nat, MARK_MASQ, vec![format!("-j MARK --set-xmark {}", self.mark())]),
            chain(Table::Nat, POSTROUTING, self.postrouting()),
        ]
    }

    fn postrouting(&self) -> Vec<String> {
        let comment = comment("kubernetes service traffic requiring SNAT");
        let random = if self.features.random_fully { " --random-fully" } else { "" };
        vec![
            format!("-m mark ! --mark {} -j RETURN", self.mark()),
            // An exclusive or with the bit, which is set here: clears it and leaves the others (8.10).
            format!("-j MARK --set-xmark {:#x}/0x0", self.settings.masquerade_mark()),
            format!("{comment} -j MASQUERADE{random}"),
        ]
    }

    fn forward(&self) -> Vec<String> {
        // An INVALID packet is not translated: the peer would see a pod's address it knows nothing of and reset (9.12).
        let invalid = "-m conntrack --ctstate INVALID -j DROP".to_owned();
        let rules = [
            format!("{} -m mark --mark {} -j ACCEPT", comment("kubernetes forwarding rules"), self.mark()),
            format!(
                "{} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                comment("kubernetes forwarding conntrack rule")
            ),
        ];
        let invalid = (!self.features.tcp_be_liberal).then_some(invalid);
        invalid.into_iter().chain(rules).collect()
    }

    /// In the order a packet meets them (12.1), except that nothing is said about their order among foreign rules.
    ///
    /// Unlike kube-proxy's, KUBE-SERVICES in OUTPUT also refuses external addresses, so that this node learns as fast as
    /// others that nobody serves them (9.2).
    pub(crate) const fn jumps() -> [Jump; 12] {
        const fn jump(table: Table, from: &'static str, rule: &'static str) -> Jump {
            Jump { table, from, rule }
        }
        const PORTALS: &str = r#"-m comment --comment "kubernetes service portals" -j KUBE-SERVICES"#;
        const NEW_PORTALS: &str =
            r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES"#;
        const NEW_EXTERNAL: &str = r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES"#;
        const NEW_FIREWALL: &str = r#"-m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL"#;
        const HEALTH: &str = r#"-m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS"#;
        const FORWARDING: &str = r#"-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD"#;
        const POST: &str = r#"-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING"#;
        [
            jump(Table::Nat, "PREROUTING", PORTALS),
            jump(Table::Nat, "OUTPUT", PORTALS),
            jump(Table::Nat, "POSTROUTING", POST),
            jump(Table::Filter, "INPUT", NEW_FIREWALL),
            jump(Table::Filter, "INPUT", HEALTH),
            jump(Table::Filter, "INPUT", NEW_EXTERNAL),
            jump(Table::Filter, "FORWARD", NEW_FIREWALL),
            jump(Table::Filter, "FORWARD", FORWARDING),
            jump(Table::Filter, "FORWARD", NEW_PORTALS),
            jump(Table::Filter, "FORWARD", NEW_EXTERNAL),
            jump(Table::Filter, "OUTPUT", NEW_FIREWALL),
            jump(Table::Filter, "OUTPUT", NEW_PORTALS),
        ]
    }

    /// Rules that must be in chains we share with kubelet: (chain, rule), in filter (6.6, 12.7).
    pub(crate) fn shared_with_kubelet(&self) -> Vec<(&'static str, String)> {
        if !self.localhost_node_ports() {
            return Vec::new();
        }
        // With route_localnet a neighbour could send packets to 127.0.0.1 from outside (CVE-2020-8558).
        let rule = format!(
            "! -s 127.0.0.0/8 -d 127.0.0.0/8 {} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
            comment("block incoming localnet connections")
        );
        let jump = format!("-j {FIREWALL}");
        vec![(FIREWALL, rule), ("INPUT", jump.clone()), ("OUTPUT", jump)]
    }
}

/// How to match local traffic (8.8).
#[derive(Debug)]
pub(crate) enum Detector {
    /// By source network.
    Source(String),
    /// By input interface; `+` at the end stands for anything.
    Interface(String),
    /// A source network that holds every address, whose opposite iptables has no words for.
    Everything,
}

impl Detector {
    /// Matches of local traffic, around a match `to` of the destination, or `to` alone if it may be empty.
    pub(crate) fn local(&self, to: &str) -> String {
        match self {
            Self::Source(network) => words(&["-s", network, to]),
            Self::Interface(name) => words(&[to, "-i", name]),
            Self::Everything => to.to_owned(),
        }
    }

    /// The same of all other traffic; `None`: there is no other.
    pub(crate) fn other(&self, to: &str) -> Option<String> {
        match self {
            Self::Source(network) => Some(words(&["! -s", network, to])),
            Self::Interface(name) => Some(words(&[to, "! -i", name])),
            Self::Everything => None,
        }
    }
}

/// The parts that are not empty, with one space between them.
pub(crate) fn words(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// Whether a rule of a built-in chain leads to a chain of ours or of a kube-proxy.
pub(crate) fn is_jump_to_ours(rule: &str) -> bool {
    let target = rule.rsplit(' ').next().unwrap_or_default();
    [SERVICES, EXTERNAL_SERVICES, NODE_PORTS, FORWARD, PROXY_FIREWALL, POSTROUTING].contains(&target)
}

/// A comment of at most 255 bytes, always in quotes. Names are checked long before; a character that could end the quotes
/// or the line would still be one too many for a line that root's iptables reads.
pub(crate) fn comment(text: &str) -> String {
    let safe = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ';
    let text: String = text.chars().map(|c| if safe(c) { c } else { '?' }).take(255).collect();
    format!("-m comment --comment \"{text}\"")
}
