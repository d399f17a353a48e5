use weft_netlink::LinkKind;

use super::*;

fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index: IfIndex::new(index).unwrap(),
        name: name.into(),
        mac: None,
        mtu,
        up: true,
        running: true,
        loopback: name == "lo",
        controller: None,
        alias: None,
        kind: LinkKind::Other(String::new()),
    }
}

fn address(link: u32, address: &str, scope: RouteScope, permanent: bool) -> Address {
    Address {
        link: IfIndex::new(link).unwrap(),
        address: address.parse().unwrap(),
        scope,
        tentative: false,
        dad_failed: false,
        permanent,
        temporary: false,
        deprecated: false,
    }
}

fn default_route(link: u32, gateway: &str) -> Route {
    let gateway: IpAddr = gateway.parse().unwrap();
    let any = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    let mut route = Route::new(any.parse().unwrap());
    route.gateway = Some(gateway);
    route.link = IfIndex::new(link);
    route
}

/// lo, eth0 with the default routes and several addresses, eth1 without.
fn node() -> Inventory {
    use RouteScope::{Host, Link as LinkScope, Universe};
    Inventory {
        links: vec![link(1, "lo", 65536), link(2, "eth0", 1500), link(3, "eth1", 9000), link(4, "bad0", 0)],
        addresses: vec![
            address(1, "127.0.0.1/8", Host, true),
            address(2, "169.254.7.7/16", LinkScope, true),
            address(2, "192.168.1.9/24", Universe, false),
            address(2, "192.168.1.2/24", Universe, true),
            address(2, "fe80::2/64", LinkScope, true),
            address(2, "fd99::2/64", Universe, true),
            address(3, "10.9.0.3/24", Universe, true),
            address(3, "10.9.0.4/24", Universe, true),
            address(4, "10.8.0.4/24", Universe, true),
        ],
        default_routes: vec![default_route(2, "192.168.1.1"), default_route(2, "fe80::1")],
        toward: None,
    }
}

fn with(interfaces: &[&str], public_ip: Option<&str>) -> InterfaceChoice {
    InterfaceChoice {
        interfaces: interfaces.iter().map(|name| (*name).into()).collect(),
        patterns: Vec::new(),
        can_reach: None,
        public_ip: public_ip.map(|address| address.parse().unwrap()),
        public_ipv6: None,
    }
}

#[test]
fn rules_choose_interface_and_addresses() {
    // --iface, --public-ip -> interface, own address, public address
    type Case<'a> = (&'a [&'a str], Option<&'a str>, &'a str, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[], None, "eth0", "192.168.1.2", "192.168.1.2"),
        (&["eth1"], None, "eth1", "10.9.0.3", "10.9.0.3"),
        (&["10.9.0.4"], None, "eth1", "10.9.0.4", "10.9.0.4"),
        (&["nope", "eth1"], None, "eth1", "10.9.0.3", "10.9.0.3"),
        (&[], Some("10.9.0.4"), "eth1", "10.9.0.4", "10.9.0.4"),
        (&["eth0"], Some("203.0.113.5"), "eth0", "192.168.1.2", "203.0.113.5"),
    ];
    for (interfaces, public, name, own, published) in cases {
        let chosen = choose_one(&with(interfaces, *public), Family::V4, &node()).unwrap();
        let got = (chosen.name, chosen.address.to_string(), chosen.public_address.to_string());
        assert_eq!(got, ((*name).into(), (*own).into(), (*published).into()), "{interfaces:?}");
    }
}

#[test]
fn patterns_are_tried_on_addresses_then_names_and_the_way_to_a_target_last() {
    let mut inventory = node();
    let eth1 = IfIndex::new(3).unwrap();
    for (patterns, can_reach, name, own) in [
        (&["10[.]9[.]"][..], false, "eth1", "10.9.0.3"),
        (&["^10.9.0.4$"], false, "eth1", "10.9.0.4"),
        (&["eth[01]"], false, "eth0", "192.168.1.2"),
        (&["^wlan", "^eth1$"], false, "eth1", "10.9.0.3"),
        (&["^wlan"], true, "eth1", "10.9.0.4"),
    ] {
        let choice = InterfaceChoice {
            patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
            can_reach: can_reach.then(|| [10, 9, 9, 9].into()),
            ..InterfaceChoice::default()
        };
        inventory.toward = can_reach.then_some((eth1, Some([10, 9, 0, 4].into())));
        let chosen = choose_one(&choice, Family::V4, &inventory).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.address.to_string()), (name, own.to_owned()), "{patterns:?}");
    }
    let choice = InterfaceChoice { patterns: vec!["^wlan".parse().unwrap()], ..with(&["eth7"], None) };
    inventory.toward = None;
    let error = choose_one(&choice, Family::V4, &inventory).unwrap_err().to_string();
    assert!(error.contains("none has a name or address of --iface eth7, or matches --iface-regex ^wlan"), "{error}");
    assert!("eth(".parse::<InterfacePattern>().is_err());
}

#[test]
fn the_choice_stays_while_it_exists_and_moves_when_it_is_gone() {
    let choice = InterfaceChoice::default();
    let current = choose(&choice, [Family::V4].into_iter(), &node()).unwrap();
    let mut other = node();
    other.default_routes = vec![default_route(3, "10.9.0.1")];
    assert_eq!(refresh(&choice, &current, &other).unwrap(), current);
    other.addresses.retain(|entry| entry.link.get() != 2);
    let moved = refresh(&choice, &current, &other).unwrap();
    assert_eq!(moved[&Family::V4].name, "eth1");
    other.default_routes.clear();
    assert!(refresh(&choice, &current, &other).is_err());
}

#[test]
fn ipv6_prefers_the_global_address() {
    let chosen = choose(&with(&[], None), Family::ALL.into_iter(), &node()).unwrap();
    assert_eq!(chosen[&Family::V6].address.to_string(), "fd99::2");
    assert_eq!(chosen[&Family::V4].mtu, 1500);
}

#[test]
fn an_address_that_does_not_last_is_not_published() {
    // flannel.md section 6; privacy extensions beside what a router's prefix gave.
    let mut inventory = node();
    inventory.addresses.retain(|entry| entry.link.get() != 2);
    let dynamic = |text| address(2, text, RouteScope::Universe, false);
    inventory.addresses.extend([
        Address { deprecated: true, permanent: true, ..dynamic("fd99::7/64") },
        Address { temporary: true, ..dynamic("fd99::aaaa/64") },
        dynamic("fd99::2/64"),
    ]);
    let choice = InterfaceChoice::default();
    let chosen = choose(&choice, [Family::V6].into_iter(), &inventory).unwrap();
    assert_eq!(chosen[&Family::V6].public_address.to_string(), "fd99::2");
    // In use, it stays until it is gone.
    let mut aged = inventory.clone();
    aged.addresses.last_mut().unwrap().deprecated = true;
    assert_eq!(refresh(&choice, &chosen, &aged).unwrap(), chosen);
    aged.addresses.pop();
    assert_eq!(refresh(&choice, &chosen, &aged).unwrap()[&Family::V6].address.to_string(), "fd99::aaaa");
}

#[test]
fn errors_say_what_was_looked_at() {
    let mut no_routes = node();
    no_routes.default_routes.clear();
    for (choice, inventory, reason) in [
        (with(&["eth7"], None), node(), "none has a name or address of --iface eth7"),
        (with(&[], Some("203.0.113.5")), node(), "none holds the public address 203.0.113.5"),
        (with(&[], None), no_routes, "there is no default route"),
        (with(&["bad0"], None), node(), "bad0 has MTU 0"),
        (with(&["lo"], None), node(), "lo has no usable address"),
        (with(&["eth0"], None), Inventory::default(), "(looked at no interface at all)"),
    ] {
        let error = choose_one(&choice, Family::V4, &inventory).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        if !inventory.links.is_empty() {
            assert!(error.contains("eth0 169.254.7.7/16 192.168.1.9/24 192.168.1.2/24"), "{error}");
        }
    }
}
