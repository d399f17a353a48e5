//! CHECK: is the attachment still as ADD made it (C1 to C4)? Looks only; what later plugins of the chain added is
//! none of our business.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use weft_netlink::{Link, LinkKind, Mac, Netlink, Route, RouteFilter, sysctl};

use crate::{
    add::network_of_node,
    attachment::{AttachmentId, host_end},
    config::Config,
    env::Environment,
    error::{Code, Error},
    extras::{Attached, EXTRAS},
    ipam::{Ipam, Lease},
    result::{Reported, ReportedInterface, RouteConfig},
    sandbox::Sandbox,
};

/// Compares with the result of ADD, which the runtime passes as prevResult.
pub(crate) fn check(environment: &Environment, config: &Config) -> Result<(), Error> {
    let Some(previous) = config.prev_result.clone() else {
        return Err(Error::new(Code::InvalidConfig, "required prevResult missing"));
    };
    let previous = Reported::parse(previous)?;
    let sandbox = Sandbox::open(environment)?;
    let host = Netlink::open()?;
    let (index, reported) = container_interface(environment, &previous)?;
    let container = container_end(environment, &sandbox, reported)?;
    let host_link = check_host_end(&host, &container, &previous)?;
    check_mtu(config, &host_link, &container, reported)?;

    let addresses: Vec<IpAddr> = previous.addresses_of(index).collect();
    if addresses.is_empty() {
        return Err(Error::new(Code::InvalidConfig, format!("prevResult has no address for {}", environment.ifname)));
    }
    let leases = leases(&previous, index);
    let present = check_addresses(&sandbox, &container, &addresses)?;
    check_container_routes(&sandbox, &container, &previous.routes, &leases)?;
    check_host(&host, &host_link, &leases)?;
    let owner = environment.owner();
    Ipam::of(environment, config).check(owner, &present)?;
    let id = AttachmentId { network: &config.name, owner };
    let attached = Attached { id, config, host: &host, host_end: &host_link, sandbox: &sandbox, leases: &leases };
    EXTRAS.iter().try_for_each(|extra| extra.check(&attached, &previous))
}

/// The interface prevResult has for the container, with its index there.
fn container_interface<'a>(
    environment: &Environment,
    previous: &'a Reported,
) -> Result<(usize, &'a ReportedInterface), Error> {
    let is_it = |interface: &&ReportedInterface| interface.name == environment.ifname && !interface.sandbox.is_empty();
    let found = previous.interfaces.iter().enumerate().find(|(_, interface)| is_it(interface));
    let (index, interface) =
        found.ok_or_else(|| not_as_made(format!("prevResult has no interface {} in a sandbox", environment.ifname)))?;
    if interface.sandbox != environment.netns {
        return Err(not_as_made(format!(
            "{} is in sandbox {} by prevResult, not in {}",
            interface.name, interface.sandbox, environment.netns
        )));
    }
    Ok((index, interface))
}

/// Our leases among the result's addresses: those with a gateway. Later plugins' addresses are not for us to check
/// beyond being there.
fn leases(previous: &Reported, interface: usize) -> Vec<Lease> {
    let ours = previous.ips.iter().filter(|ip| ip.interface.is_none_or(|index| index == interface));
    ours.filter_map(|ip| Some(Lease { address: ip.address, gateway: ip.gateway? })).collect()
}

fn container_end(environment: &Environment, sandbox: &Sandbox, reported: &ReportedInterface) -> Result<Link, Error> {
    let name = &environment.ifname;
    let link = sandbox.netlink.link_by_name(name)?;
    let link = link.ok_or_else(|| not_as_made(format!("interface {name} is gone from {}", environment.netns)))?;
    if !matches!(link.kind, LinkKind::Veth { .. }) {
        return Err(not_as_made(format!("interface {name} is no veth: {:?}", link.kind)));
    }
    check_link(&link, reported)?;
    Ok(link)
}

fn check_link(link: &Link, reported: &ReportedInterface) -> Result<(), Error> {
    let name = &link.name;
    if !link.up {
        return Err(not_as_made(format!("interface {name} is down")));
    }
    if !reported.mac.is_empty() && reported.mac.parse::<Mac>().ok() != link.mac {
        let has = link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string());
        return Err(not_as_made(format!("interface {name} has MAC {has} instead of {}", reported.mac)));
    }
    if reported.mtu != 0 && reported.mtu != link.mtu {
        return Err(not_as_made(format!("interface {name} has MTU {} instead of {}", link.mtu, reported.mtu)));
    }
    Ok(())
}

fn check_host_end(host: &Netlink, container: &Link, previous: &Reported) -> Result<Link, Error> {
    let link = host_end(host, container)?
        .ok_or_else(|| not_as_made(format!("the other end of {} is not on this host", container.name)))?;
    let reported = previous.interfaces.iter().find(|other| other.sandbox.is_empty() && other.name == link.name);
    let reported = reported.ok_or_else(|| {
        not_as_made(format!("the other end of {} is {}, which prevResult does not have", container.name, link.name))
    })?;
    check_link(&link, reported)?;
    Ok(link)
}

/// Results before 1.1.0 have no MTU. Then the host's end is compared with what ADD would choose now; the container's
/// may have been lowered by a later plugin (tuning), but packets larger than the host's end takes would be lost.
fn check_mtu(config: &Config, host: &Link, container: &Link, reported: &ReportedInterface) -> Result<(), Error> {
    if reported.mtu != 0 {
        return Ok(());
    }
    // That the subnet file is gone is no fault of the attachment: STATUS tells.
    let expected = network_of_node(config).ok().and_then(|network| network.mtu);
    if let Some(expected) = expected.filter(|expected| *expected != host.mtu) {
        return Err(not_as_made(format!("interface {} has MTU {} instead of {expected}", host.name, host.mtu)));
    }
    if container.mtu > host.mtu {
        return Err(not_as_made(format!(
            "interface {} has MTU {}, more than the {} of {}",
            container.name, container.mtu, host.mtu, host.name
        )));
    }
    Ok(())
}

/// Returns all addresses the container's interface has.
fn check_addresses(sandbox: &Sandbox, container: &Link, expected: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    let present = sandbox.netlink.addresses(Some(container.index))?;
    for wanted in expected {
        match present.iter().find(|address| address.address.ip() == *wanted) {
            None => return Err(not_as_made(format!("{wanted} is not on interface {}", container.name))),
            Some(address) if address.dad_failed => {
                return Err(not_as_made(format!("{wanted} is in use elsewhere (duplicate address detection)")));
            }
            Some(_) => {}
        }
    }
    Ok(present.iter().map(|address| address.address.ip()).collect())
}

/// The result's routes, and those to the gateways. Later plugins may have moved them to another table (sbr).
fn check_container_routes(
    sandbox: &Sandbox,
    container: &Link,
    reported: &[RouteConfig],
    leases: &[Lease],
) -> Result<(), Error> {
    let filter = RouteFilter { family: None, table: None, link: Some(container.index) };
    let present = sandbox.netlink.routes(&filter)?;
    for lease in leases {
        let gateway = IpNetwork::from(lease.gateway);
        if !present.iter().any(|route| route.destination == gateway) {
            return Err(not_as_made(format!("{} has no route to gateway {gateway}", container.name)));
        }
    }
    for wanted in reported {
        if !present.iter().any(|route| is_route(route, wanted)) {
            let via = wanted.gw.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
            return Err(not_as_made(format!("{} has no route to {}{via}", container.name, wanted.dst)));
        }
    }
    Ok(())
}

/// Whether a route is the wanted one, as far as that is stated.
fn is_route(route: &Route, wanted: &RouteConfig) -> bool {
    route.destination.network() == wanted.dst.network()
        && route.destination.prefix() == wanted.dst.prefix()
        && wanted.gw.is_none_or(|gateway| route.gateway == Some(gateway))
        && wanted.table.is_none_or(|table| route.table == table)
        && wanted.priority.is_none_or(|priority| route.metric.unwrap_or(priority) == priority)
        && wanted.mtu.is_none_or(|mtu| route.mtu == Some(mtu))
        && wanted.advmss.is_none_or(|advmss| route.advmss == Some(advmss))
}

/// The host's side of the data path: gateways on its end, routes to the container by it, and forwarding.
fn check_host(host: &Netlink, link: &Link, leases: &[Lease]) -> Result<(), Error> {
    let addresses = host.addresses(Some(link.index))?;
    let routes = host.routes(&RouteFilter { link: Some(link.index), ..RouteFilter::default() })?;
    for lease in leases {
        if !addresses.iter().any(|address| address.address.ip() == lease.gateway) {
            return Err(not_as_made(format!("gateway {} is not on interface {}", lease.gateway, link.name)));
        }
        let container = IpNetwork::from(lease.address.ip());
        if !routes.iter().any(|route| route.destination == container) {
            return Err(not_as_made(format!("the host has no route to {container} by {}", link.name)));
        }
        let v4 = lease.address.is_ipv4();
        let parameter = if v4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
        if sysctl::get(parameter)? == "0" {
            return Err(not_as_made(format!("{} is 0: the host forwards nothing", parameter.replace('/', "."))));
        }
    }
    Ok(())
}

fn not_as_made(message: String) -> Error {
    Error::new(Code::NotAsMade, message)
}
