//! Token buckets, with `tc` as the one who sees whether they are right.

use std::process::Command;

use weft_netlink::{Netlink, TokenBucket, VethSpec};

use crate::in_new_netns;

#[test]
fn a_token_bucket_is_made_changed_and_read() {
    in_new_netns(|_| {
        let netlink = Netlink::open().unwrap();
        let spec = VethSpec { name: "a", peer_name: "b", peer_netns: None, mtu: None, mac: None, peer_mac: None };
        netlink.create_veth(&spec).unwrap();
        let link = netlink.link_by_name("a").unwrap().unwrap().index;
        assert_eq!(netlink.token_bucket(link).unwrap(), None);
        for (rate, shown) in [(1_250_000, "rate 10Mbit burst 100Kb"), (12_500_000_000, "rate 100Gbit burst 100Kb")] {
            let bucket = TokenBucket { rate, burst: 100 * 1024, limit: 200 * 1024 };
            netlink.replace_token_bucket(link, &bucket).unwrap();
            assert_eq!(netlink.token_bucket(link).unwrap(), Some((rate, 200 * 1024)));
            let output = Command::new("tc").args(["qdisc", "show", "dev", "a"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(&shown[..14]), "{text}");
        }
        netlink.delete_link(link).unwrap();
        assert!(netlink.token_bucket(link).is_err());
    });
}
