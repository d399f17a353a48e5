//! The same by iptables: for kernels without nftables, or asked for by name.

use std::thread;

use serde_json::{Value, json};
use weft_netlink::Netns;

use super::site::{NODE4, Site, ask, mapping, rules, serve, tool};
use crate::kit::{Node, Outcome, Pod};

pub(super) fn config(node: &Node, mappings: &Value) -> Value {
    node.config_with("1.0.0", json!({"backend": "iptables", "runtimeConfig": {"portMappings": mappings}}))
}

fn add(site: &Site, pod: &Pod, mappings: &Value) -> Value {
    site.node.run("ADD", pod, &config(&site.node, mappings), &[]).result()
}

fn check(site: &Site, pod: &Pod, mappings: &Value, result: &Value) -> Outcome {
    let mut config = config(&site.node, mappings);
    config["prevResult"] = result.clone();
    site.node.run("CHECK", pod, &config, &[])
}

/// Rules and chains of one of the two iptables, without what was counted.
fn saved(netns: &Netns, variant: &str) -> Vec<String> {
    let saved = tool(netns, &format!("iptables{variant}-save"));
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

fn has_ours(lines: &[String]) -> bool {
    lines.iter().any(|line| line.contains("WEFT") || line.contains("weft"))
}

#[test]
fn section_8_by_iptables() {
    let site = Site::new();
    let pods = [Pod::new("old"), Pod::new("new")];
    let mappings = json!([mapping(80, "tcp", ""), mapping(81, "tcp", NODE4)]);
    let results = pods.each_ref().map(|pod| {
        let result = add(&site, pod, &mappings);
        serve(pod);
        result
    });
    let check = |number: usize| check(&site, &pods[number], &mappings, &results[number]);
    for to in ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.1:81"] {
        assert!(ask(&site.client, to).unwrap().starts_with("new "), "{to}");
        assert!(ask(&pods[1].netns, to).unwrap().starts_with("new "), "{to}");
    }
    assert_eq!(ask(&site.node.netns, "127.0.0.1:80").unwrap(), "new 10.244.1.1");
    let outcome = check(1);
    assert!(outcome.success, "{outcome:?}");
    // The configuration may have changed since: DEL finds the rules all the same.
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(check(1).error().0, 104);
    assert!(check(0).success);
    assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "old 192.0.2.2");
    assert!(site.node.gc(&[]).success);
    let ruleset = rules(&site.node.netns);
    assert!(!ruleset.to_lowercase().contains("weft"), "{ruleset}");
}

#[test]
fn section_8_iptables_rules_of_others_stay() {
    let (site, pod) = (Site::new(), Pod::new("web"));
    let netns = &site.node.netns;
    for rule in [
        "iptables -t nat -N KUBE-SERVICES",
        "iptables -t nat -A PREROUTING -j KUBE-SERVICES",
        "iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE",
        "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
    ] {
        tool(netns, rule);
    }
    let before = saved(netns, "");
    add(&site, &pod, &json!([mapping(80, "tcp", "")]));
    let with_ours = saved(netns, "");
    assert!(has_ours(&with_ours) && before.iter().all(|line| with_ours.contains(line)), "{with_ours:#?}");
    assert!(site.node.del(&pod).success);
    assert_eq!(saved(netns, ""), before);
}

/// What somebody flushed comes back with the next pod, as far as it is everybody's.
#[test]
fn section_8_iptables_after_a_flush() {
    let site = Site::new();
    let (flushed, next, last) = (Pod::new("flushed"), Pod::new("next"), Pod::new("last"));
    let [of_flushed, of_next, of_last] = [80, 81, 82].map(|port| json!([mapping(port, "tcp", "")]));
    let result = add(&site, &flushed, &of_flushed);
    let netns = &site.node.netns;
    let says = |outcome: Outcome, what: &str| {
        let (code, message) = outcome.error();
        assert!(code == 104 && message.contains(what), "{message}");
    };
    tool(netns, "iptables -t nat -F");
    says(check(&site, &flushed, &of_flushed, &result), "no rule PREROUTING");
    let result_of_next = add(&site, &next, &of_next);
    serve(&next);
    assert_eq!(ask(&site.client, "192.0.2.1:81").unwrap(), "next 192.0.2.2");
    says(check(&site, &flushed, &of_flushed, &result), "host port 0.0.0.0:80/tcp to 10.244.1.2:8080");
    assert!(check(&site, &next, &of_next, &result_of_next).success);
    tool(netns, "iptables -F");
    says(check(&site, &next, &of_next, &result_of_next), "no rule INPUT");
    add(&site, &last, &of_last);
    assert!(check(&site, &next, &of_next, &result_of_next).success);
    for pod in [&flushed, &next, &last] {
        assert!(site.node.del(pod).success);
    }
    assert!(!rules(netns).to_lowercase().contains("weft"), "{}", rules(netns));
}

/// The later hook of two with one priority comes first: so host ports are where the NodePorts are, and come after them.
#[test]
fn section_8_iptables_a_node_port_wins_in_either_variant() {
    for (variant, other) in [("-nft", "-legacy"), ("-legacy", "-nft")] {
        let (site, pod, service) = (Site::new(), Pod::new("pod"), Pod::new("service"));
        let netns = &site.node.netns;
        site.node.add(&service).result();
        serve(&service);
        let dnat = "-t nat -A KUBE-SERVICES -p tcp --dport 80 -j DNAT --to-destination 10.244.1.2:8080";
        for rule in ["-t nat -N KUBE-SERVICES", "-t nat -I PREROUTING -j KUBE-SERVICES", dnat] {
            tool(netns, &format!("iptables{variant} {rule}"));
        }
        add(&site, &pod, &json!([mapping(80, "tcp", "0.0.0.0")]));
        serve(&pod);
        assert!(has_ours(&saved(netns, variant)) && !has_ours(&saved(netns, other)), "{variant}");
        assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "service 192.0.2.2", "{variant}");
        tool(netns, &format!("iptables{variant} -t nat -F KUBE-SERVICES"));
        assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "pod 192.0.2.2", "{variant}");
        assert!(site.node.del(&pod).success);
        assert!(!has_ours(&saved(netns, variant)), "{variant}");
    }
}

/// The last pod takes the chains away that the next one wants.
#[test]
fn section_8_iptables_eight_at_a_time() {
    let site = Site::new();
    thread::scope(|scope| {
        for worker in 0..8 {
            let site = &site;
            scope.spawn(move || {
                let mut pod = Pod::new("");
                let mappings = json!([mapping(1000 + worker, "tcp", "0.0.0.0")]);
                for round in 0..8 {
                    pod.id = format!("pod-{worker}-{round}");
                    let result = add(site, &pod, &mappings);
                    let outcome = check(site, &pod, &mappings, &result);
                    assert!(outcome.success, "{}: {outcome:?}", pod.id);
                    let outcome = site.node.del(&pod);
                    assert!(outcome.success, "{}: {outcome:?}", pod.id);
                }
            });
        }
    });
    assert!(!rules(&site.node.netns).to_lowercase().contains("weft"), "{}", rules(&site.node.netns));
}
