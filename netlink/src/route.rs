//! Entries of the routing tables.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use nix::libc;

use crate::{
    Error, Family, IfIndex, Netlink,
    error::{During, Failure, Result, gone_is_success},
};

mod wire;

pub(crate) use wire::read;

/// The table most lookups use.
pub const TABLE_MAIN: u32 = 254;

/// The kernel's table of local and broadcast addresses.
pub const TABLE_LOCAL: u32 = 255;

/// A route.
///
/// Read from the kernel it is in the form in which it would be written: what a family's kernel code fills in by
/// itself (IPv6's metric 1024, the loopback interface of an IPv6 blackhole) is left out, so that observed and
/// desired routes compare equal. A multipath route reads as several, one for each next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to; host bits are ignored. A default route has prefix length 0.
    pub destination: IpNetwork,
    /// Next hop, of the same family or, for an IPv4 destination, IPv6.
    pub gateway: Option<IpAddr>,
    /// Interface packets leave by.
    pub link: Option<IfIndex>,
    /// Take the gateway to be on the link although no address says so.
    pub onlink: bool,
    /// What happens to packets.
    pub kind: RouteKind,
    /// Distance of the destination. IPv4 only; IPv6 reads as [`RouteScope::Universe`].
    pub scope: RouteScope,
    /// Lower is preferred; `None` is the kernel's default: 0 for IPv4, 1024 for IPv6.
    pub metric: Option<u32>,
    /// Who made it.
    pub protocol: RouteProtocol,
    /// Its table.
    pub table: u32,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise, in bytes.
    pub advmss: Option<u32>,
    /// Source address for packets of this host that have none yet.
    pub prefsrc: Option<IpAddr>,
}

impl Route {
    /// A unicast route of the main table with nothing but a destination; set the other fields as needed.
    pub fn new(destination: IpNetwork) -> Self {
        Self {
            destination,
            gateway: None,
            link: None,
            onlink: false,
            kind: RouteKind::Unicast,
            scope: RouteScope::Universe,
            metric: None,
            protocol: RouteProtocol::BOOT,
            table: TABLE_MAIN,
            mtu: None,
            advmss: None,
            prefsrc: None,
        }
    }

    /// Family of its destination.
    pub fn family(&self) -> Family {
        Family::of(self.destination.ip())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{:?} ", self.kind)?;
        }
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " on link #{link}")?;
        }
        Ok(())
    }
}

/// What happens to the packets of a route (`RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sent on.
    Unicast,
    /// Delivered here.
    Local,
    /// Dropped in silence.
    Blackhole,
    /// Dropped; the sender is told "host unreachable".
    Unreachable,
    /// Dropped; the sender is told "administratively prohibited".
    Prohibit,
    /// The lookup goes on in the next table.
    Throw,
    /// Another kind, by number.
    Other(u8),
}

/// Distance of a destination (`RT_SCOPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// On a link of this host.
    Link,
    /// This host.
    Host,
    /// No such place; in a deletion: any.
    Nowhere,
    /// Another distance, by number.
    Other(u8),
}

/// Who made a route (`RTPROT_*`, /etc/iproute2/rt_protos).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// The kernel, along with an address.
    pub const KERNEL: Self = Self(2);
    /// Whoever says nothing: `ip route` and flannel.
    pub const BOOT: Self = Self(3);
    /// An administrator, to override dynamic routing.
    pub const STATIC: Self = Self(4);
}

/// Which routes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteFilter {
    /// One family, or both.
    pub family: Option<Family>,
    /// One table; `None` for all.
    pub table: Option<u32>,
    /// Leaving by one interface, or by any.
    pub link: Option<IfIndex>,
}

impl Default for RouteFilter {
    /// All routes of the main table.
    fn default() -> Self {
        Self { family: None, table: Some(TABLE_MAIN), link: None }
    }
}

impl Netlink {
    /// The routes that pass the filter, IPv4 first.
    ///
    /// # Errors
    /// The table cannot be read. A table that does not exist is empty.
    pub fn routes(&self, filter: &RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            if filter.family.is_none_or(|wanted| wanted == family) {
                routes.extend(self.routes_of(family, filter)?);
            }
        }
        Ok(routes)
    }

    fn routes_of(&self, family: Family, filter: &RouteFilter) -> Result<Vec<Route>> {
        let answers =
            match self.dump(RouteNetlinkMessage::GetRoute(wire::dump(family, filter))).during("list", "routes") {
                // With a filter the kernel says so when the table or the interface is not there.
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                other => other?,
            };
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Some(wire::read(message)),
            _ => None,
        });
        // Kernels without strict checking do not filter.
        Ok(all
            .flatten()
            .filter(|route| filter.table.is_none_or(|table| route.table == table))
            .filter(|route| filter.link.is_none_or(|link| route.link == Some(link)))
            .collect())
    }

    /// Makes `route` the route to its destination with its metric in its table, in one step: packets in flight use
    /// the old one or the new one, never none.
    ///
    /// # Errors
    /// The interface is gone or down (ENODEV, ENETDOWN), or the gateway is not on a link (ENETUNREACH, EINVAL).
    pub fn replace_route(&self, route: &Route) -> Result<()> {
        match self.put_route(route, NLM_F_REPLACE) {
            Err(Failure::Kernel { errno: libc::EINVAL, .. }) if route.onlink && route.family() == Family::V6 => {
                self.replace_onlink(route)
            }
            other => other,
        }
        .during("replace route", route)
    }

    /// Adds a route behind those that are there for the same destination and metric, which stay in effect; one that
    /// is there already is fine. (IPv6 joins routes with gateways into one multipath route.)
    ///
    /// # Errors
    /// As [`Netlink::replace_route`].
    pub fn append_route(&self, route: &Route) -> Result<()> {
        match self.put_route(route, NLM_F_APPEND) {
            Err(Failure::Kernel { errno: libc::EEXIST, .. }) => Ok(()),
            other => other,
        }
        .during("append route", route)
    }

    fn put_route(&self, route: &Route, flags: u16) -> std::result::Result<(), Failure> {
        self.request(RouteNetlinkMessage::NewRoute(wire::write(route)), NLM_F_CREATE | flags).map(drop)
    }

    /// IPv6 refuses an onlink gateway that routes elsewhere so far (ip6_route_check_nh_onlink), be it by the very
    /// route that is to be replaced: `p::/64 via p::` after `p::/64 via another-host`. A host route to the gateway
    /// puts that right for the moment.
    fn replace_onlink(&self, route: &Route) -> std::result::Result<(), Failure> {
        let host = route.gateway.map(IpNetwork::from).map(|gateway| Route { link: route.link, ..Route::new(gateway) });
        let step = host.filter(|host| self.put_route(host, NLM_F_EXCL).is_ok());
        let result = self.put_route(route, NLM_F_REPLACE);
        if let Some(step) = step {
            // Harmless if it stays: the gateway is on that link.
            let _ = self.delete_route(&step);
        }
        result
    }

    /// Removes a route; one that is gone is fine. Unset fields match any.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_route(&self, route: &Route) -> Result<()> {
        let mut message = wire::write(route);
        // As `ip route del` does: a route of any scope and origin, and without regard to MTU and the like.
        message.header.scope = u8::from(RouteScope::Nowhere).into();
        message.header.protocol = 0.into();
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Metrics(_)));
        let result = self.request(RouteNetlinkMessage::DelRoute(message), 0);
        gone_is_success(result.map(drop).during("delete route", route))
    }

    /// How this host would send to `destination` now: gateway, interface and source address.
    ///
    /// # Errors
    /// [`is_unreachable`](Error::is_unreachable): it would not.
    pub fn route_to(&self, destination: IpAddr) -> Result<Route> {
        let message: RouteMessage = wire::lookup(destination);
        let answers =
            self.request(RouteNetlinkMessage::GetRoute(message), 0).during("look up route to", destination)?;
        answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => wire::read(message).into_iter().next(),
                _ => None,
            })
            .ok_or_else(|| Error::unreadable("look up route to", destination, "it holds no route"))
    }
}
