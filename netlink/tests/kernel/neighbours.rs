use weft_netlink::{Family, FdbEntry, IfIndex, Mac, Neighbour, NeighbourState, Netlink, VxlanSpec};

use crate::{bridge, ethernet, in_new_netns, index, ip};

fn vxlan(netlink: &Netlink, local: &str) -> IfIndex {
    let prefix = if local.contains(':') { 64 } else { 24 };
    ethernet(netlink, "eth0", &format!("{local}/{prefix}"));
    let spec = VxlanSpec {
        name: "flannel.1".into(),
        vni: 1,
        local: Some(local.parse().unwrap()),
        underlay: Some(index(netlink, "eth0")),
        port: 8472,
        mtu: None,
        mac: None,
        learning: false,
        gbp: false,
    };
    let link = netlink.create_vxlan(&spec).unwrap().index;
    netlink.set_up(link).unwrap();
    link
}

const MAC: Mac = Mac([0x7e, 1, 2, 3, 4, 5]);
const OTHER_MAC: Mac = Mac([0x7e, 9, 9, 9, 9, 9]);

#[test]
fn neighbours_are_set_once_changed_and_removed() {
    in_new_netns(|netlink| {
        let link = vxlan(netlink, "172.30.0.1");
        for address in ["10.244.2.0", "fd00:244:2::"] {
            let first = Neighbour::permanent(link, address.parse().unwrap(), MAC);
            let second = Neighbour { mac: Some(OTHER_MAC), ..first };
            for wanted in [first, first, second] {
                netlink.replace_neighbour(&wanted).unwrap();
                let found = netlink.neighbours(link).unwrap();
                let unicast: Vec<_> = found.into_iter().filter(|n| n.state != NeighbourState::NoArp).collect();
                assert_eq!(unicast, [wanted]);
            }
            let seen = ip(&["neighbour", "show", "dev", "flannel.1", "nud", "permanent"]);
            assert_eq!(seen[0]["lladdr"], OTHER_MAC.to_string());
            netlink.delete_neighbour(&first).unwrap();
            netlink.delete_neighbour(&first).unwrap();
            // An entry just deleted may linger as failed while packets refer to it.
            let left = netlink.neighbours(link).unwrap();
            assert!(left.iter().all(|n| n.state != NeighbourState::Permanent), "{left:?}");
        }
    });
}

#[test]
fn addresses_are_answered_for_until_they_are_not() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "eth0", "172.30.0.1/24");
        let other = ethernet(netlink, "eth1", "172.31.0.1/24");
        for (family, address) in [(Family::V4, "172.30.0.7"), (Family::V6, "fd44::7")] {
            let address = address.parse().unwrap();
            netlink.add_proxy(link, address).unwrap();
            netlink.add_proxy(link, address).unwrap();
            assert_eq!(netlink.proxies(family, link).unwrap(), [address]);
            assert_eq!(netlink.proxies(family, other).unwrap(), [] as [std::net::IpAddr; 0]);
            assert!(netlink.neighbours(link).unwrap().iter().all(|neighbour| neighbour.address != address));
            assert_eq!(ip(&["neighbour", "show", "proxy", "dev", "eth0"])[0]["dst"], address.to_string());
            netlink.delete_proxy(link, address).unwrap();
            netlink.delete_proxy(link, address).unwrap();
            assert_eq!(netlink.proxies(family, link).unwrap(), [] as [std::net::IpAddr; 0]);
        }
    });
}

#[test]
fn fdb_entries_are_set_once_changed_and_removed() {
    for (local, remotes) in [("172.30.0.1", ["172.30.0.2", "172.30.0.3"]), ("fd00:30::1", ["fd00:30::2", "fd00:30::3"])]
    {
        in_new_netns(|netlink| {
            let link = vxlan(netlink, local);
            let [first, second] = remotes.map(|dst| FdbEntry { link, mac: MAC, dst: dst.parse().unwrap() });
            for wanted in [first, first, second] {
                netlink.replace_fdb(&wanted).unwrap();
                assert_eq!(netlink.fdb(link).unwrap(), [wanted]);
            }
            let seen = bridge(&["fdb", "show", "dev", "flannel.1"]);
            let seen: Vec<_> = seen.as_array().unwrap().iter().filter(|row| row["mac"] == MAC.to_string()).collect();
            assert_eq!((seen.len(), seen[0]["dst"].as_str()), (1, Some(remotes[1])));
            assert_eq!(seen[0]["state"], "permanent");
            netlink.delete_fdb(&second).unwrap();
            netlink.delete_fdb(&second).unwrap();
            assert_eq!(netlink.fdb(link).unwrap(), []);
        });
    }
}

#[test]
fn the_all_zero_address_may_have_several_vteps() {
    in_new_netns(|netlink| {
        let link = vxlan(netlink, "172.30.0.1");
        let [first, second] =
            ["172.30.0.2", "172.30.0.3"].map(|dst| FdbEntry { link, mac: Mac([0; 6]), dst: dst.parse().unwrap() });
        for entry in [first, second, second] {
            netlink.replace_fdb(&entry).unwrap();
        }
        let mut found = netlink.fdb(link).unwrap();
        found.sort();
        assert_eq!(found, [first, second]);
    });
}

#[test]
fn entries_of_other_links_are_not_listed() {
    in_new_netns(|netlink| {
        let link = vxlan(netlink, "172.30.0.1");
        let underlay = index(netlink, "eth0");
        let address = "172.30.0.2".parse().unwrap();
        netlink.replace_neighbour(&Neighbour::permanent(underlay, address, MAC)).unwrap();
        netlink.replace_fdb(&FdbEntry { link, mac: MAC, dst: address }).unwrap();
        assert!(netlink.neighbours(link).unwrap().iter().all(|neighbour| neighbour.address != address));
        assert_eq!(netlink.fdb(underlay).unwrap(), []);
    });
}
