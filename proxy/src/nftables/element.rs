//! The elements of our sets and maps, and what they map to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;

use super::{
    collection::{Collection, Stage},
    pool::{Chain, EndpointMap},
    target::{Target, digit},
};
use crate::model::IpFamily;

/// One set or map element: the key, and through [`Element::collection`] the set or map.
///
/// The order of the variants is the order in which elements must appear for traffic to always have a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Element {
    /// An address at which NodePorts are accepted.
    NodePortAddress(IpAddr),
    /// An address whose other ports are refused (9.10).
    ClusterIp(IpAddr),
    /// An endpoint on this node, which might connect to itself.
    Hairpin(IpAddr),
    /// Sources admitted at a guarded VIP.
    Allowed { target: Target, from: IpNetwork },
    /// The number of the target's Service port, for session affinity.
    AffinityPort(Target),
    /// An endpoint of a target, or its number.
    Endpoint { map: EndpointMap, target: Target, slot: u32 },
    /// Where packets to a target go next.
    Dispatch { stage: Stage, target: Target },
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
    /// See [`super::affinity`].
    Number(u32),
    /// The chain that balances it.
    Chain(Chain),
    /// A chain that is always there.
    Fixed(FixedChain),
    /// Drop silently.
    Drop,
}

/// The chains of the static part that verdicts name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FixedChain {
    /// Looks at the source ranges, then goes on at [`Stage::Admitted`].
    Guard(IpFamily),
    /// Goes on at [`Stage::Node`] or [`Stage::Outside`].
    BySource(IpFamily),
    /// Answers with ICMP port unreachable.
    Refuse,
    /// The same to those in the source ranges, and silence to others.
    RefuseGuarded(IpFamily),
}

impl FixedChain {
    pub(crate) const ALL: [Self; 7] = [
        Self::Guard(IpFamily::V4),
        Self::Guard(IpFamily::V6),
        Self::BySource(IpFamily::V4),
        Self::BySource(IpFamily::V6),
        Self::Refuse,
        Self::RefuseGuarded(IpFamily::V4),
        Self::RefuseGuarded(IpFamily::V6),
    ];

    /// Whether the packet may come back: what leads to NAT jumps, see [`super::ruleset`] for what follows when it finds
    /// nothing.
    pub(crate) const fn returns(self) -> bool {
        matches!(self, Self::Guard(_) | Self::BySource(_))
    }
}

impl fmt::Display for FixedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard(family) => write!(f, "guard{}", digit(*family)),
            Self::BySource(family) => write!(f, "by-source{}", digit(*family)),
            Self::Refuse => f.write_str("refuse"),
            Self::RefuseGuarded(family) => write!(f, "refuse-guarded{}", digit(*family)),
        }
    }
}

impl Element {
    /// The set or map this element lives in.
    pub(crate) fn collection(self) -> Collection {
        match self {
            Self::NodePortAddress(a) => Collection::NodePortAddresses(IpFamily::of(a)),
            Self::ClusterIp(a) => Collection::ClusterIps(IpFamily::of(a)),
            Self::Hairpin(a) => Collection::Hairpin(IpFamily::of(a)),
            Self::Allowed { target, .. } => Collection::Allowed(target.family()),
            Self::AffinityPort(t) => Collection::AffinityPorts(t.class(), t.family()),
            Self::Endpoint { map, .. } => Collection::Endpoints(map),
            Self::Dispatch { stage, target } => Collection::Dispatch(stage, target.class(), target.family()),
            Self::Refusal(t) => Collection::Refused(t.class(), t.family()),
        }
    }
}

/// The key alone, as nft writes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodePortAddress(address) | Self::ClusterIp(address) => write!(f, "{address}"),
            Self::Hairpin(address) => write!(f, "{address} . {address}"),
            Self::Allowed { target, from } => write!(f, "{target} . {from}"),
            Self::Endpoint { target: Target::Vip { address, port, .. }, slot, .. } => {
                write!(f, "{address} . {port} . {slot}")
            }
            Self::Endpoint { target: Target::NodePort { port, .. }, slot, .. } => write!(f, "{port} . {slot}"),
            Self::AffinityPort(target) | Self::Dispatch { target, .. } | Self::Refusal(target) => write!(f, "{target}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => Ok(()),
            Self::Endpoint(to) => write!(f, "{} . {}", to.ip(), to.port()),
            Self::Number(number) => write!(f, "{number}"),
            // jump, not goto: see `ruleset` for what follows when the chain finds nothing.
            Self::Chain(chain) => write!(f, "jump {chain}"),
            Self::Fixed(chain) => write!(f, "{} {chain}", if chain.returns() { "jump" } else { "goto" }),
            Self::Drop => f.write_str("drop"),
        }
    }
}
