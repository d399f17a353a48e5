use std::os::fd::AsFd;

use weft_netlink::{IfIndex, LinkKind, Mac, Netlink, Netns, VethSpec, VxlanSpec};

use crate::{ethernet, in_new_netns, index, ip};

fn veth<'a>(name: &'a str, peer_name: &'a str) -> VethSpec<'a> {
    VethSpec { name, peer_name, peer_netns: None, mtu: Some(1400), mac: None, peer_mac: None }
}

#[test]
fn veth_peer_is_born_in_the_other_namespace() {
    in_new_netns(|netlink| {
        let sandbox = Netns::create().unwrap();
        let mac = Mac([0x0a, 0x58, 10, 244, 1, 5]);
        let spec = VethSpec { peer_netns: Some(sandbox.as_fd()), peer_mac: Some(mac), ..veth("vethtest", "eth0") };
        netlink.create_veth(&spec).unwrap();

        let inside = sandbox.run(Netlink::open).unwrap().unwrap();
        let peer = inside.link_by_name("eth0").unwrap().unwrap();
        let host = netlink.link_by_name("vethtest").unwrap().unwrap();
        assert_eq!((peer.mac, peer.mtu, host.mtu), (Some(mac), 1400, 1400));
        assert_eq!(host.kind, LinkKind::Veth { peer: Some(peer.index) });
        assert_eq!(peer.kind, LinkKind::Veth { peer: Some(host.index) });
        assert!(!host.up && netlink.link_by_name("eth0").unwrap().is_none());
        assert_eq!(ip(&["link", "show", "vethtest"])[0]["mtu"], 1400);

        // The name is taken over there: nothing must be left here.
        let again = netlink.create_veth(&VethSpec { peer_netns: Some(sandbox.as_fd()), ..veth("vethother", "eth0") });
        assert!(again.unwrap_err().is_exists());
        assert!(netlink.link_by_name("vethother").unwrap().is_none());
    });
}

#[test]
fn links_change_and_go_away() {
    in_new_netns(|netlink| {
        netlink.create_veth(&veth("a", "b")).unwrap();
        let (a, mac) = (index(netlink, "a"), Mac([2, 0, 0, 0, 0, 9]));
        netlink.set_mac(a, mac).unwrap();
        netlink.set_mtu(a, 1300).unwrap();
        netlink.set_alias(a, "known as a").unwrap();
        netlink.set_up(a).unwrap();
        netlink.set_up(a).unwrap();
        let link = netlink.link_by_index(a).unwrap().unwrap();
        assert_eq!(
            (link.name.as_str(), link.mac, link.mtu, link.up, link.running),
            ("a", Some(mac), 1300, true, false)
        );
        assert_eq!(link.alias.as_deref(), Some("known as a"));
        netlink.set_up(index(netlink, "b")).unwrap();
        assert!(netlink.link_by_index(a).unwrap().unwrap().running);

        netlink.delete_link(a).unwrap();
        netlink.delete_link(a).unwrap();
        assert!(netlink.link_by_index(a).unwrap().is_none());
        assert!(netlink.set_up(a).unwrap_err().is_not_found());
    });
}

#[test]
fn errors_say_what_where_and_why() {
    in_new_netns(|netlink| {
        netlink.create_veth(&veth("a", "b")).unwrap();
        let error = netlink.set_mtu(index(netlink, "a"), 10).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("set MTU 10 of link #") && text.ends_with("(mtu less than device minimum)"), "{text}");
    });
}

fn flannel(netlink: &Netlink) -> VxlanSpec {
    VxlanSpec {
        name: "flannel.1".into(),
        vni: 1,
        local: Some("172.30.0.1".parse().unwrap()),
        underlay: Some(index(netlink, "eth0")),
        port: 8472,
        mtu: Some(1450),
        mac: Some(Mac([0x7e, 1, 2, 3, 4, 5])),
        learning: false,
        gbp: false,
    }
}

#[test]
fn vxlan_device_has_all_its_attributes_and_is_adopted() {
    in_new_netns(|netlink| {
        ethernet(netlink, "eth0", "172.30.0.1/24");
        let spec = flannel(netlink);
        let made = netlink.create_vxlan(&spec).unwrap();
        assert_eq!((made.mtu, made.mac), (1450, spec.mac));
        assert_eq!(made.kind, LinkKind::Vxlan(spec.attributes()));
        let seen = ip(&["link", "show", "flannel.1"]);
        let data = &seen[0]["linkinfo"]["info_data"];
        assert_eq!((&data["id"], &data["port"], &data["link"]), (&1.into(), &8472.into(), &"eth0".into()));
        assert_eq!((&data["local"], &data["learning"]), (&"172.30.0.1".into(), &false.into()));

        // With another MAC wished for it is the same device, and keeps its own.
        let again = netlink.create_vxlan(&VxlanSpec { mac: None, mtu: None, ..spec.clone() }).unwrap();
        assert_eq!(again, made);
        let other = netlink.create_vxlan(&VxlanSpec { vni: 2, ..spec.clone() }).unwrap_err();
        assert!(other.is_exists(), "{other}");
    });
}

#[test]
fn vxlan_over_ipv6_with_group_policy() {
    in_new_netns(|netlink| {
        ethernet(netlink, "eth0", "fd00:30::1/64");
        let spec =
            VxlanSpec { local: Some("fd00:30::1".parse().unwrap()), gbp: true, learning: true, ..flannel(netlink) };
        let made = netlink.create_vxlan(&spec).unwrap();
        assert_eq!(made.kind, LinkKind::Vxlan(spec.attributes()));
    });
}

#[test]
fn other_kinds_have_names() {
    in_new_netns(|netlink| {
        ethernet(netlink, "d0", "192.0.2.1/24");
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["link", "set", "d0", "master", "br0"]);
        let links = netlink.links().unwrap();
        let kind = |name: &str| links.iter().find(|link| link.name == name).unwrap().kind.clone();
        assert_eq!(kind("lo"), LinkKind::Other(String::new()));
        assert!(matches!(kind("d0"), LinkKind::Veth { .. }));
        assert_eq!(kind("br0"), LinkKind::Bridge);
        let d0 = links.iter().find(|link| link.name == "d0").unwrap();
        assert_eq!(d0.controller, Some(index(netlink, "br0")));
        assert!(netlink.link_by_index(IfIndex::new(4711).unwrap()).unwrap().is_none());
    });
}
