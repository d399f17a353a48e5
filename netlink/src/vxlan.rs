//! VXLAN tunnel endpoints (RFC 7348).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    Error, IfIndex, Link, LinkKind, Mac, Netlink,
    error::{During, Result},
};

/// What makes a VXLAN device this one; none of it can change while it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VxlanAttributes {
    /// VXLAN network identifier, 0..2^24.
    pub vni: u32,
    /// Source address of the outer packets.
    pub local: Option<IpAddr>,
    /// Interface the outer packets leave by.
    pub underlay: Option<IfIndex>,
    /// UDP destination port, host byte order.
    pub port: u16,
    /// Whether it learns FDB entries from the traffic it sees.
    pub learning: bool,
    /// Whether it carries the Group Policy extension.
    pub gbp: bool,
}

/// A VXLAN device to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Name, up to 15 bytes.
    pub name: String,
    /// VXLAN network identifier, 0..2^24.
    pub vni: u32,
    /// Source address of the outer packets.
    pub local: Option<IpAddr>,
    /// Interface the outer packets leave by.
    pub underlay: Option<IfIndex>,
    /// UDP destination port, host byte order (flannel uses 8472, IANA gave 4789).
    pub port: u16,
    /// MTU in bytes; `None` leaves it to the kernel, which takes the underlay's less the outer headers.
    pub mtu: Option<u32>,
    /// Ethernet address; `None` lets the kernel draw one.
    pub mac: Option<Mac>,
    /// Whether to learn FDB entries from traffic.
    pub learning: bool,
    /// Whether to carry the Group Policy extension.
    pub gbp: bool,
}

impl VxlanSpec {
    /// The part a device that exists can be compared by.
    pub fn attributes(&self) -> VxlanAttributes {
        VxlanAttributes {
            vni: self.vni,
            local: self.local,
            underlay: self.underlay,
            port: self.port,
            learning: self.learning,
            gbp: self.gbp,
        }
    }
}

impl Netlink {
    /// Makes a VXLAN device, down, and returns it. One of that name with the same attributes is returned as it is,
    /// with its MTU and MAC.
    ///
    /// # Errors
    /// [`is_exists`](Error::is_exists): something else has that name, or another device that VNI and port.
    pub fn create_vxlan(&self, spec: &VxlanSpec) -> Result<Link> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let made =
            self.request(RouteNetlinkMessage::NewLink(message(spec)), flags).during("create VXLAN device", &spec.name);
        let found = self.link_by_name(&spec.name)?;
        match (made, found) {
            (Ok(_), Some(link)) => Ok(link),
            (Ok(_), None) => Err(Error::unreadable("create VXLAN device", &spec.name, "it vanished at once")),
            (Err(error), Some(link)) if error.is_exists() && link.kind == LinkKind::Vxlan(spec.attributes()) => {
                Ok(link)
            }
            (Err(error), _) => Err(error),
        }
    }
}

fn message(spec: &VxlanSpec) -> LinkMessage {
    let mut data = vec![InfoVxlan::Id(spec.vni), InfoVxlan::Port(spec.port), InfoVxlan::Learning(spec.learning)];
    data.extend(spec.local.map(|local| match local {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    }));
    data.extend(spec.underlay.map(|underlay| InfoVxlan::Link(underlay.get())));
    data.extend(spec.gbp.then_some(InfoVxlan::Gbp));
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(spec.name.clone()));
    message.attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(spec.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
        .attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]));
    message
}

impl VxlanAttributes {
    pub(crate) fn from_data(data: &[InfoVxlan]) -> Self {
        let mut attributes = Self::default();
        for part in data {
            match part {
                InfoVxlan::Id(vni) => attributes.vni = *vni,
                InfoVxlan::Local(address) => attributes.local = Some((*address).into()),
                InfoVxlan::Local6(address) => attributes.local = Some((*address).into()),
                InfoVxlan::Link(index) => attributes.underlay = IfIndex::new(*index),
                InfoVxlan::Port(port) => attributes.port = *port,
                InfoVxlan::Learning(learning) => attributes.learning = *learning,
                InfoVxlan::Gbp => attributes.gbp = true,
                _ => {}
            }
        }
        attributes
    }
}
