//! Virtual cables between namespaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    Mac, Netlink,
    error::{During, Result},
};

/// A pair of interfaces to be made: what one end sends, the other receives.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// Name of the end in the namespace of the [`Netlink`], up to 15 bytes.
    pub name: &'a str,
    /// Name of the other end, up to 15 bytes.
    pub peer_name: &'a str,
    /// Network namespace the other end is born in; `None` for the same one.
    pub peer_netns: Option<BorrowedFd<'a>>,
    /// MTU of both ends in bytes; `None` for the kernel's 1500.
    pub mtu: Option<u32>,
    /// Ethernet address of this end; `None` lets the kernel draw one.
    pub mac: Option<Mac>,
    /// Ethernet address of the other end.
    pub peer_mac: Option<Mac>,
}

impl Netlink {
    /// Makes a veth pair, both ends down, in one message: no other process ever sees the other end under a
    /// provisional name or in the wrong namespace.
    ///
    /// # Errors
    /// [`is_exists`](crate::Error::is_exists): one of the names is taken, here or there; nothing was made.
    pub fn create_veth(&self, spec: &VethSpec<'_>) -> Result<()> {
        let mut peer = end(spec.peer_name, spec.mtu, spec.peer_mac);
        peer.attributes.extend(spec.peer_netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
        let mut message = end(spec.name, spec.mtu, spec.mac);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
            .during("create veth", format_args!("{} with peer {}", spec.name, spec.peer_name))
    }
}

fn end(name: &str, mtu: Option<u32>, mac: Option<Mac>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message
}
