//! Who is led where, by nftables.

use std::{fs, process::Command};

use serde_json::json;
use weft_netlink::{Netns, sysctl};

use super::site::{NODE4, NOT_LONG, PATIENCE, Site, ask, ask_udp, assert_nothing_left, mapping, rules, serve, udp};
use crate::kit::{Pod, addresses};

#[test]
fn section_8_from_outside_from_the_node_from_pods_and_from_the_pod_itself() {
    let site = Site::new();
    let (pod, other) = (Pod::new("web"), Pod::new("other"));
    let mappings = json!([mapping(80, "tcp", ""), mapping(53, "UDP", "")]);
    let result = site.add(&pod, mappings.clone());
    let ip = addresses(&result).remove(0);
    site.node.add(&other).result();
    serve(&pod);

    // Clients keep their addresses, but where they could not be answered.
    let answer = |from: &Netns, to: &str| ask(from, to).unwrap_or_else(|| panic!("{to}: {}", rules(&site.node.netns)));
    assert_eq!(answer(&site.client, "192.0.2.1:80"), "web 192.0.2.2");
    assert_eq!(answer(&site.client, "[2001:db8::1]:80"), "web 2001:db8::2");
    assert_eq!(answer(&other.netns, "192.0.2.1:80"), "web 10.244.1.3");
    assert_eq!(answer(&other.netns, "[2001:db8::1]:80"), "web fd44:0:0:1::3");
    assert_eq!(answer(&pod.netns, "192.0.2.1:80"), "web 10.244.1.1");
    assert_eq!(answer(&pod.netns, "[2001:db8::1]:80"), "web fd44:0:0:1::1");
    assert!(answer(&site.node.netns, "192.0.2.1:80").starts_with("web "));
    assert!(answer(&site.node.netns, "[2001:db8::1]:80").starts_with("web "));
    assert_eq!(answer(&site.node.netns, "127.0.0.1:80"), "web 10.244.1.1");
    // Refused at once, so that clients of "localhost" go on to 127.0.0.1.
    assert_eq!(ask(&site.node.netns, "[::1]:80"), None);
    for (from, to) in [(&site.client, "192.0.2.1:53"), (&site.node.netns, "127.0.0.1:53"), (&pod.netns, "192.0.2.1:53")]
    {
        assert!(ask_udp(&udp(from, PATIENCE), to).unwrap().starts_with("web "), "{to}");
    }
    assert_eq!(ask(&site.client, &format!("{ip}:8080")).unwrap(), "web 192.0.2.2");
    assert_eq!(ask(&site.client, "192.0.2.1:8080"), None);

    let checked = site.check(&pod, mappings.clone(), &result);
    assert!(checked.success, "{checked:?}");
    assert!(site.node.run("DEL", &pod, &site.config(mappings), &[]).success);
    assert_eq!(ask(&site.client, "192.0.2.1:80"), None);
    assert!(site.node.del(&other).success);
    assert_nothing_left(&site);
}

#[test]
fn section_8_host_ip_restricts_the_address_and_the_family() {
    let site = Site::new();
    let pods = [Pod::new("wan"), Pod::new("local"), Pod::new("six")];
    for (pod, host) in pods.iter().zip([NODE4, "127.0.0.1", "::"]) {
        site.add(pod, json!([mapping(80, "tcp", host)]));
        serve(pod);
    }
    assert_eq!(ask(&site.client, "192.0.2.1:80").unwrap(), "wan 192.0.2.2");
    assert_eq!(ask(&site.node.netns, "127.0.0.1:80").unwrap(), "local 10.244.1.1");
    assert_eq!(ask(&site.client, "[2001:db8::1]:80").unwrap(), "six 2001:db8::2");
    assert_eq!(ask(&site.node.netns, "127.0.0.2:80"), None);
}

/// Whose address the pod sees: the node's of everybody, or nobody's but the client's own, which leaves 127.0.0.1 out.
#[test]
fn section_8_masq_all_and_snat_false() {
    for backend in ["nftables", "iptables"] {
        let site = Site::new();
        let pods = [Pod::new("all"), Pod::new("never")];
        let settings = [json!({"masqAll": true}), json!({"snat": false})];
        for ((pod, settings), port) in pods.iter().zip(settings).zip([81, 82]) {
            let mut config = site.config(json!([mapping(port, "tcp", "")]));
            config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            config["backend"] = backend.into();
            site.node.run("ADD", pod, &config, &[]).result();
            serve(pod);
        }
        assert_eq!(ask(&site.client, "192.0.2.1:81").unwrap(), "all 10.244.1.1", "{backend}");
        assert_eq!(ask(&site.client, "[2001:db8::1]:81").unwrap(), "all fd44:0:0:1::1", "{backend}");
        assert_eq!(ask(&site.node.netns, "127.0.0.1:81").unwrap(), "all 10.244.1.1", "{backend}");
        assert_eq!(ask(&site.client, "192.0.2.1:82").unwrap(), "never 192.0.2.2", "{backend}");
        assert_eq!(ask(&site.client, "[2001:db8::1]:82").unwrap(), "never 2001:db8::2", "{backend}");
        assert_eq!(ask(&site.node.netns, "127.0.0.1:82"), None, "{backend}");
    }
}

/// The later pod has the port, and the earlier gets it back.
#[test]
fn section_8_two_pods_with_one_port() {
    let site = Site::new();
    let pods = [Pod::new("old"), Pod::new("new")];
    let mappings = json!([mapping(80, "tcp", "")]);
    let results = pods.each_ref().map(|pod| {
        let result = site.add(pod, mappings.clone());
        serve(pod);
        result
    });
    let served = || ask(&site.client, "192.0.2.1:80").map(|text| text.split(' ').next().unwrap().to_owned());
    assert_eq!(served().unwrap(), "new");
    assert_eq!(site.check(&pods[0], mappings.clone(), &results[0]).error().0, 104);
    assert!(site.check(&pods[1], mappings.clone(), &results[1]).success);
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(served().unwrap(), "old");
    assert!(site.check(&pods[0], mappings, &results[0]).success);
    // A late DEL of the other takes nothing away (D4).
    assert!(site.node.del(&pods[1]).success);
    assert_eq!(served().unwrap(), "old");
    assert!(site.node.del(&pods[0]).success);
    assert_nothing_left(&site);
}

/// A client that sent before the pod was there, and goes on, reaches it; and the next pod after it.
#[test]
fn section_8_udp_flows_follow_the_rules() {
    let site = Site::new();
    let socket = udp(&site.client, NOT_LONG);
    // Something else that is translated, so that conntrack is on.
    let earlier = Pod::new("earlier");
    site.add(&earlier, json!([mapping(54, "udp", "")]));
    assert_eq!(ask_udp(&socket, "192.0.2.1:53"), None);
    for name in ["first", "second"] {
        let pod = Pod::new(name);
        site.add(&pod, json!([mapping(53, "udp", "")]));
        serve(&pod);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(ask_udp(&socket, "192.0.2.1:53").unwrap(), format!("{name} 192.0.2.2"));
        assert!(site.node.del(&pod).success);
        socket.set_read_timeout(Some(NOT_LONG)).unwrap();
        assert_eq!(ask_udp(&socket, "192.0.2.1:53"), None);
    }
}

#[test]
fn section_8_c1_check_looks_at_the_rules() {
    let site = Site::new();
    let pod = Pod::new("web");
    let mappings = json!([mapping(80, "tcp", "")]);
    let mut result = site.add(&pod, mappings.clone());
    let damages = [
        "delete element inet weft-hostports any4 { tcp . 80 }",
        "delete element inet weft-hostports hairpin6 { fd44:0:0:1::2 . fd44:0:0:1::2 . tcp . 8080 }",
        "delete element inet weft-hostports claims6 { :: . tcp . 80 . fd44:0:0:1::2 . 8080 }",
        "flush chain inet weft-hostports prerouting",
        "flush table inet weft-hostports",
        "delete table inet weft-hostports",
    ];
    for (number, damage) in damages.iter().enumerate() {
        assert!(site.check(&pod, mappings.clone(), &result).success, "{damage}");
        let nft = || Command::new("nft").arg(damage).output().unwrap();
        let output = site.node.netns.run(nft).unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(site.check(&pod, mappings.clone(), &result).error().0, 104, "{damage}");
        // Whichever pod comes next repairs what is there for all: all but what has lost its claim.
        let next = Pod::new(&format!("next{number}"));
        site.add(&next, json!([mapping(81, "tcp", "")]));
        let lost_claim = damage.contains("claims") || damage.starts_with("delete table");
        assert_eq!(site.check(&pod, mappings.clone(), &result).success, !lost_claim, "{damage}");
        assert!(site.node.del(&next).success);
        if lost_claim {
            assert!(site.node.del(&pod).success);
            result = site.node.run("ADD", &pod, &site.config_at(&result, &mappings), &[]).result();
        }
    }
    let parameter = format!("net/ipv4/conf/{}/route_localnet", result["interfaces"][0]["name"].as_str().unwrap());
    assert!(site.check(&pod, mappings.clone(), &result).success);
    site.node.netns.run(|| sysctl::set(&parameter, "0").unwrap()).unwrap();
    let (code, message) = site.check(&pod, mappings, &result).error();
    assert!(code == 104 && message.contains("route_localnet"), "{message}");
}

#[test]
fn section_8_g2_gc_removes_the_ports_of_pods_that_are_gone() {
    let site = Site::new();
    let pods = [Pod::new("kept"), Pod::new("gone")];
    for (pod, port) in pods.iter().zip([80, 81]) {
        site.add(pod, json!([mapping(port, "tcp", "")]));
        serve(pod);
    }
    let mut other = site.config(json!([mapping(82, "tcp", "")]));
    other["name"] = json!("other");
    site.node.run("ADD", &pods[1], &other, &[("CNI_IFNAME", "net1")]).result();
    assert!(site.node.gc(&[("kept", "eth0")]).success);
    assert!(ask(&site.client, "192.0.2.1:80").is_some());
    let ruleset = rules(&site.node.netns);
    assert!(!ruleset.contains("tcp . 81") && ruleset.contains("tcp . 82"), "{ruleset}");
}

#[test]
fn section_8_mistakes_are_refused_and_undone_and_do_not_hinder_del() {
    let site = Site::new();
    let pod = Pod::new("web");
    for mappings in [json!([mapping(0, "tcp", "")]), json!([mapping(80, "icmp", "")]), json!(7)] {
        let config = site.config(mappings);
        assert!(matches!(site.node.run("ADD", &pod, &config, &[]).error().0, 6 | 7));
        assert_nothing_left(&site);
        assert!(site.node.run("DEL", &pod, &config, &[]).success);
    }
    for mappings in [json!(null), json!([])] {
        site.add(&pod, mappings);
        assert_eq!(rules(&site.node.netns), "");
        assert!(site.node.del(&pod).success);
    }
}

/// What cannot be written or locked does not keep DEL from what it can do.
#[test]
fn section_8_d3_the_rules_go_whatever_becomes_of_the_files() {
    let (site, pod) = (Site::new(), Pod::new("web"));
    site.add(&pod, json!([mapping(80, "tcp", "")]));
    let lock = site.node.directory().join("networks/.hostports/lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    assert_eq!(site.node.del(&pod).error().0, 5);
    assert_eq!(rules(&site.node.netns), "");
    assert!(site.node.reserved().is_empty() && pod.netlink().link_by_name("eth0").unwrap().is_none());
    fs::remove_dir(&lock).unwrap();
    assert!(site.node.del(&pod).success);
    assert_nothing_left(&site);
}
