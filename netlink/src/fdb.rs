//! Forwarding entries of VXLAN devices: behind which VTEP an Ethernet address lives.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use crate::{
    IfIndex, Mac, Netlink,
    error::{During, Result, gone_is_success},
    types::address_from_bytes,
};

/// A forwarding entry of a VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: IfIndex,
    /// The inner destination; all zero stands for every address without an entry of its own.
    pub mac: Mac,
    /// The remote VTEP.
    pub dst: IpAddr,
}

impl Netlink {
    /// The entries of a VXLAN device that name a remote VTEP.
    ///
    /// # Errors
    /// The table cannot be read, or the device is gone.
    pub fn fdb(&self, link: IfIndex) -> Result<Vec<FdbEntry>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = link.get();
        let answers = self
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .during("list", format_args!("FDB of link #{link}"))?;
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => FdbEntry::from_message(&message),
            _ => None,
        });
        // Kernels without strict checking do not filter.
        Ok(all.filter(|entry| entry.link == link).collect())
    }

    /// Sets the VTEP of an Ethernet address; for the all-zero and for group addresses, which may have several, adds it.
    ///
    /// # Errors
    /// The device is gone or is no VXLAN device (EOPNOTSUPP), or the address has the wrong family.
    pub fn replace_fdb(&self, entry: &FdbEntry) -> Result<()> {
        // The kernel replaces unicast entries only, and appending one that is there changes nothing.
        let mode = if entry.mac.is_unicast() { NLM_F_REPLACE } else { NLM_F_APPEND };
        self.request(RouteNetlinkMessage::NewNeighbour(message(entry)), NLM_F_CREATE | mode)
            .map(drop)
            .during("replace FDB entry", format_args!("{} via {} on link #{}", entry.mac, entry.dst, entry.link))
    }

    /// Removes an entry; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_fdb(&self, entry: &FdbEntry) -> Result<()> {
        let result = self.request(RouteNetlinkMessage::DelNeighbour(message(entry)), 0);
        gone_is_success(
            result
                .map(drop)
                .during("delete FDB entry", format_args!("{} via {} on link #{}", entry.mac, entry.dst, entry.link)),
        )
    }
}

fn message(entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = entry.link.get();
    message.header.state = NeighbourState::Permanent;
    // The device's own table, not that of a bridge it is a port of.
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(entry.dst.into()));
    message
}

impl FdbEntry {
    /// `None` for IP neighbours, and for entries without a VTEP.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.family != AddressFamily::Bridge {
            return None;
        }
        let (mut dst, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => dst = address_from_bytes(bytes),
                NeighbourAttribute::LinkLayerAddress(octets) => mac = Mac::from_slice(octets),
                _ => {}
            }
        }
        Some(Self { link: IfIndex::new(message.header.ifindex)?, mac: mac?, dst: dst? })
    }
}
