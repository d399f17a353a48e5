//! Section 10 as tables. `rule_10_4` tests rule 10.4.

use std::{net::SocketAddr, time::Duration};

use weft_netlink::{ConntrackEntry, ConntrackTuple};

use super::{ConntrackParameters, Parameter, Setting, parameters::count_cpus, plan, settings};
use crate::{
    model::{IpFamily, Protocol, ServiceName, ServicePortName},
    plan::{Frontend, PlanKey, UdpFlows},
};

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with port")
}

/// An entry written as `17 10.96.0.10:53 -> 10.1.0.1:5353`: protocol, original destination, where answers come from.
fn entry(text: &str) -> ConntrackEntry {
    let (protocol, rest) = text.split_once(' ').expect("a protocol");
    let (destination, answering) = rest.split_once(" -> ").expect("an arrow");
    let client = at(if destination.starts_with('[') { "[fd01::9]:4000" } else { "10.1.0.9:4000" });
    ConntrackEntry {
        protocol: protocol.parse().expect("a number"),
        original: ConntrackTuple { source: client, destination: at(destination) },
        reply: ConntrackTuple { source: at(answering), destination: client },
        zone: 0,
        status: 0,
        id: Some(1),
    }
}

struct Port {
    key: PlanKey,
    frontends: Vec<Frontend>,
    serving: Vec<SocketAddr>,
}

/// ClusterIP 10.96.0.10, externalIP 192.0.2.1, VIP 203.0.113.1, all at 53, and node port 30053.
fn dns(serving: &[&str]) -> Port {
    let frontends = vec![
        Frontend::ClusterIp(at("10.96.0.10:53")),
        Frontend::ExternalIp(at("192.0.2.1:53")),
        Frontend::LoadBalancer(at("203.0.113.1:53")),
        Frontend::NodePort(30053),
    ];
    port("dns", frontends, serving)
}

fn port(name: &str, frontends: Vec<Frontend>, serving: &[&str]) -> Port {
    let port = ServicePortName { service: ServiceName::new("default", name), port: "".into(), protocol: Protocol::Udp };
    let mut serving: Vec<_> = serving.iter().map(|text| at(text)).collect();
    serving.sort_unstable();
    Port { key: PlanKey { port, family: IpFamily::V4 }, frontends, serving }
}

/// Which of these entries are deleted.
fn deleted(ports: &[Port], entries: &[&str]) -> Vec<String> {
    let flows =
        ports.iter().map(|port| UdpFlows { key: &port.key, frontends: &port.frontends, serving: &port.serving });
    let deletions = plan(flows, entries.iter().map(|text| entry(text)));
    let text = |e: &ConntrackEntry| format!("{} {} -> {}", e.protocol, e.original.destination, e.reply.source);
    deletions.iter().map(text).collect()
}

const SERVING: &[&str] = &["10.1.0.1:5353", "10.1.0.2:5353"];

#[test]
fn rule_10_2_entries_of_every_frontend_that_lead_elsewhere() {
    for frontend in ["10.96.0.10:53", "192.0.2.1:53", "203.0.113.1:53", "172.18.0.7:30053", "198.51.100.9:30053"] {
        let good = SERVING.iter().map(|endpoint| format!("17 {frontend} -> {endpoint}"));
        let stale = format!("17 {frontend} -> 10.1.0.3:5353");
        let entries: Vec<_> = good.chain([stale.clone()]).collect();
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        assert_eq!(deleted(&[dns(SERVING)], &entries), [stale]);
    }
}

#[test]
fn rule_10_2_other_traffic_stays() {
    let entries = [
        "17 10.96.0.10:54 -> 10.1.0.3:5353",
        "17 10.96.0.11:53 -> 10.1.0.3:5353",
        "17 10.1.0.3:5353 -> 10.1.0.3:5353",
        "17 8.8.8.8:53 -> 8.8.8.8:53",
    ];
    assert!(deleted(&[dns(SERVING)], &entries).is_empty());
}

#[test]
fn rule_10_2_in_ipv6() {
    let dns =
        port("dns", vec![Frontend::ClusterIp(at("[fd96::10]:53")), Frontend::NodePort(30053)], &["[fd01::1]:5353"]);
    let entries = [
        "17 [fd96::10]:53 -> [fd01::1]:5353",
        "17 [fd96::10]:53 -> [fd01::2]:5353",
        "17 [2001:db8::1]:30053 -> [fd01::1]:5353",
        "17 [2001:db8::1]:30053 -> [fd01::2]:5353",
    ];
    assert_eq!(deleted(&[dns], &entries), [entries[1], entries[3]]);
}

#[test]
fn an_address_with_the_number_of_a_node_port_goes_before_it() {
    let other = port("other", vec![Frontend::ClusterIp(at("10.96.0.11:30053"))], &["10.1.0.7:7"]);
    let nobody = port("nobody", vec![Frontend::ClusterIp(at("10.96.0.12:30053"))], &[]);
    let entries = [
        "17 10.96.0.11:30053 -> 10.1.0.7:7",
        "17 10.96.0.11:30053 -> 10.1.0.1:5353",
        "17 10.96.0.12:30053 -> 10.1.0.3:5353",
    ];
    assert_eq!(deleted(&[dns(SERVING), other, nobody], &entries), [entries[1]]);
}

#[test]
fn rule_10_4_another_port_of_the_same_address_is_stale() {
    let entries = ["17 10.96.0.10:53 -> 10.1.0.1:5300"];
    assert_eq!(deleted(&[dns(SERVING)], &entries), entries);
}

#[test]
fn rule_10_5_entries_that_were_never_translated_are_stale() {
    let entries = ["17 10.96.0.10:53 -> 10.96.0.10:53", "17 172.18.0.7:30053 -> 172.18.0.7:30053"];
    assert_eq!(deleted(&[dns(SERVING)], &entries), entries);
}

#[test]
fn rule_10_6_without_serving_endpoints_or_service_nothing_is_deleted() {
    let entries = ["17 10.96.0.10:53 -> 10.1.0.3:5353", "17 172.18.0.7:30053 -> 10.1.0.3:5353"];
    assert!(deleted(&[dns(&[])], &entries).is_empty());
    assert!(deleted(&[], &entries).is_empty());
}

#[test]
fn rule_10_7_tcp_and_sctp_are_never_touched() {
    let entries = ["6 10.96.0.10:53 -> 10.1.0.3:5353", "132 172.18.0.7:30053 -> 10.1.0.3:5353"];
    assert!(deleted(&[dns(SERVING)], &entries).is_empty());
}

/// `nf_conntrack_max=1 hashsize=2`
fn shown(settings: &[Setting]) -> String {
    let text = settings.iter().map(|setting| match setting.parameter {
        Parameter::Sysctl(name) => format!("{}={}", name.rsplit('/').next().unwrap_or(name), setting.value),
        Parameter::HashSize => format!("hashsize={}", setting.value),
    });
    text.collect::<Vec<_>>().join(" ")
}

#[test]
fn rule_10_10_size_of_the_table() {
    for (max_per_core, min, cpus, expected) in [
        (32_768, 131_072, 2, "nf_conntrack_max=131072 hashsize=32768"),
        (32_768, 131_072, 8, "nf_conntrack_max=262144 hashsize=65536"),
        (32_768, 131_072, 32, "nf_conntrack_max=1048576 hashsize=262144"),
        (32_768, 131_072, 256, "nf_conntrack_max=1048576 hashsize=262144"),
        (32_768, 2_000_000, 2, "nf_conntrack_max=2000000 hashsize=500000"),
        (32_768, 2_000_000, 256, "nf_conntrack_max=1048576 hashsize=262144"),
        (u32::MAX, 0, u32::MAX, "nf_conntrack_max=1048576 hashsize=262144"),
        (0, 131_072, 8, ""),
    ] {
        let asked = ConntrackParameters {
            max_per_core,
            min,
            tcp_established_timeout: Duration::ZERO,
            tcp_close_wait_timeout: Duration::ZERO,
            ..ConntrackParameters::default()
        };
        assert_eq!(shown(&settings(&asked, cpus)), expected, "{max_per_core} {min} {cpus}");
    }
}

#[test]
fn rule_10_10_time_outs_and_liberality() {
    let size_alone = ConntrackParameters { max_per_core: 0, ..ConntrackParameters::default() };
    let defaults = "nf_conntrack_tcp_timeout_established=86400 nf_conntrack_tcp_timeout_close_wait=3600";
    assert_eq!(shown(&settings(&size_alone, 1)), defaults);
    let all = ConntrackParameters {
        tcp_be_liberal: true,
        udp_timeout: Duration::from_secs(10),
        udp_stream_timeout: Duration::from_secs(60),
        ..size_alone
    };
    let more = "nf_conntrack_udp_timeout=10 nf_conntrack_udp_timeout_stream=60 nf_conntrack_tcp_be_liberal=1";
    assert_eq!(shown(&settings(&all, 1)), format!("{defaults} {more}"));
}

#[test]
fn rule_10_10_only_what_differs_is_written() {
    let sysctl = Setting { parameter: Parameter::Sysctl("x"), value: 5 };
    assert!(sysctl.differs_from(4) && !sysctl.differs_from(5) && sysctl.differs_from(6));
    let hash_size = Setting { parameter: Parameter::HashSize, value: 5 };
    assert!(hash_size.differs_from(4) && !hash_size.differs_from(5) && !hash_size.differs_from(6));
}

#[test]
fn cpus_are_counted_from_the_kernels_list() {
    for (list, count) in [
        ("0", Some(1)),
        ("0-3", Some(4)),
        ("0-3,5", Some(5)),
        ("0,2,4-7", Some(6)),
        ("", None),
        ("3-0", None),
        ("0-4294967295", None),
        ("a-b", None),
    ] {
        assert_eq!(count_cpus(list), count, "{list:?}");
    }
}
