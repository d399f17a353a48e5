//! Which kernel events say that somebody else changed our objects.
//!
//! The kernel also reports what this agent does. Such an echo agrees with what is known and is ignored, so that a change costs
//! no second look at the whole state.

use std::collections::BTreeMap;

use weft_netlink::{Address, Event, FdbEntry, IfIndex, Link, Neighbour, Route, RouteKind, TABLE_MAIN};

use crate::{
    family::{self, Family},
    interface::Underlay,
    observe::{self, Devices},
    plan::{Desired, DesiredFamily, Observed, ObservedFamily, Reach},
};

/// What the agent believes is so.
pub(crate) struct Known<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    pub(crate) devices: &'a Devices,
    pub(crate) underlay: &'a BTreeMap<Family, Underlay>,
    pub(crate) reach: &'a Reach,
    /// The underlay is gone: whatever comes may replace it.
    pub(crate) adrift: bool,
}

impl Known<'_> {
    /// Whether `event` contradicts what is known, so that it must be observed again.
    pub(crate) fn contradicts(&self, event: &Event) -> bool {
        match event {
            Event::Overrun => true,
            // Not part of what is observed; the caller looks at parameters.
            Event::ParameterChanged => false,
            Event::AddressChanged(_) | Event::RouteChanged(_) | Event::LinkChanged(_) if self.adrift => true,
            Event::LinkChanged(link) => self.link_changed(link),
            Event::LinkRemoved(link) => self.family_of(link.index).is_some() || self.is_underlay(link.index),
            Event::AddressChanged(address) => self.address(address, true),
            Event::AddressRemoved(address) => self.address(address, false),
            Event::RouteChanged(route) => self.route(route, true),
            Event::RouteRemoved(route) => self.route(route, false),
            Event::NeighbourChanged(neighbour) => self.neighbour(neighbour, true),
            Event::NeighbourRemoved(neighbour) => self.neighbour(neighbour, false),
            Event::FdbChanged(entry) => self.fdb(entry, true),
            Event::FdbRemoved(entry) => self.fdb(entry, false),
        }
    }

    fn family_of(&self, link: IfIndex) -> Option<Family> {
        self.devices.iter().find(|(_, device)| **device == link).map(|(family, _)| *family)
    }

    fn state_of(&self, link: IfIndex) -> Option<&ObservedFamily> {
        self.observed.families.get(&self.family_of(link)?)
    }

    fn routes_directly(&self) -> bool {
        self.desired.families.values().any(|state| state.routes_directly)
    }

    fn is_underlay(&self, link: IfIndex) -> bool {
        self.underlay.values().any(|underlay| underlay.link == link)
    }

    fn link_changed(&self, link: &Link) -> bool {
        let is_ours = |state: &DesiredFamily| state.device.as_ref().is_some_and(|device| device.name == link.name);
        let ours = self.desired.families.iter().find(|(_, state)| is_ours(state));
        if let Some((family, _)) = ours {
            let known = self.observed.families.get(family).and_then(|state| state.device.as_ref());
            return self.devices.get(family) != Some(&link.index) || known != Some(&observe::device(link));
        }
        // Renamed, or the interface below got another MTU.
        self.family_of(link.index).is_some()
            // Routes through an interface go silently when it goes down.
            || (self.is_underlay(link.index) && self.routes_directly())
            || self.underlay.values().any(|underlay| {
                (underlay.link == link.index && underlay.mtu != link.mtu)
                    || (underlay.name == link.name && underlay.link != link.index)
            })
    }

    fn address(&self, address: &Address, present: bool) -> bool {
        if let Some(family) = self.family_of(address.link) {
            let inside =
                self.desired.families.get(&family).is_some_and(|state| family::covers(state.network, address.address));
            let known =
                self.observed.families.get(&family).is_some_and(|state| state.addresses.contains(&address.address));
            return inside && known != present;
        }
        // The address in use is gone, or another came that may take its place.
        let ip = address.address.ip();
        self.underlay
            .get(&Family::of(ip))
            .is_some_and(|underlay| underlay.link == address.link && (underlay.address == ip) != present)
    }

    fn route(&self, route: &Route, present: bool) -> bool {
        if route.table != TABLE_MAIN {
            return false;
        }
        let family = Family::of(route.destination.ip());
        let Some(state) = self.observed.families.get(&family) else {
            return false;
        };
        if observe::is_our_unreachable(route) {
            return state.unreachable.contains(&route.destination) != present;
        }
        let device = self.devices.get(&family);
        if device.is_some_and(|device| observe::is_peer_route(route, *device)) {
            return state.routes.contains(&route.destination) != present;
        }
        let Some(desired) = self.desired.families.get(&family).filter(|state| state.routes_directly) else {
            return self.replaces_ours(state, route, present);
        };
        if let Some(hop) = observe::direct_hop(route, desired.network, device.copied()) {
            return (state.direct.get(&route.destination) == Some(&hop)) != present;
        }
        // Another way to a peer: it may be directly connected now, or no longer.
        self.reach_may_change(desired, route) || self.replaces_ours(state, route, present)
    }

    fn reach_may_change(&self, desired: &DesiredFamily, route: &Route) -> bool {
        // Routes of pods and of pod subnets are no way to a node.
        !family::covers(desired.network, route.destination)
            && self.reach.keys().any(|address| route.destination.contains(*address))
    }

    fn replaces_ours(&self, state: &ObservedFamily, route: &Route, present: bool) -> bool {
        // Somebody replaced one of ours: the kernel reports the new one only.
        present
            && route.metric.is_none()
            && route.kind != RouteKind::Local
            && (state.routes.contains(&route.destination) || state.direct.contains_key(&route.destination))
    }

    fn neighbour(&self, neighbour: &Neighbour, present: bool) -> bool {
        let Some(state) = self.state_of(neighbour.link) else {
            return false;
        };
        if self.family_of(neighbour.link) != Some(Family::of(neighbour.address)) {
            return false;
        }
        let now = observe::permanent_mac(neighbour).filter(|_| present);
        state.neighbours.get(&neighbour.address).copied() != now
    }

    fn fdb(&self, entry: &FdbEntry, present: bool) -> bool {
        self.state_of(entry.link).is_some_and(|state| state.fdb.contains(&(entry.mac, entry.dst)) != present)
    }
}
