//! Proxied neighbours: addresses that this node answers for on a link although they are behind another one (RFC 4389).

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};

use crate::{
    Family, IfIndex, Neighbour, Netlink,
    error::{During, Result, gone_is_success},
};

impl Netlink {
    /// The addresses of a family that are answered for on a link.
    ///
    /// # Errors
    /// The table cannot be read. A link that is gone has none.
    pub fn proxies(&self, family: Family, link: IfIndex) -> Result<Vec<IpAddr>> {
        let mut message = NeighbourMessage::default();
        message.header.family = family.number();
        message.header.flags = NeighbourFlags::Proxy;
        let answers = self
            .dump(RouteNetlinkMessage::GetNeighbour(message))
            .during("list", format_args!("proxied neighbours on link #{link}"))?;
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(message) if message.header.flags.contains(NeighbourFlags::Proxy) => {
                Neighbour::from_message(&message)
            }
            _ => None,
        });
        Ok(all.filter(|proxy| proxy.link == link).map(|proxy| proxy.address).collect())
    }

    /// Has an address answered for on a link; for IPv6 the link's `proxy_ndp` must be on as well.
    ///
    /// # Errors
    /// The link is gone.
    pub fn add_proxy(&self, link: IfIndex, address: IpAddr) -> Result<()> {
        self.request(RouteNetlinkMessage::NewNeighbour(message(link, address)), NLM_F_CREATE)
            .map(drop)
            .during("answer for", format_args!("{address} on link #{link}"))
    }

    /// Ends that; an address that is not answered for is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_proxy(&self, link: IfIndex, address: IpAddr) -> Result<()> {
        let result = self.request(RouteNetlinkMessage::DelNeighbour(message(link, address)), 0);
        gone_is_success(result.map(drop).during("stop answering for", format_args!("{address} on link #{link}")))
    }
}

fn message(link: IfIndex, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(address).number();
    message.header.ifindex = link.get();
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}
