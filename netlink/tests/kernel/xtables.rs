//! Legacy tables, with `iptables-legacy` as the one who fills them.

use std::process::Command;

use weft_netlink::{Family, xtables_entries};

use crate::in_new_netns;

#[test]
fn every_rule_counts() {
    in_new_netns(|_| {
        for (family, program) in [(Family::V4, "iptables-legacy"), (Family::V6, "ip6tables-legacy")] {
            let run = |args: &[&str]| {
                let table = ["-w", "-t", "nat"];
                assert!(Command::new(program).args(table).args(args).status().unwrap().success(), "{program} {args:?}");
            };
            run(&["-A", "OUTPUT", "-j", "ACCEPT"]);
            let before = xtables_entries(family, "nat").unwrap();
            run(&["-A", "OUTPUT", "-j", "ACCEPT"]);
            assert_eq!(xtables_entries(family, "nat").unwrap(), before + 1);
            run(&["-F"]);
            assert_eq!(xtables_entries(family, "nat").unwrap(), before - 1);
            let error = xtables_entries(family, "no-such-table").unwrap_err();
            assert!(error.is_not_found(), "{error}");
            let too_long = xtables_entries(family, &"x".repeat(32)).unwrap_err().to_string();
            assert!(too_long.contains("legacy table xxx"), "{too_long}");
        }
    });
}
