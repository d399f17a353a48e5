//! From leases to desired state: which peers can be served, in which family, and why not.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::state::{Desired, DesiredFamily, Device, NextHop, Peer, Retired, VxlanIdentity};
use crate::{
    family::{self, Family},
    interface::Underlay,
    lease::{Lease, LeaseSnapshot, Mac, Subnets, VtepData},
    netconf::{Backend, NetConf, PodNetwork, Vxlan},
};

/// The kernel's VXLAN port, which flannel's `Port: 0` means.
const KERNEL_VXLAN_PORT: u16 = 8472;

/// Index of the interface by which a public address on a directly connected network is reached; `None`: it is on none.
pub(crate) type Reach = BTreeMap<IpAddr, Option<u32>>;

/// What this node contributes to its desired state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    pub(crate) net_conf: &'a NetConf,
    pub(crate) lease: &'a Lease,
    pub(crate) underlay: &'a BTreeMap<Family, Underlay>,
    pub(crate) reach: &'a Reach,
    /// The pod networks this node was part of before it was started with this configuration.
    pub(crate) former: &'a BTreeMap<Family, IpNetwork>,
}

/// Why a peer is not served in a family, or in any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerProblem {
    pub(crate) subnets: Subnets,
    pub(crate) reason: String,
}

/// The desired state of this node among `snapshot`'s leases, and the peers that cannot be part of it.
///
/// A peer with one family is served for that one (flannel-defects.md B.3).
pub(crate) fn desired(local: Local<'_>, snapshot: &LeaseSnapshot) -> (Desired, Vec<PeerProblem>) {
    let mut peers: Vec<&Lease> = snapshot.leases.iter().filter(|lease| lease.subnets != local.lease.subnets).collect();
    // A node that turned dual-stack may have left its older lease behind: the fuller one counts.
    peers.sort_by_key(|lease| (Reverse(lease.subnets.iter().count()), lease.subnets));

    let mut problems = Vec::new();
    let mut families = BTreeMap::new();
    for family in local.net_conf.families() {
        let Some(mut desired) = without_peers(local, family) else {
            continue;
        };
        for rejected in &snapshot.rejected {
            desired.undecided.extend(rejected.subnets.and_then(|subnets| subnets.of(family)));
        }
        desired.undecided.extend(snapshot.incomplete.is_some().then_some(desired.network));
        let mut macs = BTreeMap::new();
        for lease in &peers {
            // A lease of another backend is reported once, below.
            if lease.attributes.backend_type != local.net_conf.backend.kind() {
                continue;
            }
            if let Err(reason) = add_peer(&mut desired, &mut macs, local, family, lease) {
                problems.push(PeerProblem { subnets: lease.subnets, reason });
            }
        }
        families.insert(family, desired);
    }
    problems.extend(foreign_backends(&peers, local.net_conf.backend.kind()));
    (Desired { families, retired: retired(local) }, problems)
}

/// Families the configuration does not have. One that only the lease or the underlay lacks is not switched off.
fn retired(local: Local<'_>) -> BTreeMap<Family, Retired> {
    let off = Family::ALL.into_iter().filter(|family| local.net_conf.network(*family).is_none());
    let retired = |family| Retired {
        device: local.net_conf.backend.vxlan().map(|vxlan| vxlan.device_name(family)),
        network: local.former.get(&family).copied(),
    };
    off.map(|family| (family, retired(family))).collect()
}

/// `None` if the lease or the underlay lacks the family, which then is not served.
fn without_peers(local: Local<'_>, family: Family) -> Option<DesiredFamily> {
    let PodNetwork { network, .. } = local.net_conf.network(family)?;
    let underlay = local.underlay.get(&family)?;
    let backend = &local.net_conf.backend;
    let device = match backend {
        Backend::Vxlan(vxlan) => Some(device(vxlan, family, underlay, local.lease.attributes.vtep(family)?.mac)),
        Backend::HostGw => None,
    };
    Some(DesiredFamily {
        device,
        pod_mtu: backend.pod_mtu(family, underlay.mtu),
        routes_directly: backend.routes_directly(),
        network,
        subnet: local.lease.subnets.of(family)?,
        peers: BTreeMap::new(),
        undecided: BTreeSet::new(),
    })
}

fn device(vxlan: &Vxlan, family: Family, underlay: &Underlay, mac: Mac) -> Device {
    Device {
        name: vxlan.device_name(family),
        identity: VxlanIdentity {
            vni: vxlan.vni,
            port: if vxlan.port == 0 { KERNEL_VXLAN_PORT } else { vxlan.port },
            local: Some(underlay.address),
            underlay: Some(underlay.link.get()),
            learning: false,
            gbp: vxlan.gbp,
        },
        mac,
        mtu: vxlan.device_mtu(family, underlay.mtu),
    }
}

/// Adds the peer if it has the family at all. `macs` tells which peer has which VTEP MAC.
fn add_peer(
    desired: &mut DesiredFamily,
    macs: &mut BTreeMap<Mac, IpNetwork>,
    local: Local<'_>,
    family: Family,
    lease: &Lease,
) -> Result<(), String> {
    let Some(subnet) = lease.subnets.of(family) else {
        return Ok(());
    };
    let (public_address, vtep) = (lease.attributes.public_address(family), lease.attributes.vtep(family));
    if desired.device.is_none() {
        let gateway = public_address.ok_or_else(|| format!("publishes no {family} address"))?;
        check_peer(desired, underlay_address(local, family), subnet, gateway)?;
        let link =
            local.reach.get(&gateway).copied().flatten().ok_or_else(|| {
                format!("{gateway} is not on a directly connected network, which backend host-gw needs")
            })?;
        desired.peers.insert(subnet, Peer::Direct(NextHop { gateway, link }));
        return Ok(());
    }
    let (Some(public_address), Some(vtep)) = (public_address, vtep) else {
        return Err(format!("publishes no {family} VTEP"));
    };
    check_peer(desired, underlay_address(local, family), subnet, public_address)?;
    check_vtep(desired, vtep)?;
    // Forwarding entries are keyed by MAC: two VTEPs with one MAC would overwrite each other for ever.
    if let Some(other) = macs.get(&vtep.mac)
        && desired.peers.get(other).is_some_and(|peer| peer.public_address() != public_address)
    {
        return Err(format!("publishes the same VTEP MAC {} as {other}", vtep.mac));
    }
    macs.insert(vtep.mac, subnet);
    let direct = local.reach.get(&public_address).copied().flatten().filter(|_| desired.routes_directly);
    let peer = match direct {
        Some(link) => Peer::Direct(NextHop { gateway: public_address, link }),
        None => Peer::Tunnel { mac: vtep.mac, public_address },
    };
    desired.peers.insert(subnet, peer);
    Ok(())
}

fn underlay_address(local: Local<'_>, family: Family) -> Option<IpAddr> {
    local.underlay.get(&family).map(|underlay| underlay.address)
}

/// Refuses what would break this node or another peer.
fn check_peer(
    desired: &DesiredFamily,
    own_address: Option<IpAddr>,
    subnet: IpNetwork,
    public_address: IpAddr,
) -> Result<(), String> {
    if !family::covers(desired.network, subnet) {
        return Err(format!("{subnet} is outside the pod network {}", desired.network));
    }
    if family::overlap(desired.subnet, subnet) {
        return Err(format!("{subnet} overlaps this node's {}", desired.subnet));
    }
    if Some(public_address) == own_address {
        return Err(format!("publishes this node's address {public_address}"));
    }
    match desired.peers.get(&subnet) {
        Some(other) if other.public_address() != public_address => {
            Err(format!("{subnet} is also leased by {}", other.public_address()))
        }
        _ => Ok(()),
    }
}

fn check_vtep(desired: &DesiredFamily, vtep: VtepData) -> Result<(), String> {
    let Some(device) = &desired.device else { return Ok(()) };
    if vtep.vni != device.identity.vni {
        return Err(format!("uses VNI {}, this node {}", vtep.vni, device.identity.vni));
    }
    if !vtep.mac.is_unicast() {
        return Err(format!("publishes {}, which is no unicast MAC", vtep.mac));
    }
    if vtep.mac == device.mac {
        return Err(format!("publishes this node's VTEP MAC {}", vtep.mac));
    }
    Ok(())
}

fn foreign_backends(peers: &[&Lease], own: &str) -> Vec<PeerProblem> {
    peers
        .iter()
        .filter(|lease| lease.attributes.backend_type != own)
        .map(|lease| PeerProblem {
            subnets: lease.subnets,
            reason: format!("uses backend {:?}, this node {own:?}", lease.attributes.backend_type),
        })
        .collect()
}

#[cfg(test)]
mod tests;
