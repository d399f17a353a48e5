//! Notices of removed rules and small questions, with `nft` as the one who adds and removes.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use weft_netlink::{NftChange, NftQuery, NftWatch};

use crate::in_new_netns;

pub(crate) fn nft(commands: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refuses {commands}");
}

#[test]
fn removals_are_noticed_and_additions_are_not() {
    in_new_netns(|_| {
        let watch = NftWatch::open().unwrap();
        nft("add table inet x\nadd chain inet x c\nadd rule inet x c accept\nadd table ip other\n");
        assert!(!watch.removed("x").unwrap());
        nft("delete table ip other");
        assert!(!watch.removed("x").unwrap());
        for command in ["flush chain inet x c", "delete chain inet x c", "flush ruleset"] {
            nft(command);
            assert!(watch.removed("x").unwrap(), "{command}");
            assert!(!watch.removed("x").unwrap(), "told once");
        }
    });
}

#[test]
fn changes_name_table_and_chain() {
    in_new_netns(|_| {
        let watch = NftWatch::open().unwrap();
        let is_told =
            |table, chain, is_base| watch.changed(|change| *change == NftChange { table, chain, is_base }).unwrap();
        let hook = "{ type filter hook forward priority 0 ; }";
        for (command, chain, is_base) in [
            (format!("add table inet x\nadd chain inet x c {hook}"), Some("c"), true),
            ("add chain inet x other".into(), Some("other"), false),
            ("add rule inet x other accept".into(), Some("other"), false),
            ("flush chain inet x other".into(), Some("other"), false),
            ("delete chain inet x c".into(), Some("c"), false),
            ("delete table inet x".into(), None, false),
        ] {
            nft(&command);
            assert!(is_told("x", chain, is_base), "{command}");
            assert!(!is_told("x", chain, is_base), "told once");
            nft("add table inet y\nadd chain inet y c\ndelete table inet y");
            assert!(!is_told("x", chain, is_base), "another table");
        }
        assert!(!watch.changed(|_| true).unwrap());
    });
}

#[test]
fn a_removal_ends_the_wait() {
    in_new_netns(|_| {
        let watch = NftWatch::open().unwrap();
        nft("add table inet x\nadd table inet y\nadd table inet other\n");
        nft("delete table inet other\nadd chain inet x c");
        nft("delete table inet y");
        watch.wait_removed(&["x", "y"]).unwrap();
        assert!(!watch.removed("other").unwrap(), "what came before is over");
    });
}

#[test]
fn queries_count_rules_and_read_counters() {
    in_new_netns(|_| {
        let mut query = NftQuery::open().unwrap();
        assert_eq!(query.rules("w", "c").unwrap(), 0, "no such table");
        assert_eq!(query.packets("w", "m", &[0; 12]).unwrap(), None);
        nft("add table inet w");
        nft("add chain inet w c { type filter hook output priority 0 ; }");
        nft("add chain inet w other");
        nft("add rule inet w other accept");
        nft("add map inet w m { typeof ip daddr . udp dport : ip daddr ; counter ; }");
        nft("add element inet w m { 127.0.0.1 . 53 counter packets 7 bytes 0 : 10.0.0.1 }");
        assert_eq!(query.rules("w", "c").unwrap(), 0);
        nft("add rule inet w c accept");
        nft("add rule inet w c accept");
        assert_eq!(query.rules("w", "c").unwrap(), 2, "those of the other chain are not counted");
        assert_eq!(query.packets("w", "m", &[127, 0, 0, 1, 0, 53, 0, 0]).unwrap(), Some(7));
        assert_eq!(query.packets("w", "m", &[127, 0, 0, 1, 0, 54, 0, 0]).unwrap(), None, "no such element");
    });
}

#[test]
fn tables_of_all_families_are_listed() {
    in_new_netns(|_| {
        let mut query = NftQuery::open().unwrap();
        assert_eq!(query.tables().unwrap(), [""; 0]);
        let tables = ["inet x", "ip kube-proxy", "ip6 kube-proxy", "bridge b", "arp a"];
        tables.iter().for_each(|table| nft(&format!("add table {table}")));
        let mut listed = query.tables().unwrap();
        listed.sort();
        assert_eq!(listed, ["arp a", "bridge b", "inet x", "ip kube-proxy", "ip6 kube-proxy"]);
    });
}
