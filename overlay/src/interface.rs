//! Which interface and address carry the outer packets: flannel's rules (flannel.md section 6).
//!
//! The choice is pure; [`inventory`] reads what it chooses from.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use regex::Regex;

use weft_netlink::{Address, IfIndex, Link, Netlink, Route, RouteFilter, RouteKind, RouteScope};

use crate::family::Family;

/// What the operator said about the interface; nothing of it is required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceChoice {
    /// `--iface`, repeatable: names, or addresses held by the interface. The first that exists is taken.
    pub interfaces: Vec<String>,
    /// `--iface-regex`, repeatable: tried after `interfaces`, on each interface's addresses first, then on names.
    pub patterns: Vec<InterfacePattern>,
    /// `--iface-can-reach`: tried last, the interface by which this address is reached.
    pub can_reach: Option<IpAddr>,
    /// `--public-ip`: what other nodes send to, if not the interface's own address.
    pub public_ip: Option<Ipv4Addr>,
    /// `--public-ipv6`.
    pub public_ipv6: Option<Ipv6Addr>,
}

impl InterfaceChoice {
    /// An interface was named, so there is no choice to stick to.
    fn names_one(&self) -> bool {
        !self.interfaces.is_empty()
    }

    fn says_something(&self) -> bool {
        self.names_one() || !self.patterns.is_empty() || self.can_reach.is_some()
    }

    fn not_found(&self) -> String {
        let mut flags = Vec::new();
        if self.names_one() {
            flags.push(format!("has a name or address of --iface {}", self.interfaces.join(", ")));
        }
        let patterns = self.patterns.iter().map(|pattern| pattern.0.as_str());
        flags.extend(patterns.map(|pattern| format!("matches --iface-regex {pattern}")));
        flags.extend(self.can_reach.map(|address| format!("leads to --iface-can-reach {address}")));
        format!("none {}", flags.join(", or "))
    }

    fn public_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_ip.map(IpAddr::V4),
            Family::V6 => self.public_ipv6.map(IpAddr::V6),
        }
    }
}

/// A regular expression for addresses or names of interfaces, in the syntax Go and Rust share.
#[derive(Clone, Debug)]
pub struct InterfacePattern(Regex);

/// The text is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a regular expression: {0}")]
pub struct InterfacePatternError(String);

impl FromStr for InterfacePattern {
    type Err = InterfacePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Regex::new(text).map(Self).map_err(|error| InterfacePatternError(error.to_string()))
    }
}

impl PartialEq for InterfacePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for InterfacePattern {}

/// The chosen interface of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Underlay {
    pub(crate) link: IfIndex,
    pub(crate) name: String,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Source of the outer packets. flannel also uses the interface's own address here: behind a 1:1 NAT the public one is
    /// not local and could not be sent from.
    pub(crate) address: IpAddr,
    /// What this node publishes.
    pub(crate) public_address: IpAddr,
}

/// No interface fits. Usual on a machine whose network is not up yet; a retry may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no interface for {family}: {reason} (looked at {looked_at})")]
pub struct InterfaceError {
    /// The family.
    pub family: Family,
    /// Which rule found nothing.
    pub reason: String,
    /// The interfaces and addresses there are.
    pub looked_at: String,
}

/// Interfaces, addresses and default routes of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// In the order of preference: lowest metric first.
    pub(crate) default_routes: Vec<Route>,
    /// The interface by which the address of `--iface-can-reach` is reached, and the source address.
    pub(crate) toward: Option<(IfIndex, Option<IpAddr>)>,
}

/// Reads what `choice` needs of the network namespace `netlink` belongs to.
pub(crate) fn inventory(netlink: &Netlink, choice: &InterfaceChoice) -> weft_netlink::Result<Inventory> {
    let mut default_routes: Vec<Route> = netlink
        .routes(&RouteFilter::default())?
        .into_iter()
        .filter(|route| route.destination.prefix() == 0 && route.kind == RouteKind::Unicast)
        .collect();
    default_routes.sort_by_key(|route| route.metric.unwrap_or(0));
    let toward = choice.can_reach.and_then(|address| netlink.route_to(address).ok());
    Ok(Inventory {
        links: netlink.links()?,
        addresses: netlink.addresses(None)?,
        default_routes,
        toward: toward.and_then(|route| Some((route.link?, route.prefsrc))),
    })
}

/// Chooses for each of `families`; they may use different interfaces (flannel insists on one, flannel-defects.md B.5).
///
/// # Errors
/// The first family for which nothing fits.
pub(crate) fn choose(
    choice: &InterfaceChoice,
    families: impl Iterator<Item = Family>,
    inventory: &Inventory,
) -> Result<BTreeMap<Family, Underlay>, InterfaceError> {
    families.map(|family| Ok((family, choose_one(choice, family, inventory)?))).collect()
}

/// Looks again at what was chosen. The node does not move to another interface or address while the old one exists: a
/// second default route that comes and goes would tear the tunnel each time.
///
/// # Errors
/// The interface is gone, or has no address left.
pub(crate) fn refresh(
    choice: &InterfaceChoice,
    current: &BTreeMap<Family, Underlay>,
    inventory: &Inventory,
) -> Result<BTreeMap<Family, Underlay>, InterfaceError> {
    let again = |(family, old): (&Family, &Underlay)| {
        let mut new = match choice.names_one() || choice.public_address(*family).is_some() {
            true => choose_one(choice, *family, inventory)?,
            false => {
                let stay = InterfaceChoice { interfaces: vec![old.name.clone()], ..choice.clone() };
                choose_one(&stay, *family, inventory).or_else(|_| choose_one(choice, *family, inventory))?
            }
        };
        let still_there =
            inventory.usable(*family).any(|entry| entry.link == new.link && entry.address.ip() == old.address);
        if still_there {
            new.address = old.address;
            new.public_address = old.public_address;
        }
        Ok((*family, new))
    };
    current.iter().map(again).collect()
}

fn choose_one(choice: &InterfaceChoice, family: Family, inventory: &Inventory) -> Result<Underlay, InterfaceError> {
    let fail = |reason: String| InterfaceError { family, reason, looked_at: Looked { inventory, family }.to_string() };
    let public = choice.public_address(family);
    let (link, wanted_address) = if choice.says_something() {
        let named = choice.interfaces.iter().find_map(|wanted| inventory.by_name_or_address(wanted));
        named
            .or_else(|| choice.patterns.iter().find_map(|pattern| inventory.matching(pattern, family)))
            .or_else(|| inventory.toward_target())
            .ok_or_else(|| fail(choice.not_found()))?
    } else if let Some(public) = public {
        let link = inventory.holder(public).ok_or_else(|| fail(format!("none holds the public address {public}")))?;
        (link, Some(public))
    } else {
        let link = inventory
            .default_link(family)
            .ok_or_else(|| fail("there is no default route; name one with --iface".into()))?;
        (link, None)
    };
    let own = wanted_address
        .filter(|address| Family::of(*address) == family)
        .or_else(|| inventory.best_address(link.index, family))
        .ok_or_else(|| fail(format!("{} has no usable address", link.name)))?;
    if link.mtu == 0 {
        return Err(fail(format!("{} has MTU 0", link.name)));
    }
    Ok(Underlay {
        link: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
        address: own,
        public_address: public.unwrap_or(own),
    })
}

impl Inventory {
    /// An address chooses its holder and itself; anything else is a name.
    fn by_name_or_address(&self, wanted: &str) -> Option<(&Link, Option<IpAddr>)> {
        match wanted.parse::<IpAddr>() {
            Ok(address) => Some((self.holder(address)?, Some(address))),
            Err(_) => Some((self.links.iter().find(|link| link.name == wanted)?, None)),
        }
    }

    /// Addresses of all interfaces come before names (flannel.md section 6).
    fn matching(&self, pattern: &InterfacePattern, family: Family) -> Option<(&Link, Option<IpAddr>)> {
        let by_address = self.links.iter().find_map(|link| {
            let mut own = self.usable(family).filter(|entry| entry.link == link.index).map(|entry| entry.address.ip());
            Some((link, Some(own.find(|address| pattern.0.is_match(&address.to_string()))?)))
        });
        by_address.or_else(|| Some((self.links.iter().find(|link| pattern.0.is_match(&link.name))?, None)))
    }

    fn toward_target(&self) -> Option<(&Link, Option<IpAddr>)> {
        let (link, source) = self.toward?;
        Some((self.link(link)?, source))
    }

    fn holder(&self, address: IpAddr) -> Option<&Link> {
        let entry = self.addresses.iter().find(|entry| entry.address.ip() == address)?;
        self.link(entry.link)
    }

    fn link(&self, index: IfIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    fn default_link(&self, family: Family) -> Option<&Link> {
        self.default_routes
            .iter()
            .filter(|route| Family::of(route.destination.ip()) == family)
            .find_map(|route| self.link(route.link?))
    }

    /// Global before link-local, permanent before dynamic, lasting before temporary. None whose time is over; one in use that
    /// ages stays in use.
    fn best_address(&self, link: IfIndex, family: Family) -> Option<IpAddr> {
        self.usable(family)
            .filter(|entry| entry.link == link && !entry.deprecated)
            .min_by_key(|entry| (entry.scope != RouteScope::Universe, !entry.permanent, entry.temporary))
            .map(|entry| entry.address.ip())
    }

    fn usable(&self, family: Family) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |entry| {
            let address = entry.address.ip();
            Family::of(address) == family && !address.is_loopback() && !entry.tentative && !entry.dad_failed
        })
    }
}

/// The addresses of a family, by interface, for an error message.
struct Looked<'a> {
    inventory: &'a Inventory,
    family: Family,
}

impl fmt::Display for Looked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inventory.links.is_empty() {
            return f.write_str("no interface at all");
        }
        for (position, link) in self.inventory.links.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{}", link.name)?;
            let usable = self.inventory.usable(self.family);
            for entry in usable.filter(|entry| entry.link == link.index) {
                write!(f, " {}", entry.address)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
