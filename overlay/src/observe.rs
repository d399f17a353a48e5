//! Reads our part of the kernel's state. Decides nothing but what is ours.
//!
//! Ours is: the device with our name; its addresses inside the pod network; its permanent neighbours and forwarding entries;
//! its routes of exactly flannel's form (so a route an administrator put on the device stays); and unreachable routes with
//! our protocol number.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use weft_netlink::{
    IfIndex, Link, LinkKind, Neighbour, NeighbourState, Netlink, Route, RouteFilter, RouteKind, RouteProtocol,
    TABLE_MAIN,
};

use crate::{
    family::{self, Family},
    lease::Mac,
    netconf,
    plan::{Desired, DesiredFamily, NextHop, Observed, ObservedDevice, ObservedFamily, Retired, VxlanIdentity},
};

/// Marks our unreachable routes; the number is in no /etc/iproute2/rt_protos ('W').
pub(crate) const UNREACHABLE_PROTOCOL: RouteProtocol = RouteProtocol(0x57);

/// Behind any other route to the subnet, so that pod routes and flannel's connected route of cni0 win.
pub(crate) const UNREACHABLE_METRIC: u32 = 4096;

/// Indexes of our devices, for telling whether an event is about them.
pub(crate) type Devices = BTreeMap<Family, IfIndex>;

/// Observes every family of `desired`.
///
/// # Errors
/// A table cannot be read; nothing is known then.
pub(crate) fn observe(netlink: &Netlink, desired: &Desired) -> weft_netlink::Result<(Observed, Devices)> {
    let mut observed = Observed::default();
    let mut devices = Devices::new();
    let links = netlink.links()?;
    for (family, desired) in &desired.families {
        let name = desired.device.as_ref().map(|device| device.name.as_str());
        let link = links.iter().find(|link| Some(link.name.as_str()) == name);
        devices.extend(link.map(|link| (*family, link.index)));
        let mut state = observe_family(netlink, *family, desired, link)?;
        state.old_devices = old_devices(netlink, *family, desired.network, name, &links)?;
        observed.families.insert(*family, state);
    }
    for (family, retired) in &desired.retired {
        observed.families.insert(*family, observe_retired(netlink, *family, retired, &links)?);
    }
    Ok((observed, devices))
}

/// What is left of a family that is switched off.
fn observe_retired(
    netlink: &Netlink,
    family: Family,
    retired: &Retired,
    links: &[Link],
) -> weft_netlink::Result<ObservedFamily> {
    let routes = routes(netlink, family)?;
    let mut state = ObservedFamily::default();
    state.unreachable.extend(routes.iter().filter(|route| is_our_unreachable(route)).map(|route| route.destination));
    if let Some(network) = retired.network {
        state.direct = direct_hops(&routes, network, None);
        state.old_devices = old_devices(netlink, family, network, None, links)?;
    }
    let ours = |link: &&Link| retired.device.as_ref() == Some(&link.name) && matches!(link.kind, LinkKind::Vxlan(_));
    state.old_devices.extend(links.iter().find(ours).map(|link| link.name.clone()));
    Ok(state)
}

fn routes(netlink: &Netlink, family: Family) -> weft_netlink::Result<Vec<Route>> {
    netlink.routes(&RouteFilter { family: Some(netlink_family(family)), table: Some(TABLE_MAIN), link: None })
}

fn direct_hops(routes: &[Route], network: IpNetwork, device: Option<IfIndex>) -> BTreeMap<IpNetwork, NextHop> {
    routes.iter().filter_map(|route| Some((route.destination, direct_hop(route, network, device)?))).collect()
}

/// Devices with a name of flannel's, and an address that only an overlay of this pod network can have given them.
fn old_devices(
    netlink: &Netlink,
    family: Family,
    network: IpNetwork,
    current: Option<&str>,
    links: &[Link],
) -> weft_netlink::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for link in links.iter().filter(|link| Some(link.name.as_str()) != current) {
        let LinkKind::Vxlan(vxlan) = &link.kind else { continue };
        if link.name != netconf::device_name(vxlan.vni, family) {
            continue;
        }
        let addresses = netlink.addresses(Some(link.index))?;
        if addresses.iter().any(|entry| family::covers(network, entry.address)) {
            names.insert(link.name.clone());
        }
    }
    Ok(names)
}

fn observe_family(
    netlink: &Netlink,
    family: Family,
    desired: &DesiredFamily,
    link: Option<&Link>,
) -> weft_netlink::Result<ObservedFamily> {
    let mut state = ObservedFamily::default();
    let routes = routes(netlink, family)?;
    state.unreachable.extend(routes.iter().filter(|route| is_our_unreachable(route)).map(|route| route.destination));
    state.direct = direct_hops(&routes, desired.network, link.map(|link| link.index));
    let Some(link) = link else {
        return Ok(state);
    };
    state.device = Some(device(link));
    state.routes.extend(routes.iter().filter(|route| is_peer_route(route, link.index)).map(|route| route.destination));
    state.addresses = netlink
        .addresses(Some(link.index))?
        .into_iter()
        .map(|entry| entry.address)
        .filter(|address| family::covers(desired.network, *address))
        .collect();
    state.neighbours = netlink
        .neighbours(link.index)?
        .into_iter()
        .filter(|neighbour| Family::of(neighbour.address) == family)
        .filter_map(|neighbour| Some((neighbour.address, permanent_mac(&neighbour)?)))
        .collect();
    state.fdb = match link.kind {
        LinkKind::Vxlan(_) => netlink.fdb(link.index)?.into_iter().map(|entry| (entry.mac, entry.dst)).collect(),
        _ => BTreeSet::new(),
    };
    Ok(state)
}

pub(crate) fn device(link: &Link) -> ObservedDevice {
    let identity = match &link.kind {
        LinkKind::Vxlan(vxlan) => Some(VxlanIdentity {
            vni: vxlan.vni,
            port: vxlan.port,
            local: vxlan.local,
            underlay: vxlan.underlay.map(IfIndex::get),
            learning: vxlan.learning,
            gbp: vxlan.gbp,
        }),
        _ => None,
    };
    ObservedDevice { identity, mac: link.mac, mtu: link.mtu, up: link.up }
}

/// The MAC of a permanent neighbour: only those are ours.
pub(crate) fn permanent_mac(neighbour: &Neighbour) -> Option<Mac> {
    neighbour.mac.filter(|_| neighbour.state == NeighbourState::Permanent)
}

/// The route to a peer, exactly as flannel writes it (flannel.md 4.2).
pub(crate) fn peer_route(destination: IpNetwork, device: IfIndex) -> Route {
    let mut route = Route::new(destination);
    route.gateway = Some(destination.network());
    route.link = Some(device);
    route.onlink = true;
    route
}

pub(crate) fn is_peer_route(route: &Route, device: IfIndex) -> bool {
    *route == peer_route(route.destination, device)
}

/// The plain route to a directly connected peer, as flannel's host-gw and DirectRouting write it.
pub(crate) fn direct_route(destination: IpNetwork, hop: NextHop) -> Route {
    let mut route = Route::new(destination);
    route.gateway = Some(hop.gateway);
    route.link = IfIndex::new(hop.link);
    route
}

/// Where a plain route inside the pod network leads; `None` for other routes.
pub(crate) fn direct_hop(route: &Route, network: IpNetwork, device: Option<IfIndex>) -> Option<NextHop> {
    let hop = NextHop { gateway: route.gateway?, link: route.link?.get() };
    let ours = route.link != device
        && family::covers(network, route.destination)
        && !network.contains(hop.gateway)
        && *route == direct_route(route.destination, hop);
    ours.then_some(hop)
}

/// The route that keeps packets for unassigned pod addresses from leaving by the default route.
pub(crate) fn unreachable_route(destination: ipnetwork::IpNetwork) -> Route {
    let mut route = Route::new(destination);
    route.kind = RouteKind::Unreachable;
    route.metric = Some(UNREACHABLE_METRIC);
    route.protocol = UNREACHABLE_PROTOCOL;
    route
}

pub(crate) fn is_our_unreachable(route: &Route) -> bool {
    route.kind == RouteKind::Unreachable && route.protocol == UNREACHABLE_PROTOCOL
}

pub(crate) fn netlink_family(family: Family) -> weft_netlink::Family {
    match family {
        Family::V4 => weft_netlink::Family::V4,
        Family::V6 => weft_netlink::Family::V6,
    }
}
