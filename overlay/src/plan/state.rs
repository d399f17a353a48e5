//! What should be in the kernel, and what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::action::{Action, Step};
use crate::{
    family::{self, Family},
    lease::Mac,
};

/// What should be in the kernel, for every enabled family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) families: BTreeMap<Family, DesiredFamily>,
    /// Families that are switched off: what an older configuration left of them goes.
    pub(crate) retired: BTreeMap<Family, Retired>,
}

/// How what is left of a family that was switched off is recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    /// Name of the device that the configuration would have for it.
    pub(crate) device: Option<String>,
    /// Its pod network while it was on, if `subnet.env` still told.
    pub(crate) network: Option<IpNetwork>,
}

/// The overlay of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DesiredFamily {
    /// `None` with `host-gw`.
    pub(crate) device: Option<Device>,
    /// Of pods, in bytes.
    pub(crate) pod_mtu: u32,
    /// Whether plain routes to peers in the pod network are ours.
    pub(crate) routes_directly: bool,
    /// The pod network of the whole cluster.
    pub(crate) network: IpNetwork,
    /// This node's part of it.
    pub(crate) subnet: IpNetwork,
    /// Every other node, by its subnet. MACs are unique.
    pub(crate) peers: BTreeMap<IpNetwork, Peer>,
    /// Subnets of leases that cannot be read, or the whole network if leases are missing: what the kernel has for peers in
    /// these stays.
    pub(crate) undecided: BTreeSet<IpNetwork>,
}

impl DesiredFamily {
    /// The VTEP's own address: the network address of the subnet, alone. `None` without a VTEP.
    pub(crate) fn vtep_address(&self) -> Option<IpNetwork> {
        self.device.as_ref().map(|_| family::host(self.subnet.network()))
    }
}

/// The VXLAN device of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) identity: VxlanIdentity,
    pub(crate) mac: Mac,
    /// In bytes.
    pub(crate) mtu: u32,
}

/// What cannot be changed on a VXLAN device that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VxlanIdentity {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: Option<IpAddr>,
    /// Interface index.
    pub(crate) underlay: Option<u32>,
    pub(crate) learning: bool,
    pub(crate) gbp: bool,
}

/// Another node, seen from one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Through the VXLAN device.
    Tunnel {
        /// MAC address of its VXLAN device.
        mac: Mac,
        /// Where its outer packets go.
        public_address: IpAddr,
    },
    /// By a plain route.
    Direct(NextHop),
}

impl Peer {
    pub(crate) fn public_address(&self) -> IpAddr {
        match self {
            Self::Tunnel { public_address, .. } => *public_address,
            Self::Direct(hop) => hop.gateway,
        }
    }

    /// MAC and outer destination, if it is behind the tunnel.
    pub(crate) fn tunnel(&self) -> Option<(Mac, IpAddr)> {
        match self {
            Self::Tunnel { mac, public_address } => Some((*mac, *public_address)),
            Self::Direct(_) => None,
        }
    }
}

/// Where a plain route leads: a node on a directly connected network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NextHop {
    pub(crate) gateway: IpAddr,
    /// Interface index.
    pub(crate) link: u32,
}

/// What is in the kernel, for every enabled family. Holds only what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) families: BTreeMap<Family, ObservedFamily>,
}

/// Our part of one family's kernel state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObservedFamily {
    /// The device with our name.
    pub(crate) device: Option<ObservedDevice>,
    /// Addresses of the device inside the pod network.
    pub(crate) addresses: BTreeSet<IpNetwork>,
    /// Destinations of the routes of the device that have flannel's form: `D via D's network address dev ours onlink`.
    pub(crate) routes: BTreeSet<IpNetwork>,
    /// Plain routes inside the pod network through a gateway outside it.
    pub(crate) direct: BTreeMap<IpNetwork, NextHop>,
    /// VXLAN devices of another VNI or family name with an address inside the pod network: ours, from an older configuration.
    pub(crate) old_devices: BTreeSet<String>,
    /// Permanent neighbours on the device.
    pub(crate) neighbours: BTreeMap<IpAddr, Mac>,
    /// Forwarding entries of the device.
    pub(crate) fdb: BTreeSet<(Mac, IpAddr)>,
    /// Destinations of our unreachable routes, on no device.
    pub(crate) unreachable: BTreeSet<IpNetwork>,
}

/// A device with our name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedDevice {
    /// `None`: it is no VXLAN device.
    pub(crate) identity: Option<VxlanIdentity>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
}

impl Observed {
    /// Notes that `step` was carried out: what a fresh observation would see.
    pub(crate) fn record(&mut self, step: &Step) {
        self.families.entry(step.family).or_default().record(&step.action);
    }
}

impl ObservedFamily {
    pub(crate) fn record(&mut self, action: &Action) {
        match action {
            Action::CreateDevice(device) => {
                self.lose_device();
                self.device = Some(ObservedDevice {
                    identity: Some(device.identity.clone()),
                    mac: Some(device.mac),
                    mtu: device.mtu,
                    up: false,
                });
            }
            Action::DeleteDevice => self.lose_device(),
            Action::SetMac(mac) => {
                if let Some(device) = &mut self.device {
                    device.mac = Some(*mac);
                }
                // The kernel forgets all neighbours of a device whose address changes (neigh_changeaddr).
                self.neighbours.clear();
            }
            Action::SetMtu(mtu) => {
                if let Some(device) = &mut self.device {
                    device.mtu = *mtu;
                }
            }
            Action::SetUp => {
                if let Some(device) = &mut self.device {
                    device.up = true;
                }
            }
            Action::AddAddress(address) => _ = self.addresses.insert(*address),
            Action::RemoveAddress(address) => _ = self.addresses.remove(address),
            Action::AddUnreachable(network) => _ = self.unreachable.insert(*network),
            Action::RemoveUnreachable(network) => _ = self.unreachable.remove(network),
            Action::ReplaceNeighbour { address, mac } => _ = self.neighbours.insert(*address, *mac),
            Action::RemoveNeighbour { address } => _ = self.neighbours.remove(address),
            Action::ReplaceFdb { mac, public_address } => self.replace_fdb(*mac, *public_address),
            Action::RemoveFdb { mac, public_address } => {
                self.fdb.remove(&(*mac, *public_address));
            }
            // A destination has one route: tunnel and direct ones replace each other.
            Action::ReplaceRoute(destination) => {
                self.direct.remove(destination);
                self.routes.insert(*destination);
            }
            Action::RemoveRoute(destination) => _ = self.routes.remove(destination),
            Action::ReplaceDirect(destination, hop) => {
                self.routes.remove(destination);
                self.direct.insert(*destination, *hop);
            }
            Action::RemoveDirect(destination, _) => _ = self.direct.remove(destination),
            Action::RemoveOldDevice(name) => _ = self.old_devices.remove(name),
        }
    }

    /// The kernel overwrites one entry of the MAC and leaves others that somebody appended (vxlan_fdb_replace).
    fn replace_fdb(&mut self, mac: Mac, public_address: IpAddr) {
        if self.fdb.contains(&(mac, public_address)) {
            return;
        }
        let old = self.fdb.iter().find(|(other, _)| *other == mac).copied();
        if let Some(old) = old {
            self.fdb.remove(&old);
        }
        self.fdb.insert((mac, public_address));
    }

    /// All that hangs on the device goes with it.
    fn lose_device(&mut self) {
        *self = Self {
            unreachable: std::mem::take(&mut self.unreachable),
            direct: std::mem::take(&mut self.direct),
            old_devices: std::mem::take(&mut self.old_devices),
            ..Self::default()
        };
    }
}
