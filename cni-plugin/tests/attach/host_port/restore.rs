//! What the agent does after somebody flushed rules.

use serde_json::json;
use weft_cni::restore_host_ports;

use super::{
    iptables,
    site::{Site, ask, assert_no_records, mapping, rules, serve, tool},
};
use crate::kit::Pod;

/// Puts back what is missing, as the agent; returns how many ports that were.
fn restore(site: &Site) -> usize {
    let networks = site.node.directory().join("networks");
    site.node.netns.run(|| restore_host_ports(&networks)).unwrap().unwrap()
}

fn flushed_rules_come_back(backend: &str, flushes: &[&str]) {
    let site = Site::new();
    let netns = &site.node.netns;
    assert_eq!(restore(&site), 0);
    let pods = [("old", 80), ("new", 80), ("other", 81)].map(|(name, port)| {
        let pod = Pod::new(name);
        let mut config = site.config(json!([mapping(port, "tcp", "")]));
        config["backend"] = backend.into();
        site.node.run("ADD", &pod, &config, &[]).result();
        serve(&pod);
        pod
    });
    assert_eq!(restore(&site), 0, "all is there");
    let before = rules(netns);
    flushes.iter().for_each(|flush| drop(tool(netns, flush)));
    assert_eq!(ask(&site.client, "192.0.2.1:80"), None);
    assert_eq!(restore(&site), 6, "two families");
    assert_eq!(restore(&site), 0);
    for (to, name) in [("192.0.2.1:80", "new "), ("[2001:db8::1]:80", "new "), ("192.0.2.1:81", "other ")] {
        assert!(ask(&site.client, to).unwrap().starts_with(name), "{to}: before: {before}, now: {}", rules(netns));
    }
    assert_eq!(ask(netns, "127.0.0.1:80").unwrap(), "new 10.244.1.1");
    // Whose they are is known as before.
    let [old, new, other] = pods;
    assert!(site.node.del(&new).success);
    assert_eq!(restore(&site), 0);
    assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "old 192.0.2.2");
    assert!(site.node.del(&old).success && site.node.gc(&[]).success);
    assert_eq!(restore(&site), 0);
    assert!(!rules(netns).to_lowercase().contains("weft"), "{}", rules(netns));
    assert_no_records(&site.node);
    drop(other);
}

#[test]
fn section_8_flushed_rules_come_back() {
    flushed_rules_come_back("nftables", &["nft flush ruleset"]);
}

#[test]
fn section_8_flushed_rules_of_iptables_come_back() {
    flushed_rules_come_back(
        "iptables",
        &["iptables -t nat -F", "iptables -F", "ip6tables -t nat -F", "iptables -t nat -X WEFT-HOSTPORTS-SRC"],
    );
}

#[test]
fn section_8_a_damaged_table_is_repaired() {
    let (site, pod) = (Site::new(), Pod::new("web"));
    let mappings = json!([mapping(80, "tcp", "")]);
    let result = site.add(&pod, mappings.clone());
    for damage in ["flush chain inet weft-hostports prerouting", "delete element inet weft-hostports any4 { tcp . 80 }"]
    {
        tool(&site.node.netns, &format!("nft {damage}"));
        assert_eq!(site.check(&pod, mappings.clone(), &result).error().0, 104, "{damage}");
        restore(&site);
        assert!(site.check(&pod, mappings.clone(), &result).success, "{damage}");
    }
}

/// After a restart of the node, files are there and pods are not.
#[test]
fn section_8_nothing_is_restored_for_pods_that_are_gone() {
    let (site, pod, kept) = (Site::new(), Pod::new("gone"), Pod::new("kept"));
    let mapped = |port| json!([mapping(port, "tcp", "0.0.0.0")]);
    site.add(&pod, mapped(80));
    site.node.run("ADD", &kept, &iptables::config(&site.node, &mapped(81)), &[]).result();
    tool(&pod.netns, "ip link delete eth0");
    tool(&site.node.netns, "nft flush ruleset");
    assert_eq!(restore(&site), 1);
    let ruleset = rules(&site.node.netns);
    assert!(ruleset.contains("WEFT-HOSTPORTS") && !ruleset.contains("weft-hostports"), "{ruleset}");
    for pod in [&pod, &kept] {
        assert!(site.node.del(pod).success);
    }
    assert_no_records(&site.node);
}
