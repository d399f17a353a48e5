//! Elements written and read by netlink, with `nft` as the one who sees whether they are right.

use std::process::Command;

use weft_netlink::{NftBatch, NftData, NftElement, NftQuery, NftWriter, Result};

use crate::{in_new_netns, nftables::nft};

const TABLE: &str = "add table inet w
add chain inet w c
add map inet w endpoints { typeof ip daddr . udp dport : ip daddr . udp dport ; counter ; }
add map inet w verdicts { type ipv4_addr . inet_proto . inet_service : verdict ; }
add set inet w addresses { type ipv6_addr ; }
add set inet w ranges { type inet_service . ipv4_addr ; flags interval ; }
";

fn value(key: &[u8], data: &[u8], packets: u64) -> NftElement {
    NftElement { key: key.to_vec(), data: Some(NftData::Value(data.to_vec())), packets, ..NftElement::default() }
}

fn verdict(last: u8, verdict: NftData) -> NftElement {
    NftElement { key: vec![10, 0, 0, last, 6, 0, 0, 0, 0, 80, 0, 0], data: Some(verdict), ..NftElement::default() }
}

fn elements() -> Vec<(&'static str, NftElement)> {
    let range = NftElement {
        key: vec![0, 80, 0, 0, 192, 0, 2, 0],
        key_end: Some(vec![0, 80, 0, 0, 192, 0, 2, 255]),
        ..NftElement::default()
    };
    let address =
        NftElement { key: [0x20, 1].into_iter().chain([0; 13]).chain([1]).collect(), ..NftElement::default() };
    vec![
        ("endpoints", value(&[10, 0, 0, 1, 0, 53, 0, 0], &[10, 1, 0, 1, 0x1f, 0x90, 0, 0], 0)),
        ("endpoints", value(&[10, 0, 0, 2, 0, 53, 0, 0], &[10, 1, 0, 2, 0x1f, 0x90, 0, 0], 7)),
        ("verdicts", verdict(1, NftData::Jump("c".into()))),
        ("verdicts", verdict(2, NftData::Goto("c".into()))),
        ("verdicts", verdict(3, NftData::Drop)),
        ("addresses", address),
        ("ranges", range),
    ]
}

fn commit(batch: NftBatch) -> Result<()> {
    NftWriter::open()?.commit(batch)
}

fn batch(elements: &[(&str, NftElement)]) -> NftBatch {
    let mut batch = NftBatch::new("w");
    elements.iter().for_each(|(set, element)| batch.add(set, element));
    batch
}

/// `kind` is `set` or `map`.
fn listed(kind: &str, what: &str) -> String {
    let output = Command::new("nft").args(["-nn", "list", kind, "inet", "w", what]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn nft_reads_what_was_written() {
    in_new_netns(|_| {
        nft(TABLE);
        commit(batch(&elements())).unwrap();
        let endpoints = listed("map", "endpoints");
        assert!(endpoints.contains("10.0.0.1 . 53 counter packets 0 bytes 0 : 10.1.0.1 . 8080"), "{endpoints}");
        assert!(endpoints.contains("10.0.0.2 . 53 counter packets 7 bytes 0 : 10.1.0.2 . 8080"), "{endpoints}");
        let verdicts = listed("map", "verdicts");
        for text in ["10.0.0.1 . 6 . 80 : jump c", "10.0.0.2 . 6 . 80 : goto c", "10.0.0.3 . 6 . 80 : drop"] {
            assert!(verdicts.contains(text), "{verdicts}");
        }
        assert!(listed("set", "addresses").contains("elements = { 2001::1 }"));
        assert!(listed("set", "ranges").contains("elements = { 80 . 192.0.2.0/24 }"));
    });
}

#[test]
fn what_was_written_is_read_and_deleted() {
    in_new_netns(|_| {
        nft(TABLE);
        let mut query = NftQuery::open().unwrap();
        assert_eq!(query.sets("w").unwrap(), ["endpoints", "verdicts", "addresses", "ranges"]);
        assert_eq!(query.sets("gone").unwrap(), [""; 0]);
        assert_eq!(query.chains("w").unwrap(), [("c".to_owned(), 0)].into());
        assert_eq!(query.elements("w", "gone").unwrap(), []);
        commit(batch(&elements())).unwrap();
        for (set, element) in elements() {
            assert!(query.elements("w", set).unwrap().contains(&Some(element)), "{set}");
        }
        let mut batch = NftBatch::new("w");
        elements().iter().for_each(|(set, element)| batch.delete(set, element));
        commit(batch).unwrap();
        for (set, _) in elements() {
            assert_eq!(query.elements("w", set).unwrap(), [], "{set}");
        }
    });
}

#[test]
fn a_refused_element_undoes_all_and_is_named() {
    in_new_netns(|_| {
        nft(TABLE);
        let [first, second] = [1, 2].map(|last| verdict(last, NftData::Drop));
        let mut batch = NftBatch::new("w");
        batch.add("verdicts", &first);
        batch.delete("verdicts", &second);
        batch.add("addresses", &elements()[5].1);
        let error = commit(batch).unwrap_err();
        assert!(error.is_not_found() && error.to_string().starts_with("delete elements of verdicts"), "{error}");
        let mut query = NftQuery::open().unwrap();
        assert_eq!(query.elements("w", "verdicts").unwrap(), []);
        commit(NftBatch::new("w")).expect("an empty one does nothing");
        let mut batch = NftBatch::new("gone");
        batch.add("verdicts", &first);
        assert!(commit(batch).unwrap_err().is_not_found());
    });
}

#[test]
fn fifty_thousand_elements_are_one_transaction() {
    in_new_netns(|_| {
        nft(TABLE);
        let mut batch = NftBatch::new("w");
        for n in 0..50_000_u32 {
            batch.add("endpoints", &value(&[&n.to_be_bytes()[..], &[0, 53, 0, 0]].concat(), &[0; 8], 0));
        }
        commit(batch).unwrap();
        assert_eq!(NftQuery::open().unwrap().elements("w", "endpoints").unwrap().len(), 50_000);
    });
}
