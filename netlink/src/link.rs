//! Network interfaces of any kind.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
};
use nix::libc;

use crate::{
    IfIndex, Mac, Netlink, VxlanAttributes,
    error::{During, Failure, Result, gone_is_success},
};

/// A network interface, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in this namespace.
    pub index: IfIndex,
    /// Its name, up to 15 bytes.
    pub name: String,
    /// Its Ethernet address; `None` for interfaces with another kind of address, or none.
    pub mac: Option<Mac>,
    /// Largest packet it sends, in bytes, without the link-layer header.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Up and with a carrier (IFF_RUNNING).
    pub running: bool,
    /// The loopback interface (IFF_LOOPBACK).
    pub loopback: bool,
    /// The bridge, bond or VRF it is a port of.
    pub controller: Option<IfIndex>,
    /// Free text an administrator or a program gave it (IFLA_IFALIAS), up to 255 bytes.
    pub alias: Option<String>,
    /// What it is.
    pub kind: LinkKind,
}

/// Kinds of interface Weft knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// One end of a virtual cable.
    Veth {
        /// Index of the other end *in the other end's namespace*; `None` when that is not visible.
        peer: Option<IfIndex>,
    },
    /// A VXLAN tunnel endpoint.
    Vxlan(VxlanAttributes),
    /// A bridge.
    Bridge,
    /// Another kind, by the kernel's name; empty for physical interfaces and loopback.
    Other(String),
}

impl Netlink {
    /// The interface with that name or alternative name.
    ///
    /// # Errors
    /// The kernel refused or answered gibberish; that there is no such interface is `Ok(None)`.
    pub fn link_by_name(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message).during("look up link", name)
    }

    /// The interface with that index.
    ///
    /// # Errors
    /// As [`Netlink::link_by_name`].
    pub fn link_by_index(&self, index: IfIndex) -> Result<Option<Link>> {
        self.get_link(by_index(index)).during("look up link", format_args!("#{index}"))
    }

    fn get_link(&self, mut message: LinkMessage) -> std::result::Result<Option<Link>, Failure> {
        message.attributes.push(without_statistics());
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(Link::from_new)),
            Err(Failure::Kernel { errno: libc::ENODEV, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// The table cannot be read, or does not stand still.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_statistics());
        let answers = self.dump(RouteNetlinkMessage::GetLink(message)).during("list", "links")?;
        Ok(answers.into_iter().filter_map(Link::from_new).collect())
    }

    /// Deletes an interface (with its peer, if it is a veth); one that is gone is fine.
    ///
    /// # Errors
    /// The kernel refused: no privileges, or an interface that cannot be deleted.
    pub fn delete_link(&self, index: IfIndex) -> Result<()> {
        let result = self.request(RouteNetlinkMessage::DelLink(by_index(index)), 0);
        gone_is_success(result.map(drop).during("delete link", format_args!("#{index}")))
    }

    /// Sets an interface administratively up.
    ///
    /// # Errors
    /// It is gone ([`is_not_found`](crate::Error::is_not_found)) or cannot be opened.
    pub fn set_up(&self, index: IfIndex) -> Result<()> {
        let mut message = by_index(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change_link(message).during("set up link", format_args!("#{index}"))
    }

    /// Gives an interface a text to be known by, up to 255 bytes.
    ///
    /// # Errors
    /// It is gone, or the text is too long (EINVAL).
    pub fn set_alias(&self, index: IfIndex, alias: &str) -> Result<()> {
        let mut message = by_index(index);
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change_link(message).during("set alias", format_args!("{alias:?} of link #{index}"))
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// It is gone, or the value is outside the device's limits.
    pub fn set_mtu(&self, index: IfIndex, mtu: u32) -> Result<()> {
        let mut message = by_index(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change_link(message).during("set MTU", format_args!("{mtu} of link #{index}"))
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// It is gone, or the device does not take the address.
    pub fn set_mac(&self, index: IfIndex, mac: Mac) -> Result<()> {
        let mut message = by_index(index);
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        self.change_link(message).during("set MAC", format_args!("{mac} of link #{index}"))
    }

    fn change_link(&self, message: LinkMessage) -> std::result::Result<(), Failure> {
        self.request(RouteNetlinkMessage::SetLink(message), 0).map(drop)
    }
}

fn by_index(index: IfIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.get();
    message
}

/// Statistics make up two thirds of an answer, and cost a walk over all CPUs.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

impl Link {
    fn from_new(message: RouteNetlinkMessage) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewLink(message) => Self::from_message(message),
            _ => None,
        }
    }

    /// `None` for what is not about a whole interface: notices of bridges about their ports, of which the removal
    /// would read as the removal of the port's interface.
    pub(crate) fn from_notice(message: LinkMessage) -> Option<Self> {
        (message.header.interface_family == AddressFamily::Unspec).then(|| Self::from_message(message)).flatten()
    }

    fn from_message(message: LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut link = Self {
            index: IfIndex::new(message.header.index)?,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            controller: None,
            alias: None,
            kind: LinkKind::Other(String::new()),
        };
        let mut lower = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(octets) => link.mac = Mac::from_slice(&octets),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.controller = IfIndex::new(index),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Link(index) => lower = IfIndex::new(index),
                LinkAttribute::LinkInfo(info) => link.kind = LinkKind::from_info(info),
                _ => {}
            }
        }
        if let LinkKind::Veth { peer } = &mut link.kind {
            *peer = lower;
        }
        (!link.name.is_empty()).then_some(link)
    }
}

impl LinkKind {
    fn from_info(info: Vec<LinkInfo>) -> Self {
        let mut kind = Self::Other(String::new());
        for part in info {
            match part {
                LinkInfo::Kind(InfoKind::Veth) => kind = Self::Veth { peer: None },
                LinkInfo::Kind(InfoKind::Bridge) => kind = Self::Bridge,
                LinkInfo::Kind(InfoKind::Vxlan) => kind = Self::Vxlan(VxlanAttributes::default()),
                LinkInfo::Kind(other) => kind = Self::Other(other.to_string()),
                LinkInfo::Data(InfoData::Vxlan(data)) => kind = Self::Vxlan(VxlanAttributes::from_data(&data)),
                _ => {}
            }
        }
        kind
    }
}
