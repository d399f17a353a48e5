//! The maps and chains that come and go with Services, and the names nft knows them by.

use std::fmt;

use super::target::{Class, digit};
use crate::model::{IpFamily, Protocol};

/// Which of a target's two lists of endpoints (3.5, 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum List {
    /// For clients outside; for everybody where nobody is treated apart.
    Main,
    /// For pods and processes of this node, if they are given other endpoints.
    Node,
}

/// What a map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MapKind {
    /// Slot of the round robin to endpoint.
    Endpoints,
    /// With session affinity, slot to the endpoint's number; see [`super::affinity`].
    Choices,
    /// With session affinity, the endpoint's number to the endpoint.
    Numbered,
}

/// Chains that look into one map. The kernel checks each new element against every rule that looks into its map, and goes
/// through all maps to find one by its name: with one map for 400 chains 100,000 elements take a third of a second longer, and
/// with a map for each of 10,000 chains those take four seconds to make.
const CHAINS_A_MAP: u32 = 16;

/// A map that the rules of some chains of a pool look into, for the Service ports that use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EndpointMap {
    pub(crate) kind: MapKind,
    pub(crate) pool: Pool,
    /// Number of the chains' group.
    pub(crate) group: u32,
}

impl EndpointMap {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let kinds = [MapKind::Endpoints, MapKind::Choices, MapKind::Numbered];
        let (kind, rest) = kinds.into_iter().find_map(|kind| Some((kind, name.strip_prefix(kind.name())?)))?;
        // A group is named as a chain is.
        let Chain { pool, bucket: group } = Chain::parse(rest.strip_prefix('-')?)?;
        Some(Self { kind, pool, group })
    }
}

impl MapKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Choices => "choices",
            Self::Numbered => "numbered",
        }
    }
}

impl fmt::Display for EndpointMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), Chain { pool: self.pool, bucket: self.group })
    }
}

/// Who leaves with an address of this node (section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Masquerade {
    Never,
    Always,
    /// All but local traffic (8.1, 8.2).
    UnlessLocal,
}

/// Round-robin chains that could serve each other's Service ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pool {
    pub(crate) list: List,
    pub(crate) class: Class,
    pub(crate) family: IpFamily,
    pub(crate) protocol: Protocol,
    /// Number of endpoints, at least 1.
    pub(crate) count: u32,
    pub(crate) masquerade: Masquerade,
    /// Seconds for which a client stays with its endpoint.
    pub(crate) affinity: Option<u32>,
}

/// One round-robin chain: its rule owns the `numgen` counter its Service ports share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chain {
    pub(crate) pool: Pool,
    pub(crate) bucket: u32,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pool { list, class, family, protocol, count, masquerade, affinity } = self.pool;
        f.write_str(class.prefix())?;
        f.write_str(if list == List::Node { "node-" } else { "" })?;
        write!(f, "rr{}-{}-{count}-{}", digit(family), protocol.lowercase(), self.bucket)?;
        f.write_str(match masquerade {
            Masquerade::Never => "",
            Masquerade::Always => "-masq",
            Masquerade::UnlessLocal => "-masq_others",
        })?;
        affinity.map_or(Ok(()), |seconds| write!(f, "-sticky{seconds}"))
    }
}

impl Chain {
    pub(crate) fn map(self, kind: MapKind) -> EndpointMap {
        EndpointMap { kind, pool: self.pool, group: self.bucket / CHAINS_A_MAP }
    }

    /// The map that leads to the endpoints, the one that counts connections.
    pub(crate) fn endpoints(self) -> EndpointMap {
        self.map(if self.pool.affinity.is_some() { MapKind::Numbered } else { MapKind::Endpoints })
    }

    /// The maps it looks into.
    pub(crate) fn maps(self) -> impl Iterator<Item = EndpointMap> {
        let choices = self.pool.affinity.is_some().then(|| self.map(MapKind::Choices));
        [Some(self.endpoints()), choices].into_iter().flatten()
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (class, name) = strip(name, Class::NodePort.prefix(), Class::NodePort, Class::Vip);
        let (list, name) = strip(name, "node-", List::Node, List::Main);
        let mut parts = name.strip_prefix("rr")?.split('-');
        let (family, protocol) = (parse_family(parts.next()?)?, parse_protocol(parts.next()?)?);
        let (count, bucket) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mut rest = parts.peekable();
        let masquerade = match rest.peek() {
            Some(&"masq") => Masquerade::Always,
            Some(&"masq_others") => Masquerade::UnlessLocal,
            _ => Masquerade::Never,
        };
        if masquerade != Masquerade::Never {
            rest.next();
        }
        let affinity = match rest.next() {
            Some(sticky) => Some(sticky.strip_prefix("sticky")?.parse().ok()?),
            None => None,
        };
        let pool = Pool { list, class, family, protocol, count, masquerade, affinity };
        rest.next().is_none().then_some(Self { pool, bucket })
    }
}

fn strip<'a, T>(name: &'a str, prefix: &str, with: T, without: T) -> (T, &'a str) {
    match name.strip_prefix(prefix) {
        Some(rest) => (with, rest),
        None => (without, name),
    }
}

fn parse_family(digit: &str) -> Option<IpFamily> {
    match digit {
        "4" => Some(IpFamily::V4),
        "6" => Some(IpFamily::V6),
        _ => None,
    }
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| text == p.lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for list in [List::Main, List::Node] {
            for class in Class::BOTH {
                for affinity in [None, Some(10800)] {
                    for masquerade in [Masquerade::Never, Masquerade::Always, Masquerade::UnlessLocal] {
                        let (family, protocol) = (IpFamily::V6, Protocol::Sctp);
                        let pool = Pool { list, class, family, protocol, count: 12, masquerade, affinity };
                        let chain = Chain { pool, bucket: 35 };
                        assert_eq!(Chain::parse(&chain.to_string()), Some(chain));
                        for map in chain.maps() {
                            assert_eq!(EndpointMap::parse(&map.to_string()), Some(map));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        let odd = ["", "rr", "rr4", "rr4-tcp-3", "rr5-tcp-3-0", "rr4-icmp-3-0", "rr4-tcp-3-0-1", "np-rr4-tcp--0", "é"];
        for name in odd {
            assert_eq!(Chain::parse(name), None, "{name}");
            assert_eq!(EndpointMap::parse(name), None, "{name}");
        }
        assert_eq!(Chain::parse("rr4-tcp-3-0-masq-masq"), None);
        assert_eq!(Chain::parse("rr4-tcp-3-0-sticky9-masq"), None);
    }
}
