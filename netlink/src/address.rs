//! IP addresses of interfaces.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};

use crate::{
    Family, IfIndex, Netlink, RouteScope,
    error::{During, Result, gone_is_success},
};

/// An IP address on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub link: IfIndex,
    /// The address itself (not its network) with the prefix length.
    pub address: IpNetwork,
    /// How far it is valid.
    pub scope: RouteScope,
    /// IPv6 duplicate address detection has not finished: it cannot be used yet (RFC 4862).
    pub tentative: bool,
    /// IPv6 duplicate address detection found another owner: it will never be used.
    pub dad_failed: bool,
    /// It has no lifetime: made by an administrator or a program, not by a router advertisement or DHCP.
    pub permanent: bool,
    /// IPv6 made it up for a while, so that its holder is not recognised (RFC 8981).
    pub temporary: bool,
    /// Its preferred lifetime is over: nothing new should use it (RFC 4862).
    pub deprecated: bool,
}

/// How to add an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// IPv6: usable at once, without duplicate address detection.
    pub no_dad: bool,
    /// Do not add the route to the prefix that goes with an address.
    pub no_prefix_route: bool,
    /// Valid on this link only; else everywhere.
    pub link_scope: bool,
}

impl Netlink {
    /// The addresses of one interface, or of all.
    ///
    /// # Errors
    /// The table cannot be read. An interface that is gone has no addresses.
    pub fn addresses(&self, link: Option<IfIndex>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = link.map_or(0, IfIndex::get);
        let answers = match self.dump(RouteNetlinkMessage::GetAddress(message)).during("list", "addresses") {
            Err(error) if link.is_some() && error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
            _ => None,
        });
        // Kernels without strict checking do not filter.
        Ok(all.filter(|address| link.is_none_or(|link| address.link == link)).collect())
    }

    /// Adds an address to an interface, unless it has it.
    ///
    /// # Errors
    /// The interface is gone, or does not take addresses of the family (IPv6 switched off: EACCES).
    pub fn replace_address(&self, link: IfIndex, address: IpNetwork, options: AddressOptions) -> Result<()> {
        let mut message = message(link, address);
        if options.link_scope {
            message.header.scope = AddressScope::Link;
        }
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, options.no_dad);
        flags.set(AddressFlags::Noprefixroute, options.no_prefix_route);
        message.attributes.push(AddressAttribute::Flags(flags));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .during("replace address", format_args!("{address} on link #{link}"))
    }

    /// Removes an address from an interface; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_address(&self, link: IfIndex, address: IpNetwork) -> Result<()> {
        let result = self.request(RouteNetlinkMessage::DelAddress(message(link, address)), 0);
        gone_is_success(result.map(drop).during("delete address", format_args!("{address} of link #{link}")))
    }
}

fn message(link: IfIndex, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address.ip()).number();
    message.header.index = link.get();
    message.header.prefix_len = address.prefix();
    // Without a point-to-point peer the two are the same; IPv4 insists on the first, IPv6 on the second.
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    message
}

impl Address {
    pub(crate) fn from_message(message: AddressMessage) -> Option<Self> {
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return None;
        }
        let (mut own, mut peer): (Option<IpAddr>, Option<IpAddr>) = (None, None);
        let mut flags = u32::from(message.header.flags.bits());
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(address),
                AddressAttribute::Address(address) => peer = Some(address),
                AddressAttribute::Flags(all) => flags = all.bits(),
                _ => {}
            }
        }
        let has = |flag: AddressHeaderFlags| flags & u32::from(flag.bits()) != 0;
        let is_ipv6 = message.header.family == AddressFamily::Inet6;
        Some(Self {
            link: IfIndex::new(message.header.index)?,
            // IFA_ADDRESS is the peer's where there is one; IPv6 sends IFA_LOCAL only then.
            address: IpNetwork::new(own.or(peer)?, message.header.prefix_len).ok()?,
            scope: u8::from(message.header.scope).into(),
            tentative: has(AddressHeaderFlags::Tentative),
            dad_failed: has(AddressHeaderFlags::Dadfailed),
            permanent: has(AddressHeaderFlags::Permanent),
            // The same bit says of IPv4 addresses that they are not the first of their network.
            temporary: is_ipv6 && has(AddressHeaderFlags::Secondary),
            deprecated: has(AddressHeaderFlags::Deprecated),
        })
    }
}
