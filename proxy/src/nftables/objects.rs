//! The things in our table that come and go with Services, and the names nft knows them by.
//!
//! Protocols are written as numbers: nft resolves names through `/etc/protocols`, which a slim image does not have.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::model::{IpFamily, Protocol};

/// Where a packet is addressed to, as far as a verdict map can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// One address and port: ClusterIP, externalIP or LoadBalancer.
    Vip { address: IpAddr, protocol: Protocol, port: u16 },
    /// A port at every node-port address of the family.
    NodePort { family: IpFamily, protocol: Protocol, port: u16 },
}

impl Target {
    pub(crate) fn family(self) -> IpFamily {
        match self {
            Self::Vip { address, .. } => IpFamily::of(address),
            Self::NodePort { family, .. } => family,
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Vip { protocol, .. } | Self::NodePort { protocol, .. } => protocol,
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Vip { .. } => Class::Vip,
            Self::NodePort { .. } => Class::NodePort,
        }
    }

    /// From the parts of a key without the protocol.
    fn parse(class: Class, family: IpFamily, protocol: Protocol, parts: &[&str]) -> Option<Self> {
        match (class, parts) {
            (Class::Vip, &[address, port]) => {
                Some(Self::Vip { address: address.parse().ok()?, protocol, port: port.parse().ok()? })
            }
            (Class::NodePort, &[port]) => Some(Self::NodePort { family, protocol, port: port.parse().ok()? }),
            _ => None,
        }
    }

    /// From the parts of a key of a verdict map, where the protocol comes before the port.
    fn parse_verdict_key(class: Class, family: IpFamily, parts: &[&str]) -> Option<Self> {
        let (rest, &[protocol, port]) = parts.split_last_chunk()?;
        Self::parse(class, family, parse_protocol(protocol)?, &[rest, &[port]].concat())
    }
}

/// As in the verdict maps.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip { address, protocol, port } => {
                write!(f, "{address} . {} . {port}", protocol.number())
            }
            Self::NodePort { protocol, port, .. } => write!(f, "{} . {port}", protocol.number()),
        }
    }
}

/// The two kinds of [`Target`], which need keys, and so maps, of different types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Vip,
    NodePort,
}

/// A map of endpoints: all Service ports of one class, family and protocol with the same number of endpoints.
///
/// `numgen inc mod N` needs N in the rule, so each N has its own map and chains; for the protocol see
/// [`super::ruleset::endpoint_map_type`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndpointMap {
    pub(crate) class: Class,
    pub(crate) family: IpFamily,
    pub(crate) protocol: Protocol,
    /// N; at least 1.
    pub(crate) count: u32,
}

impl fmt::Display for EndpointMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.class {
            Class::Vip => "endpoints",
            Class::NodePort => "np-endpoints",
        };
        write!(f, "{prefix}{}-{}-{}", digit(self.family), self.protocol.lowercase(), self.count)
    }
}

impl EndpointMap {
    pub(crate) fn of(target: Target, count: u32) -> Self {
        let (class, family, protocol) = (target.class(), target.family(), target.protocol());
        Self { class, family, protocol, count }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (class, rest) = match name.strip_prefix("np-endpoints") {
            Some(rest) => (Class::NodePort, rest),
            None => (Class::Vip, name.strip_prefix("endpoints")?),
        };
        Self::parse_rest(class, &rest.split('-').collect::<Vec<_>>())
    }

    fn parse_rest(class: Class, parts: &[&str]) -> Option<Self> {
        let &[family, protocol, count] = parts else { return None };
        Some(Self {
            class,
            family: parse_family(family)?,
            protocol: parse_protocol(protocol)?,
            count: count.parse().ok()?,
        })
    }
}

/// Round-robin chains that could serve each other's Service ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pool {
    pub(crate) map: EndpointMap,
    /// Whether the chain marks the packet for masquerade.
    pub(crate) masquerade: bool,
}

/// One round-robin chain: its single rule owns the `numgen` counter its Service ports share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chain {
    pub(crate) pool: Pool,
    pub(crate) bucket: u32,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EndpointMap { class, family, protocol, count } = self.pool.map;
        let prefix = match class {
            Class::Vip => "rr",
            Class::NodePort => "np-rr",
        };
        let suffix = if self.pool.masquerade { "-masq" } else { "" };
        write!(f, "{prefix}{}-{}-{count}-{}{suffix}", digit(family), protocol.lowercase(), self.bucket)
    }
}

impl Chain {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (class, rest) = match name.strip_prefix("np-rr") {
            Some(rest) => (Class::NodePort, rest),
            None => (Class::Vip, name.strip_prefix("rr")?),
        };
        let (rest, masquerade) = match rest.strip_suffix("-masq") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let parts: Vec<&str> = rest.split('-').collect();
        let (bucket, map) = parts.split_last()?;
        let map = EndpointMap::parse_rest(class, map)?;
        Some(Self { pool: Pool { map, masquerade }, bucket: bucket.parse().ok()? })
    }
}

/// One set or map element: the key, and through [`Element::collection`] the name of the set or map.
///
/// The order of the variants is the order in which elements must appear for traffic to always have a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Element {
    /// An address at which NodePorts are accepted.
    NodePortAddress(IpAddr),
    /// An endpoint on this node, which might connect to itself.
    Hairpin(IpAddr),
    /// The endpoint in one slot, 0..count, of a target.
    Endpoint { count: u32, target: Target, slot: u32 },
    /// The chain that balances a target.
    Dispatch(Target),
    /// A target without a usable endpoint.
    Refusal(Target),
}

/// What an [`Element`] maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: it is in a set.
    Present,
    /// A pod's address and port.
    Endpoint(SocketAddr),
    /// The chain to jump to.
    Chain(Chain),
    /// Answer with ICMP port unreachable.
    Reject,
    /// Drop silently.
    Drop,
}

impl Element {
    /// The key as the kernel stores it, if it is an endpoint: each part padded to 4 bytes, addresses and ports in network
    /// byte order, the slot as the CPU has it.
    pub(crate) fn endpoint_key(self) -> Option<Vec<u8>> {
        let Self::Endpoint { target, slot, .. } = self else { return None };
        let (mut key, port) = match target {
            Target::Vip { address: IpAddr::V4(address), port, .. } => (address.octets().to_vec(), port),
            Target::Vip { address: IpAddr::V6(address), port, .. } => (address.octets().to_vec(), port),
            Target::NodePort { port, .. } => (Vec::new(), port),
        };
        key.extend(port.to_be_bytes());
        key.extend([0; 2]);
        key.extend(slot.to_ne_bytes());
        Some(key)
    }

    /// Name of the set or map this element lives in.
    pub(crate) fn collection(self) -> String {
        match self {
            Self::NodePortAddress(a) => format!("nodeport-addresses{}", digit(IpFamily::of(a))),
            Self::Hairpin(a) => format!("hairpin{}", digit(IpFamily::of(a))),
            Self::Endpoint { target, count, .. } => EndpointMap::of(target, count).to_string(),
            Self::Dispatch(t) => match t.class() {
                Class::Vip => format!("services{}", digit(t.family())),
                Class::NodePort => format!("nodeports{}", digit(t.family())),
            },
            Self::Refusal(t) => match t.class() {
                Class::Vip => format!("refused-services{}", digit(t.family())),
                Class::NodePort => format!("refused-nodeports{}", digit(t.family())),
            },
        }
    }

    /// Reads back the key `parts` of an element of the set or map `collection`; `None` if it cannot be one of ours.
    pub(crate) fn parse(collection: &str, parts: &[&str]) -> Option<Self> {
        if let Some(map) = EndpointMap::parse(collection) {
            let (slot, target) = parts.split_last()?;
            let target = Target::parse(map.class, map.family, map.protocol, target)?;
            return Some(Self::Endpoint { count: map.count, target, slot: slot.parse().ok()? });
        }
        let (name, family) = collection.split_at_checked(collection.len().checked_sub(1)?)?;
        let family = parse_family(family)?;
        match (name, parts) {
            ("nodeport-addresses", &[a]) => Some(Self::NodePortAddress(a.parse().ok()?)),
            ("hairpin", &[a, b]) if a == b => Some(Self::Hairpin(a.parse().ok()?)),
            ("services", _) => Target::parse_verdict_key(Class::Vip, family, parts).map(Self::Dispatch),
            ("nodeports", _) => Target::parse_verdict_key(Class::NodePort, family, parts).map(Self::Dispatch),
            ("refused-services", _) => Target::parse_verdict_key(Class::Vip, family, parts).map(Self::Refusal),
            ("refused-nodeports", _) => Target::parse_verdict_key(Class::NodePort, family, parts).map(Self::Refusal),
            _ => None,
        }
    }
}

/// The key alone, as nft writes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodePortAddress(address) => write!(f, "{address}"),
            Self::Hairpin(address) => write!(f, "{address} . {address}"),
            Self::Endpoint { target: Target::Vip { address, port, .. }, slot, .. } => {
                write!(f, "{address} . {port} . {slot}")
            }
            Self::Endpoint { target: Target::NodePort { port, .. }, slot, .. } => write!(f, "{port} . {slot}"),
            Self::Dispatch(target) | Self::Refusal(target) => write!(f, "{target}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => Ok(()),
            Self::Endpoint(to) => write!(f, "{} . {}", to.ip(), to.port()),
            // jump, not goto: see `ruleset` for what follows when the chain finds nothing.
            Self::Chain(chain) => write!(f, "jump {chain}"),
            Self::Reject => write!(f, "goto {}", super::ruleset::REJECT_CHAIN),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// `4` or `6`: how names tell the families apart.
pub(crate) const fn digit(family: IpFamily) -> char {
    match family {
        IpFamily::V4 => '4',
        IpFamily::V6 => '6',
    }
}

fn parse_family(digit: &str) -> Option<IpFamily> {
    match digit {
        "4" => Some(IpFamily::V4),
        "6" => Some(IpFamily::V6),
        _ => None,
    }
}

/// By number or name: `nft -j` prints a name where `/etc/protocols` has one.
fn parse_protocol(text: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|p| text == p.lowercase() || text.parse() == Ok(p.number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_read_back() {
        let vip = |address: &str, protocol| Target::Vip { address: address.parse().unwrap(), protocol, port: 80 };
        let node_port = Target::NodePort { family: IpFamily::V6, protocol: Protocol::Sctp, port: 30080 };
        for target in [vip("192.0.2.1", Protocol::Tcp), vip("2001:db8::1", Protocol::Udp), node_port] {
            let map = EndpointMap::of(target, 12);
            assert_eq!(EndpointMap::parse(&map.to_string()), Some(map));
            for masquerade in [false, true] {
                let chain = Chain { pool: Pool { map, masquerade }, bucket: 3 };
                assert_eq!(Chain::parse(&chain.to_string()), Some(chain));
            }
            let endpoint = Element::Endpoint { count: 12, target, slot: 7 };
            for element in [endpoint, Element::Dispatch(target), Element::Refusal(target)] {
                let key = element.to_string();
                let parts: Vec<&str> = key.split(" . ").collect();
                assert_eq!(Element::parse(&element.collection(), &parts), Some(element), "{element:?}");
            }
        }
        for address in ["10.244.0.2", "fd44::2"].map(|a| a.parse().unwrap()) {
            for element in [Element::NodePortAddress(address), Element::Hairpin(address)] {
                let key = element.to_string();
                let parts: Vec<&str> = key.split(" . ").collect();
                assert_eq!(Element::parse(&element.collection(), &parts), Some(element));
            }
        }
    }

    #[test]
    fn foreign_names_and_keys_are_not_ours() {
        for name in ["", "rr", "rr4", "rr4-tcp-3", "rr5-tcp-3-0", "rr4-icmp-3-0", "rr4-tcp-3-0-1", "np-rr4-tcp--0", "é"]
        {
            assert_eq!(Chain::parse(name), None, "{name}");
            assert_eq!(EndpointMap::parse(name), None, "{name}");
            assert_eq!(Element::parse(name, &["10.0.0.1"]), None, "{name}");
        }
        assert_eq!(Element::parse("hairpin4", &["10.0.0.1", "10.0.0.2"]), None);
        assert_eq!(Element::parse("services4", &["10.0.0.1", "icmp", "80"]), None);
        assert_eq!(Element::parse("services4", &[]), None);
        assert_eq!(Element::parse("nodeports4", &["6", "80", "1"]), None);
    }
}
