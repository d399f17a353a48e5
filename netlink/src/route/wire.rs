//! Routes as netlink messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RouteType, RouteVia,
    },
};

use super::{Route, RouteFilter, RouteKind, RouteProtocol, RouteScope};
use crate::{Family, IfIndex};

/// IP6_RT_PRIO_USER: the metric IPv6 gives to a route without one.
const IPV6_DEFAULT_METRIC: u32 = 1024;

pub(super) fn write(route: &Route) -> RouteMessage {
    let family = route.family();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family.number(),
        destination_prefix_length: route.destination.prefix(),
        table: short_table(route.table),
        protocol: route.protocol.0.into(),
        scope: u8::from(route.scope).into(),
        kind: u8::from(route.kind).into(),
        flags: if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    // The IPv4 code refuses a destination with host bits.
    attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    attributes.extend(route.gateway.map(|gateway| {
        if Family::of(gateway) == family {
            RouteAttribute::Gateway(gateway.into())
        } else {
            // RFC 5549; RTA_GATEWAY takes the family of the destination.
            RouteAttribute::Via(RouteVia::from(gateway))
        }
    }));
    attributes.extend(route.link.map(|link| RouteAttribute::Oif(link.get())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.prefsrc.map(|source| RouteAttribute::PrefSource(source.into())));
    let mtu = route.mtu.map(RouteMetric::Mtu);
    let metrics: Vec<_> = mtu.into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// The header's table is a byte; a larger number goes into RTA_TABLE only (RT_TABLE_COMPAT).
fn short_table(table: u32) -> u8 {
    const RT_TABLE_COMPAT: u8 = 252;
    u8::try_from(table).unwrap_or(RT_TABLE_COMPAT)
}

pub(super) fn dump(family: Family, filter: &RouteFilter) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.number();
    message.attributes.extend(filter.table.map(RouteAttribute::Table));
    message.attributes.extend(filter.link.map(|link| RouteAttribute::Oif(link.get())));
    message
}

pub(super) fn lookup(destination: IpAddr) -> RouteMessage {
    let host = IpNetwork::from(destination);
    let mut message = RouteMessage::default();
    message.header.address_family = Family::of(destination).number();
    message.header.destination_prefix_length = host.prefix();
    message.attributes.push(RouteAttribute::Destination(destination.into()));
    message
}

/// One route for each next hop; none for families other than IP.
pub(crate) fn read(message: RouteMessage) -> Vec<Route> {
    let Some((route, next_hops)) = read_single(message) else {
        return Vec::new();
    };
    if next_hops.is_empty() {
        return vec![route];
    }
    next_hops.into_iter().map(|next_hop| with_next_hop(route.clone(), next_hop)).collect()
}

fn read_single(message: RouteMessage) -> Option<(Route, Vec<RouteNextHop>)> {
    let header = message.header;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route::new(IpNetwork::new(any, header.destination_prefix_length).ok()?);
    route.kind = u8::from(header.kind).into();
    route.scope = u8::from(header.scope).into();
    route.protocol = RouteProtocol(header.protocol.into());
    route.table = header.table.into();
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    let mut next_hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination = IpNetwork::new(address(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::PrefSource(source) => route.prefsrc = address(source),
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, &metrics),
            RouteAttribute::MultiPath(hops) => next_hops = hops,
            other => read_hop(&mut route, other),
        }
    }
    leave_out_defaults(&mut route, header.kind);
    Some((route, next_hops))
}

/// The attributes a next hop of its own can have as well.
fn read_hop(route: &mut Route, attribute: RouteAttribute) {
    match attribute {
        RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
        RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some(gateway.into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some(gateway.into()),
        RouteAttribute::Oif(index) => route.link = IfIndex::new(index),
        _ => {}
    }
}

fn with_next_hop(mut route: Route, next_hop: RouteNextHop) -> Route {
    route.link = IfIndex::new(next_hop.interface_index);
    route.onlink |= next_hop.flags.contains(RouteNextHopFlags::Onlink);
    for attribute in next_hop.attributes {
        read_hop(&mut route, attribute);
    }
    route
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(bytes) => route.mtu = Some(*bytes),
            RouteMetric::Advmss(bytes) => route.advmss = Some(*bytes),
            _ => {}
        }
    }
}

fn leave_out_defaults(route: &mut Route, kind: RouteType) {
    if route.family() == Family::V6 {
        if route.metric == Some(IPV6_DEFAULT_METRIC) {
            route.metric = None;
        }
        if matches!(kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw) {
            route.link = None;
        }
    }
}

fn address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(address.into()),
        RouteAddress::Inet6(address) => Some(address.into()),
        _ => None,
    }
}

impl From<u8> for RouteKind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            other => Self::Other(other),
        }
    }
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Throw => 9,
            RouteKind::Other(number) => number,
        }
    }
}

impl From<u8> for RouteScope {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            255 => Self::Nowhere,
            other => Self::Other(other),
        }
    }
}

impl From<RouteScope> for u8 {
    fn from(scope: RouteScope) -> Self {
        match scope {
            RouteScope::Universe => 0,
            RouteScope::Link => 253,
            RouteScope::Host => 254,
            RouteScope::Nowhere => 255,
            RouteScope::Other(number) => number,
        }
    }
}
