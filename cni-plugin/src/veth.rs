//! The data path: a routed veth pair, without a bridge (A9).
//!
//! The container has its address as a single host and sends everything to the gateway. The gateway's address is on
//! the host's end of every pair; the host has one route per pod. So pods of one node reach each other, themselves
//! through a Service, and the node, by plain routing.

mod ready;
mod routes;

use std::os::fd::AsFd;

use ipnetwork::IpNetwork;
use weft_netlink::{
    AddressOptions, IfIndex, Link, Mac, Neighbour, NeighbourState, Netlink, NetnsGuard, VethSpec, sysctl,
};

use self::{
    ready::wait_until_ready,
    routes::{container_routes, on_link},
};
use crate::{
    attachment::{AttachmentId, NAME_ATTEMPTS},
    error::{Code, Error},
    ipam::Lease,
    result::RouteConfig,
    sandbox::Sandbox,
};

/// What to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wiring<'a> {
    /// Whose it is; its interface name is that of the container's end.
    pub(crate) id: AttachmentId<'a>,
    /// `namespace/name` of the pod, to be told to people.
    pub(crate) pod: Option<&'a str>,
    /// MTU of both ends in bytes.
    pub(crate) mtu: Option<u32>,
    /// MAC of the container's end.
    pub(crate) mac: Option<Mac>,
    pub(crate) leases: &'a [Lease],
    /// Routes of the container; each has a gateway.
    pub(crate) routes: &'a [RouteConfig],
}

impl<'a> Wiring<'a> {
    fn ifname(&self) -> &'a str {
        self.id.owner.ifname
    }

    fn has_ipv6(&self) -> bool {
        self.leases.iter().any(|lease| lease.address.is_ipv6())
    }
}

/// What was made.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) host: Link,
    pub(crate) container: Link,
}

/// Makes the pair and both sides' addresses and routes. After an error nothing of it is left (A2).
pub(crate) fn attach(host: &Netlink, sandbox: &Sandbox, wiring: &Wiring<'_>) -> Result<Attachment, Error> {
    forward(wiring)?;
    let name = create_pair(host, sandbox, wiring)?;
    let link = host.link_by_name(&name)?.ok_or_else(|| vanished(&name))?;
    let attachment = configure(host, &link, sandbox, wiring);
    if attachment.is_err()
        && let Err(also) = host.delete_link(link.index)
    {
        eprintln!("weft-cni: {also}");
    }
    attachment
}

fn configure(host: &Netlink, host_link: &Link, sandbox: &Sandbox, wiring: &Wiring<'_>) -> Result<Attachment, Error> {
    let container = sandbox.netlink.link_by_name(wiring.ifname())?.ok_or_else(|| vanished(wiring.ifname()))?;
    if let Some(alias) = wiring.id.alias(wiring.pod) {
        host.set_alias(host_link.index, &alias)?;
    }
    if wiring.has_ipv6() {
        prepare_ipv6(&host_link.name, sandbox, wiring.ifname())?;
    }
    // Early, so that the carrier is there by the time the rest is done. Addresses and routes need the link up.
    host.set_up(host_link.index)?;
    sandbox.netlink.set_up(container.index)?;
    for lease in wiring.leases {
        put_address(&sandbox.netlink, container.index, lease.address.ip().into())?;
        put_address(host, host_link.index, lease.gateway.into())?;
        // Replaced: a pod that had the address before may not be quite gone.
        host.replace_route(&on_link(lease.address.ip().into(), host_link.index))?;
        sandbox.netlink.append_route(&on_link(lease.gateway.into(), container.index))?;
        if lease.address.is_ipv6() {
            introduce(host, host_link, sandbox, &container, lease)?;
        }
    }
    // Appended, not replaced: another attachment of this pod may have the same routes, and keeps them (A4, A6).
    for route in container_routes(wiring, container.index) {
        sandbox.netlink.append_route(&route)?;
    }
    wait_until_ready(host, host_link, sandbox, wiring.leases)?;
    Ok(Attachment { host: host_link.clone(), container })
}

/// Turns on forwarding for the families in use (A7).
fn forward(wiring: &Wiring<'_>) -> Result<(), Error> {
    for (v4, parameter) in [(true, "net/ipv4/ip_forward"), (false, "net/ipv6/conf/all/forwarding")] {
        if wiring.leases.iter().any(|lease| lease.address.is_ipv4() == v4) {
            sysctl::set(parameter, "1")?;
        }
    }
    Ok(())
}

/// Makes the pair and returns the name of the host's end.
fn create_pair(host: &Netlink, sandbox: &Sandbox, wiring: &Wiring<'_>) -> Result<String, Error> {
    let mut last = None;
    for attempt in 0..NAME_ATTEMPTS {
        let name = wiring.id.host_name(attempt);
        let spec = VethSpec {
            name: &name,
            peer_name: wiring.ifname(),
            peer_netns: Some(sandbox.netns.as_fd()),
            mtu: wiring.mtu,
            mac: None,
            peer_mac: wiring.mac,
        };
        match host.create_veth(&spec) {
            Ok(()) => return Ok(name),
            // The container's name was free a moment ago, so it will be the host's.
            Err(error) if error.is_exists() => last = Some(error),
            Err(error) => return Err(Error { details: asked_for(wiring), ..error.into() }),
        }
    }
    Err(last.map_or_else(|| Error::new(Code::Network, "no name for the host's interface"), Error::from))
}

/// What the kernel may have refused.
fn asked_for(wiring: &Wiring<'_>) -> String {
    let mtu = wiring.mtu.map(|mtu| format!("MTU {mtu}"));
    let mac = wiring.mac.map(|mac| format!("MAC {mac}"));
    let parts: Vec<_> = mtu.into_iter().chain(mac).collect();
    if parts.is_empty() { String::new() } else { format!("asked for with {}", parts.join(", ")) }
}

/// IPv6 must be on, work at once, and not be changed by whoever sends router advertisements (A7).
fn prepare_ipv6(host_name: &str, sandbox: &Sandbox, ifname: &str) -> Result<(), Error> {
    let set = |interface: &str, parameter: &str, value: &str| {
        sysctl::set(&format!("net/ipv6/conf/{interface}/{parameter}"), value).map(drop)
    };
    set(host_name, "disable_ipv6", "0")?;
    set(host_name, "accept_ra", "0")?;

    let _inside = NetnsGuard::enter(&sandbox.netns)?;
    set("lo", "disable_ipv6", "0")?;
    set(ifname, "disable_ipv6", "0")?;
    set(ifname, "accept_dad", "0")?;
    set(ifname, "keep_addr_on_down", "1")?;
    Ok(())
}

/// Tells both sides each other's IPv6 MAC, so that nobody has to ask for it in the first second: the host cannot ask
/// until its link-local address is usable, and what is asked too early is repeated after a second only. The entries
/// are provisional (stale): the kernel asks for itself before long, so that a changed MAC is found out.
fn introduce(
    host: &Netlink,
    host_link: &Link,
    sandbox: &Sandbox,
    container: &Link,
    lease: &Lease,
) -> Result<(), Error> {
    let entry = |link: &Link, address, peer: &Link| Neighbour {
        link: link.index,
        address,
        mac: peer.mac,
        state: NeighbourState::Stale,
    };
    host.replace_neighbour(&entry(host_link, lease.address.ip(), container))?;
    sandbox.netlink.replace_neighbour(&entry(container, lease.gateway, host_link))?;
    Ok(())
}

/// An address for this host alone: no route to neighbours goes with it, for there are none.
fn put_address(netlink: &Netlink, link: IfIndex, address: IpNetwork) -> Result<(), Error> {
    let options = AddressOptions { no_dad: address.is_ipv6(), no_prefix_route: true, link_scope: false };
    netlink.replace_address(link, address, options).map_err(Error::from)
}

fn vanished(name: &str) -> Error {
    Error::new(Code::Network, format!("{name} vanished while it was being set up"))
}
