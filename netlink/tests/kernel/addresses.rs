use weft_netlink::{AddressOptions, RouteScope, TABLE_MAIN, sysctl};

use crate::{ethernet, in_new_netns, ip};

#[test]
fn addresses_come_once_and_go() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "d0", "192.0.2.1/24");
        let other = ethernet(netlink, "d1", "198.51.100.1/24");
        for text in ["10.244.1.1/32", "10.244.1.5/24", "fd00::5/64"] {
            let address = text.parse().unwrap();
            let options = AddressOptions { no_dad: true, ..AddressOptions::default() };
            netlink.replace_address(link, address, options).unwrap();
            netlink.replace_address(link, address, options).unwrap();
            let found = netlink.addresses(Some(link)).unwrap();
            let matching: Vec<_> = found.iter().filter(|found| found.address == address).collect();
            assert_eq!(matching.len(), 1, "{text}: {found:?}");
            assert_eq!((matching[0].tentative, matching[0].permanent), (false, true));
            assert_eq!(matching[0].scope, RouteScope::Universe);

            netlink.delete_address(link, address).unwrap();
            netlink.delete_address(link, address).unwrap();
            assert!(netlink.addresses(Some(link)).unwrap().iter().all(|found| found.address != address));
        }
        let all = netlink.addresses(None).unwrap();
        assert!(all.iter().any(|address| address.link == other) && all.iter().any(|address| address.link == link));
    });
}

#[test]
fn options_are_honoured() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "d0", "192.0.2.1/24");
        let options = AddressOptions { no_prefix_route: true, link_scope: true, no_dad: false };
        netlink.replace_address(link, "10.1.0.1/16".parse().unwrap(), options).unwrap();
        let routes = ip(&["route", "show", "table", &TABLE_MAIN.to_string()]);
        assert!(!routes.to_string().contains("10.1.0.0"), "{routes}");
        let found = netlink.addresses(Some(link)).unwrap();
        let address = found.iter().find(|found| found.address.prefix() == 16).unwrap();
        assert_eq!(address.scope, RouteScope::Link);
    });
}

#[test]
fn addresses_that_do_not_last_are_told_from_the_rest() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "d0", "192.0.2.1/24");
        ip(&["address", "add", "192.0.2.2/24", "dev", "d0"]);
        ip(&["address", "add", "fd00::7/64", "dev", "d0", "nodad", "preferred_lft", "0"]);
        // The kernel makes up another one beside it.
        sysctl::set("net/ipv6/conf/d0/use_tempaddr", "2").unwrap();
        let lifetimes = ["valid_lft", "6000", "preferred_lft", "3000"];
        ip(&[&["address", "add", "2001:db8::2/64", "dev", "d0", "nodad", "mngtmpaddr"][..], &lifetimes].concat());
        let found = netlink.addresses(Some(link)).unwrap();
        let named = |text: &str| found.iter().find(|found| found.address.ip().to_string() == text).unwrap();
        for (text, deprecated) in [("192.0.2.2", false), ("fd00::7", true), ("2001:db8::2", false)] {
            assert_eq!((named(text).deprecated, named(text).temporary), (deprecated, false), "{text}");
        }
        let temporary: Vec<_> = found.iter().filter(|found| found.temporary).collect();
        assert!(temporary.len() == 1 && temporary[0].address.ip().to_string().starts_with("2001:db8::"), "{found:?}");
    });
}

#[test]
fn addresses_of_a_link_that_is_gone() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "d0", "192.0.2.1/24");
        netlink.delete_link(link).unwrap();
        assert!(netlink.addresses(Some(link)).unwrap().is_empty());
        let address = "10.1.0.1/16".parse().unwrap();
        netlink.delete_address(link, address).unwrap();
        assert!(netlink.replace_address(link, address, AddressOptions::default()).unwrap_err().is_not_found());
    });
}
