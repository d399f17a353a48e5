//! Interface features, with the program `ethtool` as second opinion.

use std::process::Command;

use weft_netlink::{Ethtool, VethSpec, sysctl::Changed};

use crate::in_new_netns;

#[test]
fn a_feature_is_read_and_set() {
    in_new_netns(|netlink| {
        let spec = VethSpec { name: "a", peer_name: "b", peer_netns: None, mtu: None, mac: None, peer_mac: None };
        netlink.create_veth(&spec).unwrap();
        let link = netlink.link_by_name("a").unwrap().unwrap().index;
        let mut ethtool = Ethtool::open().unwrap();
        let feature = "tx-checksum-ip-generic";
        let shown = || String::from_utf8(Command::new("ethtool").args(["-k", "a"]).output().unwrap().stdout).unwrap();
        assert!(ethtool.feature(link, feature).unwrap());
        assert_eq!(ethtool.set_feature(link, feature, false).unwrap(), Changed::Yes);
        assert!(shown().contains("tx-checksum-ip-generic: off"), "{}", shown());
        assert!(!ethtool.feature(link, feature).unwrap());
        assert_eq!(ethtool.set_feature(link, feature, false).unwrap(), Changed::No);
        assert_eq!(ethtool.set_feature(link, feature, true).unwrap(), Changed::Yes);
        assert!(shown().contains("tx-checksum-ip-generic: on"), "{}", shown());
        netlink.delete_link(link).unwrap();
        assert!(ethtool.feature(link, feature).unwrap_err().is_not_found());
    });
}
