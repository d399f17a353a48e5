//! The routes of both ends.

use ipnetwork::IpNetwork;
use weft_netlink::{IfIndex, Route, RouteScope, TABLE_MAIN};

use super::Wiring;

/// A route to what is at the other end of the pair.
pub(super) fn on_link(destination: IpNetwork, link: IfIndex) -> Route {
    let scope = if destination.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    Route { link: Some(link), scope, ..Route::new(destination) }
}

/// The container's routes, after those to the gateways.
pub(super) fn container_routes(wiring: &Wiring<'_>, link: IfIndex) -> Vec<Route> {
    let mut routes = Vec::new();
    for lease in wiring.leases {
        let subnet = IpNetwork::new(lease.address.network(), lease.address.prefix())
            .expect("the prefix length is that of the address");
        let has_default =
            wiring.routes.iter().any(|route| route.dst.prefix() == 0 && route.dst.is_ipv4() == subnet.is_ipv4());
        // Pods of this node are not neighbours but behind the gateway; a default route says that as well.
        if !has_default {
            routes.push(Route { gateway: Some(lease.gateway), link: Some(link), ..Route::new(subnet) });
        }
    }
    routes.extend(wiring.routes.iter().map(|route| Route {
        gateway: route.gw,
        link: Some(link),
        metric: route.priority,
        table: route.table.unwrap_or(TABLE_MAIN),
        scope: route.scope.map_or(RouteScope::Universe, RouteScope::from),
        mtu: route.mtu,
        advmss: route.advmss,
        ..Route::new(route.dst)
    }));
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attachment::AttachmentId,
        ipam::{Lease, Owner},
        result::RouteConfig,
    };

    fn id() -> AttachmentId<'static> {
        AttachmentId { network: "weft", owner: Owner { container_id: "p", ifname: "eth0" } }
    }

    fn lease(address: &str, gateway: &str) -> Lease {
        Lease { address: address.parse().unwrap(), gateway: gateway.parse().unwrap() }
    }

    fn texts(leases: &[Lease], routes: &[RouteConfig]) -> Vec<String> {
        let wiring = Wiring { id: id(), pod: None, mtu: None, mac: None, leases, routes };
        container_routes(&wiring, IfIndex::new(2).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a9_the_own_subnet_goes_by_the_gateway_when_there_is_no_default_route() {
        let leases = [lease("10.244.1.5/24", "10.244.1.1"), lease("fd44::5/64", "fd44::1")];
        let default = RouteConfig::via("0.0.0.0/0".parse().unwrap(), leases[0].gateway);
        assert_eq!(
            texts(&leases, &[default]),
            ["fd44::/64 via fd44::1 on link #2", "0.0.0.0/0 via 10.244.1.1 on link #2"]
        );
        assert_eq!(
            texts(&leases, &[]),
            ["10.244.1.0/24 via 10.244.1.1 on link #2", "fd44::/64 via fd44::1 on link #2"]
        );
    }

    #[test]
    fn a6_route_attributes_are_passed_on() {
        let leases = [lease("10.244.1.5/24", "10.244.1.1")];
        let configured = RouteConfig {
            mtu: Some(1300),
            advmss: Some(1260),
            priority: Some(7),
            table: Some(100),
            scope: Some(0),
            ..RouteConfig::via("0.0.0.0/0".parse().unwrap(), leases[0].gateway)
        };
        let wiring = Wiring { id: id(), pod: None, mtu: None, mac: None, leases: &leases, routes: &[configured] };
        let route = container_routes(&wiring, IfIndex::new(2).unwrap()).remove(0);
        assert_eq!((route.mtu, route.advmss, route.metric, route.table), (Some(1300), Some(1260), Some(7), 100));
    }
}
