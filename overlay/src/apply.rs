//! Carries out a plan. Decides nothing but what a failure stops.

use std::collections::BTreeSet;

use weft_netlink::{AddressOptions, FdbEntry, IfIndex, Neighbour, Netlink, VxlanSpec};

use crate::{
    family::Family,
    lease::Mac,
    observe::{Devices, direct_route, peer_route, unreachable_route},
    plan::{Action, Desired, Device, Observed, Step, Subject},
};

/// An operation that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) family: Family,
    pub(crate) subject: Subject,
    pub(crate) error: ApplyError,
}

/// Why an operation failed. The caller observes again before it plans again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{0}")]
    Netlink(#[from] weft_netlink::Error),
    /// Somebody deleted the device in this very moment.
    #[error("{action}: the device {device} does not exist")]
    NoDevice { action: String, device: String },
}

/// Carries out `steps` in order and notes in `observed` and `devices` what was done.
///
/// A failure for this node stops its family, one for a peer stops that peer, and one for something stale stops nothing.
pub(crate) fn apply(
    netlink: &Netlink,
    desired: &Desired,
    steps: &[Step],
    observed: &mut Observed,
    devices: &mut Devices,
) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    let mut stopped: BTreeSet<(Family, Subject)> = BTreeSet::new();
    for step in steps {
        let (family, subject) = (step.family, step.subject);
        let stops = [(family, Subject::Node), (family, subject)];
        if stops.iter().any(|stop| stop.1 != Subject::Stale && stopped.contains(stop)) {
            continue;
        }
        // Nothing of a family that is switched off is on its device.
        let device = desired.families.get(&family).and_then(|wanted| wanted.device.as_ref());
        let device = device.map_or("", |device| &device.name);
        match carry_out(netlink, device, family, &step.action, devices) {
            Ok(()) => observed.record(step),
            Err(error) => {
                stopped.insert((family, subject));
                failures.push(Failure { family, subject, error });
            }
        }
    }
    failures
}

fn carry_out(
    netlink: &Netlink,
    device: &str,
    family: Family,
    action: &Action,
    devices: &mut Devices,
) -> Result<(), ApplyError> {
    match action {
        Action::CreateDevice(device) => {
            let link = netlink.create_vxlan(&spec(device))?;
            devices.insert(family, link.index);
            return Ok(());
        }
        // On no device.
        Action::AddUnreachable(network) => {
            return Ok(netlink.replace_route(&unreachable_route(*network))?);
        }
        Action::RemoveUnreachable(network) => {
            return Ok(netlink.delete_route(&unreachable_route(*network))?);
        }
        Action::ReplaceDirect(network, hop) => return Ok(netlink.replace_route(&direct_route(*network, *hop))?),
        Action::RemoveDirect(network, hop) => return Ok(netlink.delete_route(&direct_route(*network, *hop))?),
        Action::RemoveOldDevice(name) => {
            if let Some(link) = netlink.link_by_name(name)? {
                netlink.delete_link(link.index)?;
            }
            return Ok(());
        }
        _ => {}
    }
    let link = *devices
        .get(&family)
        .ok_or_else(|| ApplyError::NoDevice { action: action.to_string(), device: device.to_owned() })?;
    if *action == Action::DeleteDevice {
        netlink.delete_link(link)?;
        devices.remove(&family);
        return Ok(());
    }
    Ok(on_device(netlink, link, action)?)
}

fn on_device(netlink: &Netlink, link: IfIndex, action: &Action) -> weft_netlink::Result<()> {
    match action {
        Action::SetMac(mac) => netlink.set_mac(link, *mac),
        Action::SetMtu(mtu) => netlink.set_mtu(link, *mtu),
        Action::SetUp => netlink.set_up(link),
        Action::AddAddress(address) => {
            // Its owner is known from the lease; until detection ended nothing could be sent from it.
            let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
            netlink.replace_address(link, *address, options)
        }
        Action::RemoveAddress(address) => netlink.delete_address(link, *address),
        Action::ReplaceNeighbour { address, mac } => {
            netlink.replace_neighbour(&Neighbour::permanent(link, *address, *mac))
        }
        Action::RemoveNeighbour { address } => {
            // The MAC plays no part in a deletion.
            netlink.delete_neighbour(&Neighbour::permanent(link, *address, Mac([0; 6])))
        }
        Action::ReplaceFdb { mac, public_address } => {
            netlink.replace_fdb(&FdbEntry { link, mac: *mac, dst: *public_address })
        }
        Action::RemoveFdb { mac, public_address } => {
            netlink.delete_fdb(&FdbEntry { link, mac: *mac, dst: *public_address })
        }
        Action::ReplaceRoute(destination) => netlink.replace_route(&peer_route(*destination, link)),
        Action::RemoveRoute(destination) => netlink.delete_route(&peer_route(*destination, link)),
        Action::CreateDevice(_)
        | Action::DeleteDevice
        | Action::AddUnreachable(_)
        | Action::RemoveUnreachable(_)
        | Action::ReplaceDirect(..)
        | Action::RemoveDirect(..)
        | Action::RemoveOldDevice(_) => Ok(()),
    }
}

fn spec(device: &Device) -> VxlanSpec {
    VxlanSpec {
        name: device.name.clone(),
        vni: device.identity.vni,
        local: device.identity.local,
        underlay: device.identity.underlay.and_then(IfIndex::new),
        port: device.identity.port,
        mtu: Some(device.mtu),
        mac: Some(device.mac),
        learning: device.identity.learning,
        gbp: device.identity.gbp,
    }
}
