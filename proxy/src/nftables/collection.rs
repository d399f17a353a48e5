//! The sets and maps of our table.

use std::fmt;

use super::{
    pool::EndpointMap,
    target::{Class, FAMILIES, digit},
};
use crate::model::IpFamily;

/// Where on its way through the dispatch a packet is.
///
/// In the order in which elements must appear for traffic to always have a target: the last stage first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It comes from a pod or process of this node, which externalTrafficPolicy Local does not concern (3.5, 3.6).
    Node,
    /// It comes from outside, and externalTrafficPolicy Local concerns it.
    Outside,
    /// Its source is in the source ranges (9.6).
    Admitted,
    /// Nothing is known yet.
    First,
}

impl Stage {
    pub(crate) const ALL: [Self; 4] = [Self::Node, Self::Outside, Self::Admitted, Self::First];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Node => "node-",
            Self::Outside => "outside-",
            Self::Admitted => "admitted-",
            Self::First => "",
        }
    }
}

/// One set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Collection {
    NodePortAddresses(IpFamily),
    ClusterIps(IpFamily),
    Hairpin(IpFamily),
    /// Sources admitted at a guarded address.
    Allowed(IpFamily),
    /// Numbers of Service ports with session affinity.
    AffinityPorts(Class, IpFamily),
    /// Which endpoint a client stays with. The kernel fills it.
    Affinity(IpFamily),
    Endpoints(EndpointMap),
    Dispatch(Stage, Class, IpFamily),
    Refused(Class, IpFamily),
}

impl Collection {
    /// All that are always there.
    pub(crate) fn fixed() -> impl Iterator<Item = Self> {
        let of_class = |class: Class, family| {
            let stages = Stage::ALL.map(|stage| Self::Dispatch(stage, class, family));
            stages.into_iter().chain([Self::AffinityPorts(class, family), Self::Refused(class, family)])
        };
        let of_family = move |family| {
            let sets = [Self::NodePortAddresses, Self::ClusterIps, Self::Hairpin, Self::Allowed, Self::Affinity];
            let sets = sets.map(|set| set(family)).into_iter();
            sets.chain(Class::BOTH.into_iter().flat_map(move |class| of_class(class, family)))
        };
        FAMILIES.into_iter().flat_map(of_family)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let fixed = || Self::fixed().find(|collection| collection.to_string() == name);
        EndpointMap::parse(name).map(Self::Endpoints).or_else(fixed)
    }

    /// How nft is told to make it: what follows the name, and before it whether it is a set or a map. `None` for the maps
    /// that come and go.
    pub(crate) fn declaration(self) -> Option<(&'static str, String)> {
        let address = |family| match family {
            IpFamily::V4 => "ipv4_addr",
            IpFamily::V6 => "ipv6_addr",
        };
        let target = |class, family| match class {
            Class::Vip => format!("{} . inet_proto . inet_service", address(family)),
            Class::NodePort => "inet_proto . inet_service".to_owned(),
        };
        Some(match self {
            Self::NodePortAddresses(f) | Self::ClusterIps(f) => ("set", format!("type {};", address(f))),
            Self::Hairpin(f) => ("set", format!("type {a} . {a};", a = address(f))),
            Self::Allowed(f) => ("set", format!("type {} . {}; flags interval;", target(Class::Vip, f), address(f))),
            Self::AffinityPorts(class, f) => ("map", format!("type {} : classid;", target(class, f))),
            Self::Affinity(f) => ("map", super::affinity::records_type(f)),
            Self::Dispatch(_, class, f) | Self::Refused(class, f) => {
                ("map", format!("type {} : verdict;", target(class, f)))
            }
            Self::Endpoints(_) => return None,
        })
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets = |class| match class {
            Class::Vip => "services",
            Class::NodePort => "nodeports",
        };
        match *self {
            Self::NodePortAddresses(family) => write!(f, "nodeport-addresses{}", digit(family)),
            Self::ClusterIps(family) => write!(f, "cluster-ips{}", digit(family)),
            Self::Hairpin(family) => write!(f, "hairpin{}", digit(family)),
            Self::Allowed(family) => write!(f, "allowed{}", digit(family)),
            Self::AffinityPorts(class, family) => write!(f, "affinity-{}{}", targets(class), digit(family)),
            Self::Affinity(family) => write!(f, "affinity{}", digit(family)),
            Self::Endpoints(map) => map.fmt(f),
            Self::Dispatch(stage, class, family) => {
                write!(f, "{}{}{}", stage.prefix(), targets(class), digit(family))
            }
            Self::Refused(class, family) => write!(f, "refused-{}{}", targets(class), digit(family)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_differ() {
        let names: std::collections::BTreeSet<String> = Collection::fixed().map(|c| c.to_string()).collect();
        assert_eq!(names.len(), Collection::fixed().count());
        for collection in Collection::fixed() {
            assert_eq!(Collection::parse(&collection.to_string()), Some(collection));
            assert!(collection.declaration().is_some());
        }
        assert_eq!(Collection::parse("mine"), None);
    }
}
