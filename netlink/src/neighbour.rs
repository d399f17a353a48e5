//! Neighbour entries: which Ethernet address an IP address on a link has (ARP, NDP).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};

use crate::{
    Family, IfIndex, Mac, Netlink,
    error::{During, Result, gone_is_success},
};

/// A neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The link.
    pub link: IfIndex,
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while it is unknown.
    pub mac: Option<Mac>,
    /// What the kernel makes of it.
    pub state: NeighbourState,
}

impl Neighbour {
    /// An entry that stays until it is deleted.
    pub const fn permanent(link: IfIndex, address: IpAddr, mac: Mac) -> Self {
        Self { link, address, mac: Some(mac), state: NeighbourState::Permanent }
    }
}

/// State of a neighbour entry (`NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// Valid until deleted.
    Permanent,
    /// Confirmed a moment ago.
    Reachable,
    /// To be confirmed at the next use; also Delay and Probe, in which that is going on.
    Stale,
    /// Being asked for.
    Incomplete,
    /// Asked for in vain.
    Failed,
    /// Needs no resolution, as multicast addresses do not.
    NoArp,
    /// Another state, by number.
    Other(u16),
}

impl Netlink {
    /// The neighbours on a link, of both families.
    ///
    /// # Errors
    /// The table cannot be read. A link that is gone has no neighbours.
    pub fn neighbours(&self, link: IfIndex) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(link.get()));
        let answers = self
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .during("list", format_args!("neighbours on link #{link}"))?;
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(&message),
            _ => None,
        });
        // Kernels without strict checking do not filter.
        Ok(all.filter(|neighbour| neighbour.link == link).collect())
    }

    /// Sets the entry for an address on a link.
    ///
    /// # Errors
    /// The link is gone.
    pub fn replace_neighbour(&self, neighbour: &Neighbour) -> Result<()> {
        let mut message = message(neighbour);
        message.header.state = u16::from(neighbour.state).into();
        message.attributes.extend(neighbour.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .during("replace neighbour", format_args!("{} on link #{}", neighbour.address, neighbour.link))
    }

    /// Removes the entry for an address on a link, whatever it says; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_neighbour(&self, neighbour: &Neighbour) -> Result<()> {
        let result = self.request(RouteNetlinkMessage::DelNeighbour(message(neighbour)), 0);
        gone_is_success(
            result
                .map(drop)
                .during("delete neighbour", format_args!("{} on link #{}", neighbour.address, neighbour.link)),
        )
    }
}

fn message(neighbour: &Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(neighbour.address).number();
    message.header.ifindex = neighbour.link.get();
    message.attributes.push(NeighbourAttribute::Destination(neighbour.address.into()));
    message
}

impl Neighbour {
    /// `None` for what is no IP neighbour, such as FDB entries.
    pub(crate) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some((*v4).into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some((*v6).into()),
                NeighbourAttribute::LinkLayerAddress(octets) => mac = Mac::from_slice(octets),
                _ => {}
            }
        }
        Some(Self {
            link: IfIndex::new(message.header.ifindex)?,
            address: address?,
            mac,
            state: u16::from(message.header.state).into(),
        })
    }
}

impl From<u16> for NeighbourState {
    fn from(number: u16) -> Self {
        match number {
            0x80 => Self::Permanent,
            0x02 => Self::Reachable,
            0x04 | 0x08 | 0x10 => Self::Stale,
            0x01 => Self::Incomplete,
            0x20 => Self::Failed,
            0x40 => Self::NoArp,
            other => Self::Other(other),
        }
    }
}

impl From<NeighbourState> for u16 {
    fn from(state: NeighbourState) -> Self {
        match state {
            NeighbourState::Permanent => 0x80,
            NeighbourState::Reachable => 0x02,
            NeighbourState::Stale => 0x04,
            NeighbourState::Incomplete => 0x01,
            NeighbourState::Failed => 0x20,
            NeighbourState::NoArp => 0x40,
            NeighbourState::Other(number) => number,
        }
    }
}
