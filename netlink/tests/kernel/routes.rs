use std::slice;

use ipnetwork::IpNetwork;
use serde_json::Value;
use weft_netlink::{Family, IfIndex, Netlink, Route, RouteFilter, RouteKind, RouteProtocol, RouteScope};

use crate::{ethernet, in_new_netns, ip};

/// The routes to `destination`, as the crate reads them.
fn routes_to(netlink: &Netlink, destination: &str) -> Vec<Route> {
    let destination: IpNetwork = destination.parse().unwrap();
    let all = netlink.routes(&RouteFilter::default()).unwrap();
    all.into_iter().filter(|route| route.destination == destination).collect()
}

/// The routes to `destination`, as `ip route` reads them.
fn seen(destination: &str) -> Vec<Value> {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    ip(&[family, "route", "show", destination]).as_array().unwrap().clone()
}

fn two_links(netlink: &Netlink) -> (IfIndex, IfIndex) {
    let first = ethernet(netlink, "d0", "192.0.2.1/24");
    let second = ethernet(netlink, "d1", "198.51.100.1/24");
    ip(&["address", "add", "fd00:1::1/64", "dev", "d0", "nodad"]);
    ip(&["address", "add", "fd00:2::1/64", "dev", "d1", "nodad"]);
    (first, second)
}

/// Per family: a destination, a gateway on the first link, one on the second, one that is on neither.
const CASES: [[&str; 4]; 2] = [
    ["10.244.2.0/24", "192.0.2.7", "198.51.100.7", "10.244.2.1"],
    ["fd00:244:2::/64", "fd00:1::7", "fd00:2::7", "fd00:244:2::1"],
];

#[test]
fn a_route_reads_as_it_was_written() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        for [destination, gateway, _, stranger] in CASES {
            let destination = destination.parse().unwrap();
            let source = if matches!(destination, IpNetwork::V4(_)) { "192.0.2.1" } else { "fd00:1::1" };
            let plain = Route { link: Some(link), ..Route::new(destination) };
            let variants = [
                Route { gateway: Some(gateway.parse().unwrap()), ..plain.clone() },
                Route { gateway: Some(stranger.parse().unwrap()), onlink: true, ..plain.clone() },
                Route { mtu: Some(1400), advmss: Some(1360), protocol: RouteProtocol::STATIC, ..plain.clone() },
                Route { prefsrc: Some(source.parse().unwrap()), ..plain.clone() },
                Route { link: None, kind: RouteKind::Blackhole, ..plain.clone() },
                Route { link: None, kind: RouteKind::Unreachable, ..plain.clone() },
            ];
            for route in variants {
                netlink.replace_route(&route).unwrap();
                netlink.replace_route(&route).unwrap();
                assert_eq!(routes_to(netlink, &destination.to_string()), slice::from_ref(&route));
                netlink.delete_route(&route).unwrap();
                netlink.delete_route(&route).unwrap();
                assert_eq!(seen(&destination.to_string()), Vec::<Value>::new());
            }
        }
    });
}

#[test]
fn ipv4_scope_reads_as_it_was_written() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        for scope in [RouteScope::Link, RouteScope::Host, RouteScope::Universe] {
            let route = Route { link: Some(link), scope, ..Route::new("10.244.1.1/32".parse().unwrap()) };
            netlink.replace_route(&route).unwrap();
            assert_eq!(routes_to(netlink, "10.244.1.1/32"), slice::from_ref(&route));
            netlink.delete_route(&route).unwrap();
        }
    });
}

/// IPv6 is the one to watch: there a "replacement" with another gateway may be appended as one more next hop.
#[test]
fn replacing_leaves_one_route_whatever_changed() {
    in_new_netns(|netlink| {
        let (first, second) = two_links(netlink);
        for [destination, gateway, other_gateway, stranger] in CASES {
            let plain = Route::new(destination.parse().unwrap());
            let steps = [
                Route { gateway: Some(gateway.parse().unwrap()), link: Some(first), ..plain.clone() },
                Route { gateway: Some(other_gateway.parse().unwrap()), link: Some(second), ..plain.clone() },
                Route { gateway: Some(stranger.parse().unwrap()), link: Some(first), onlink: true, ..plain.clone() },
                Route { link: Some(second), ..plain.clone() },
                Route { kind: RouteKind::Blackhole, ..plain.clone() },
                Route { gateway: Some(gateway.parse().unwrap()), link: Some(first), ..plain.clone() },
                Route { link: Some(first), ..plain.clone() },
            ];
            for route in steps {
                netlink.replace_route(&route).unwrap();
                assert_eq!(routes_to(netlink, destination), slice::from_ref(&route), "{route}");
                assert_eq!(seen(destination).len(), 1, "{:?}", seen(destination));
            }
        }
    });
}

#[test]
fn a_multipath_route_reads_as_its_next_hops_and_is_replaced_whole() {
    in_new_netns(|netlink| {
        let (first, second) = two_links(netlink);
        for [destination, gateway, other_gateway, _] in CASES {
            let hop = |gateway: &str, link| Route {
                gateway: Some(gateway.parse().unwrap()),
                link: Some(link),
                ..Route::new(destination.parse().unwrap())
            };
            ip(&["route", "add", destination, "nexthop", "via", gateway, "nexthop", "via", other_gateway]);
            let mut found = routes_to(netlink, destination);
            found.sort_by_key(|route| route.link);
            assert_eq!(found, [hop(gateway, first), hop(other_gateway, second)]);
            netlink.replace_route(&hop(gateway, first)).unwrap();
            assert_eq!(routes_to(netlink, destination), [hop(gateway, first)]);
        }
    });
}

#[test]
fn an_appended_route_comes_second_and_takes_over() {
    in_new_netns(|netlink| {
        let (first, second) = two_links(netlink);
        for [destination, ..] in CASES {
            let on = |link| Route { link: Some(link), ..Route::new(destination.parse().unwrap()) };
            for route in [on(first), on(second), on(second)] {
                netlink.append_route(&route).unwrap();
            }
            assert_eq!(routes_to(netlink, destination), [on(first), on(second)]);
            let host = destination.parse::<IpNetwork>().unwrap().nth_host();
            assert_eq!(netlink.route_to(host).unwrap().link, Some(first));
            netlink.delete_route(&on(first)).unwrap();
            assert_eq!(netlink.route_to(host).unwrap().link, Some(second));
        }
    });
}

#[test]
fn metrics_keep_routes_apart() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        for [destination, ..] in CASES {
            let plain = Route { link: Some(link), ..Route::new(destination.parse().unwrap()) };
            let preferred = Route { metric: Some(50), ..plain.clone() };
            netlink.replace_route(&plain).unwrap();
            netlink.replace_route(&preferred).unwrap();
            assert_eq!(routes_to(netlink, destination).len(), 2);
            netlink.delete_route(&preferred).unwrap();
            assert_eq!(routes_to(netlink, destination), [plain]);
        }
    });
}

#[test]
fn filters_select() {
    in_new_netns(|netlink| {
        let (first, second) = two_links(netlink);
        let in_table = Route { link: Some(first), table: 1000, ..Route::new("10.9.0.0/16".parse().unwrap()) };
        netlink.replace_route(&in_table).unwrap();
        let list = |filter| netlink.routes(&filter).unwrap();
        assert_eq!(list(RouteFilter { table: Some(1000), ..RouteFilter::default() }), slice::from_ref(&in_table));
        assert_eq!(list(RouteFilter { table: Some(4242), ..RouteFilter::default() }), []);
        assert!(!list(RouteFilter::default()).contains(&in_table));
        assert!(list(RouteFilter { table: None, ..RouteFilter::default() }).contains(&in_table));
        let by_link = list(RouteFilter { link: Some(second), ..RouteFilter::default() });
        assert!(!by_link.is_empty() && by_link.iter().all(|route| route.link == Some(second)));
        let v6 = list(RouteFilter { family: Some(Family::V6), ..RouteFilter::default() });
        assert!(!v6.is_empty() && v6.iter().all(|route| route.family() == Family::V6));
    });
}

#[test]
fn default_routes_and_ipv4_via_ipv6() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        for (destination, gateway) in
            [("0.0.0.0/0", "192.0.2.7"), ("::/0", "fd00:1::7"), ("10.244.9.0/24", "fd00:1::7")]
        {
            let route = Route {
                gateway: Some(gateway.parse().unwrap()),
                link: Some(link),
                ..Route::new(destination.parse().unwrap())
            };
            netlink.replace_route(&route).unwrap();
            assert_eq!(routes_to(netlink, destination), [route]);
        }
    });
}

#[test]
fn lookup_tells_gateway_link_and_source() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        for [destination, gateway, ..] in CASES {
            let host = destination.parse::<IpNetwork>().unwrap().nth_host();
            let error = netlink.route_to(host).unwrap_err();
            assert!(error.is_unreachable(), "{error}");
            let gateway = gateway.parse().unwrap();
            let route = Route { gateway: Some(gateway), link: Some(link), ..Route::new(destination.parse().unwrap()) };
            netlink.replace_route(&route).unwrap();
            let found = netlink.route_to(host).unwrap();
            assert_eq!((found.gateway, found.link), (Some(gateway), Some(link)));
            let source = if host.is_ipv4() { "192.0.2.1" } else { "fd00:1::1" };
            assert_eq!(found.prefsrc, Some(source.parse().unwrap()));
        }
        assert_eq!(netlink.route_to("192.0.2.1".parse().unwrap()).unwrap().kind, RouteKind::Local);
    });
}

/// Some address in a network.
trait NthHost {
    fn nth_host(&self) -> std::net::IpAddr;
}

impl NthHost for IpNetwork {
    fn nth_host(&self) -> std::net::IpAddr {
        self.iter().nth(5).unwrap()
    }
}

#[test]
fn a_large_table_is_read_whole() {
    in_new_netns(|netlink| {
        let (link, _) = two_links(netlink);
        let destination = |n: u32| -> IpNetwork { format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap() };
        for n in 0..3000 {
            netlink.replace_route(&Route { link: Some(link), ..Route::new(destination(n)) }).unwrap();
        }
        let filter = RouteFilter { family: Some(Family::V4), ..RouteFilter::default() };
        let found = netlink.routes(&filter).unwrap();
        assert_eq!(found.iter().filter(|route| route.destination.prefix() == 24).count(), 3000 + 2);
    });
}
