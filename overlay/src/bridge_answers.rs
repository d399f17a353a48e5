//! Answers on flannel's bridge, in IPv6: pods of its time believe that all pods of the node are on their link, and ask there
//! for those that are routed. For IPv4 a parameter of the bridge does it (see `forwarding`); for IPv6 the kernel has to be
//! told of each address (`ip -6 neighbour add proxy`). Owns the proxied neighbours of the bridge inside the pod network.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use weft_netlink::{Family, IfIndex, Netlink, Route, RouteFilter, RouteKind, TABLE_MAIN};

use crate::{family, forwarding::FLANNELS_BRIDGE};

/// Has the node answer for all pods it has a route to, and for no others. A node without the bridge costs one request.
///
/// # Errors
/// A table cannot be read, or the bridge has no IPv6.
pub(crate) fn ensure(netlink: &Netlink, subnet: IpNetwork) -> weft_netlink::Result<()> {
    let Some(bridge) = bridge(netlink)? else { return Ok(()) };
    let routes = netlink.routes(&RouteFilter { family: Some(Family::V6), ..RouteFilter::default() })?;
    let routed = routes.iter().filter(|route| is_of_pod(route, subnet) && route.link != Some(bridge));
    let routed: BTreeSet<IpAddr> = routed.map(|route| route.destination.ip()).collect();
    let answered = answered(netlink, bridge, subnet)?;
    routed.difference(&answered).try_for_each(|address| netlink.add_proxy(bridge, *address))?;
    answered.difference(&routed).try_for_each(|address| netlink.delete_proxy(bridge, *address))
}

/// Ends all answers inside `network`; true if there were any. A pod that flannel gives such an address would find it in use.
///
/// # Errors
/// A table cannot be read, or the kernel refused.
pub(crate) fn remove(netlink: &Netlink, network: IpNetwork) -> weft_netlink::Result<bool> {
    let Some(bridge) = bridge(netlink)? else { return Ok(false) };
    let answered = answered(netlink, bridge, network)?;
    answered.iter().try_for_each(|address| netlink.delete_proxy(bridge, *address))?;
    Ok(!answered.is_empty())
}

/// Whether a route is that of a pod in this node's IPv6 subnet, as weft-cni makes it.
pub(crate) fn is_of_pod(route: &Route, subnet: IpNetwork) -> bool {
    let address = route.destination.ip();
    route.table == TABLE_MAIN
        && route.kind == RouteKind::Unicast
        && route.gateway.is_none()
        && route.destination == family::host(address)
        && subnet.contains(address)
        // The VTEP's.
        && address != subnet.network()
}

fn bridge(netlink: &Netlink) -> weft_netlink::Result<Option<IfIndex>> {
    Ok(netlink.link_by_name(FLANNELS_BRIDGE)?.map(|link| link.index))
}

fn answered(netlink: &Netlink, bridge: IfIndex, network: IpNetwork) -> weft_netlink::Result<BTreeSet<IpAddr>> {
    let proxies = netlink.proxies(Family::V6, bridge)?;
    Ok(proxies.into_iter().filter(|address| network.contains(*address)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_pods_are_told_from_others() {
        let subnet = "fd44:0:0:1::/64".parse().unwrap();
        for (destination, pod) in [
            ("fd44:0:0:1::6/128", true),
            ("fd44:0:0:1::/128", false),
            ("fd44:0:0:1::/64", false),
            ("fd44:0:0:2::6/128", false),
            ("10.244.1.6/32", false),
        ] {
            assert_eq!(is_of_pod(&Route::new(destination.parse().unwrap()), subnet), pod, "{destination}");
        }
        let host: IpNetwork = "fd44:0:0:1::6/128".parse().unwrap();
        let mut elsewhere = Route::new(host);
        elsewhere.gateway = Some([0xfd99, 0, 0, 0, 0, 0, 0, 9].into());
        assert!(!is_of_pod(&elsewhere, subnet));
    }
}
