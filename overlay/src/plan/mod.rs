//! The difference between what should be in the kernel and what is, as an ordered list of operations.
//!
//! Pure: no clock, no I/O, no netlink. The same two states always give the same plan, and a plan that was carried out
//! completely is followed by an empty one.
//!
//! Order, in each family: the device and its address, because all else needs them; then every peer's neighbour, FDB entry and
//! route (flannel.md 4.2: a route is only there once its frames can be sent); then what is stale, routes first.

mod action;
mod desired;
mod state;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use ipnetwork::IpNetwork;

pub use self::action::ObjectKind;
pub(crate) use self::{
    action::{Action, Step, Subject},
    desired::{Local, PeerProblem, Reach, desired},
    state::{
        Desired, DesiredFamily, Device, NextHop, Observed, ObservedDevice, ObservedFamily, Peer, Retired, VxlanIdentity,
    },
};
pub(crate) use crate::netconf::VXLAN;
use crate::{family::Family, lease::Mac};

/// What must be done so that `observed` becomes `desired`.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let nothing = ObservedFamily::default();
    let mut plan = Vec::new();
    for (family, desired) in &desired.families {
        let observed = observed.families.get(family).unwrap_or(&nothing);
        plan_family(&mut Steps { family: *family, steps: &mut plan }, desired, observed);
    }
    for (family, observed) in observed.families.iter().filter(|(family, _)| desired.retired.contains_key(family)) {
        remove_retired(&mut Steps { family: *family, steps: &mut plan }, observed);
    }
    plan
}

/// A family that is switched off: of it, only what is to go was observed. Routes first, as everywhere.
fn remove_retired(steps: &mut Steps<'_>, observed: &ObservedFamily) {
    for (destination, hop) in &observed.direct {
        steps.push(Subject::Stale, Action::RemoveDirect(*destination, *hop));
    }
    for network in &observed.unreachable {
        steps.push(Subject::Stale, Action::RemoveUnreachable(*network));
    }
    for name in &observed.old_devices {
        steps.push(Subject::Stale, Action::RemoveOldDevice(name.clone()));
    }
}

struct Steps<'a> {
    family: Family,
    steps: &'a mut Vec<Step>,
}

impl Steps<'_> {
    fn push(&mut self, subject: Subject, action: Action) {
        self.steps.push(Step { family: self.family, subject, action });
    }
}

fn plan_family(steps: &mut Steps<'_>, desired: &DesiredFamily, observed: &ObservedFamily) {
    let observed = plan_device(steps, desired, observed);
    if !observed.unreachable.contains(&desired.subnet) {
        steps.push(Subject::Node, Action::AddUnreachable(desired.subnet));
    }
    for (subnet, peer) in &desired.peers {
        plan_peer(steps, *subnet, peer, &observed);
    }
    remove_stale(steps, desired, &observed);
}

/// Returns what is left of `observed` once the device is as it should be: all of it, but for the first pass and some repairs.
fn plan_device<'a>(
    steps: &mut Steps<'_>,
    desired: &DesiredFamily,
    observed: &'a ObservedFamily,
) -> Cow<'a, ObservedFamily> {
    let before = steps.steps.len();
    let mut observed = Cow::Borrowed(observed);
    let Some(want) = &desired.device else {
        return observed;
    };
    match &observed.device {
        Some(have) if have.identity.as_ref() == Some(&want.identity) => {
            if have.mac != Some(want.mac) {
                steps.push(Subject::Node, Action::SetMac(want.mac));
            }
            if have.mtu != want.mtu {
                steps.push(Subject::Node, Action::SetMtu(want.mtu));
            }
            if !have.up {
                steps.push(Subject::Node, Action::SetUp);
            }
        }
        other => {
            if other.is_some() {
                steps.push(Subject::Node, Action::DeleteDevice);
            }
            steps.push(Subject::Node, Action::CreateDevice(want.clone()));
            steps.push(Subject::Node, Action::SetUp);
        }
    }
    for step in &steps.steps[before..] {
        observed.to_mut().record(&step.action);
    }
    if let Some(address) = desired.vtep_address().filter(|address| !observed.addresses.contains(address)) {
        steps.push(Subject::Node, Action::AddAddress(address));
    }
    observed
}

fn plan_peer(steps: &mut Steps<'_>, subnet: IpNetwork, peer: &Peer, observed: &ObservedFamily) {
    let subject = Subject::Peer(subnet);
    let address = subnet.network();
    let (mac, public_address) = match *peer {
        Peer::Tunnel { mac, public_address } => (mac, public_address),
        Peer::Direct(hop) => {
            if observed.direct.get(&subnet) != Some(&hop) {
                steps.push(subject, Action::ReplaceDirect(subnet, hop));
            }
            return;
        }
    };
    if observed.neighbours.get(&address) != Some(&mac) {
        steps.push(subject, Action::ReplaceNeighbour { address, mac });
    }
    if !observed.fdb.contains(&(mac, public_address)) {
        steps.push(subject, Action::ReplaceFdb { mac, public_address });
    }
    if !observed.routes.contains(&subnet) {
        steps.push(subject, Action::ReplaceRoute(subnet));
    }
}

fn remove_stale(steps: &mut Steps<'_>, desired: &DesiredFamily, observed: &ObservedFamily) {
    let is_undecided = |address| desired.undecided.iter().any(|network| network.contains(address));
    // A neighbour that stays keeps its forwarding entry too.
    let undecided_macs: BTreeSet<Mac> =
        observed.neighbours.iter().filter(|(address, _)| is_undecided(**address)).map(|(_, mac)| *mac).collect();
    let desired_fdb: BTreeMap<Mac, _> = desired.peers.values().filter_map(Peer::tunnel).collect();

    for destination in &observed.routes {
        if !desired.peers.contains_key(destination) && !is_undecided(destination.network()) {
            steps.push(Subject::Stale, Action::RemoveRoute(*destination));
        }
    }
    for (destination, hop) in observed.direct.iter().filter(|_| desired.routes_directly) {
        if !desired.peers.contains_key(destination) && !is_undecided(destination.network()) {
            steps.push(Subject::Stale, Action::RemoveDirect(*destination, *hop));
        }
    }
    for (mac, public_address) in &observed.fdb {
        let stays = match desired_fdb.get(mac) {
            Some(wanted) => wanted == public_address,
            None => undecided_macs.contains(mac),
        };
        if !stays {
            let (mac, public_address) = (*mac, *public_address);
            steps.push(Subject::Stale, Action::RemoveFdb { mac, public_address });
        }
    }
    let tunnels = desired.peers.iter().filter(|(_, peer)| peer.tunnel().is_some());
    let peers: BTreeSet<_> = tunnels.map(|(subnet, _)| subnet.network()).collect();
    for address in observed.neighbours.keys() {
        if !peers.contains(address) && !is_undecided(*address) {
            steps.push(Subject::Stale, Action::RemoveNeighbour { address: *address });
        }
    }
    let vtep_address = desired.vtep_address();
    for address in &observed.addresses {
        if Some(*address) != vtep_address {
            steps.push(Subject::Stale, Action::RemoveAddress(*address));
        }
    }
    for network in &observed.unreachable {
        if *network != desired.subnet {
            steps.push(Subject::Stale, Action::RemoveUnreachable(*network));
        }
    }
    // Last: until all peers had new routes, it carried their traffic.
    for name in &observed.old_devices {
        steps.push(Subject::Stale, Action::RemoveOldDevice(name.clone()));
    }
}
