use std::{sync::Arc, time::Duration};

use weft_proxy::{
    live::Client,
    model::{ServiceName, ServicePortName},
    plan::{LocalTraffic, PlanKey},
};

use super::*;

const POD: &str = "10.244.1.7";
const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "203.0.113.9";

fn endpoints(list: &[(&str, bool)]) -> Outcome {
    let endpoint =
        |(address, local): &(&str, bool)| Endpoint { address: address.parse().unwrap(), port: 8080, local: *local };
    Outcome::Endpoints(list.iter().map(endpoint).collect())
}

/// `web`: policy Local outside, with a NodePort, an external IP, and a load balancer for some sources only.
fn web() -> ServicePortPlan {
    let port =
        ServicePortName { service: ServiceName::new("default", "web"), port: "http".into(), protocol: Protocol::Tcp };
    let all = endpoints(&[("10.244.1.2", true), ("10.244.2.2", false)]);
    ServicePortPlan {
        key: PlanKey { port, family: IpFamily::V4 },
        frontends: vec![
            Frontend::ClusterIp("10.96.0.10:80".parse().unwrap()),
            Frontend::ExternalIp("198.51.100.1:80".parse().unwrap()),
            Frontend::LoadBalancer("198.51.100.2:80".parse().unwrap()),
            Frontend::NodePort(30080),
        ],
        internal: all.clone(),
        external: endpoints(&[("10.244.1.2", true)]),
        external_from_node: all,
        masquerade_external: false,
        affinity: Some(Duration::from_secs(10)),
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        health_check_port: None,
    }
}

fn desired(plan: ServicePortPlan) -> Desired {
    Desired { ports: [(plan.key.clone(), Arc::new(plan))].into(), node_port_addresses: [NODE.parse().unwrap()].into() }
}

fn rules(mode: Mode) -> Rules {
    let local_traffic = LocalTraffic::Cidrs { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None };
    Rules { mode, second_line: true, packets: PacketSettings { local_traffic, ..PacketSettings::default() } }
}

fn probe(from: &str, to: &str) -> Probe {
    let destination: SocketAddr = to.parse().unwrap();
    Probe {
        client: Client {
            address: from.parse().unwrap(),
            interface: (from != NODE).then(|| if from == POD { "veth1" } else { "eth0" }.to_owned()),
            at_socket: from != OUTSIDE,
            of_node: from == NODE,
            netns_cookie: None,
        },
        to_node: destination.ip().is_loopback() || destination.ip() == NODE.parse::<IpAddr>().unwrap(),
        destination,
        protocol: Protocol::Tcp,
    }
}

/// `2 masq`: two endpoints, masqueraded.
fn said(desired: &Desired, rules: &Rules, from: &str, to: &str) -> String {
    let decision = Index::new(desired).decide(&probe(from, to), rules);
    let fate = match &decision.fate {
        Fate::Endpoints(endpoints) => endpoints.len().to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    if decision.masquerade { format!("{fate} masq") } else { fate }
}

#[test]
fn every_client_and_frontend_in_every_mode() {
    use Mode::{Ebpf, Iptables, Nftables};
    let table = [
        // Sockets mind neither policy Local (3.5, 3.6) nor masquerading.
        (Ebpf, POD, "10.96.0.10:80", "2"),
        (Ebpf, NODE, "10.96.0.10:80", "2"),
        (Ebpf, POD, "192.0.2.1:30080", "2"),
        (Ebpf, NODE, "127.0.0.1:30080", "2"),
        (Ebpf, NODE, "127.0.0.2:30080", "untouched"),
        (Ebpf, POD, "127.0.0.1:30080", "untouched"),
        (Ebpf, OUTSIDE, "192.0.2.1:30080", "1"),
        // Packets: the source decides (8.1, 3.5, 8.6).
        (Nftables, POD, "10.96.0.10:80", "2"),
        (Nftables, NODE, "10.96.0.10:80", "2 masq"),
        (Nftables, OUTSIDE, "10.96.0.10:80", "2 masq"),
        (Nftables, POD, "192.0.2.1:30080", "2"),
        (Nftables, NODE, "192.0.2.1:30080", "2 masq"),
        (Nftables, OUTSIDE, "192.0.2.1:30080", "1"),
        (Nftables, OUTSIDE, "198.51.100.1:80", "1"),
        (Nftables, NODE, "127.0.0.9:30080", "2 masq"),
        (Iptables, NODE, "127.0.0.9:30080", "2 masq"),
        // Source ranges are of the load balancer's address only (9.6), and never the sockets' business.
        (Ebpf, POD, "198.51.100.2:80", "drop"),
        (Nftables, OUTSIDE, "198.51.100.2:80", "1"),
        (Nftables, POD, "198.51.100.2:80", "drop"),
        // Other ports of a ClusterIP (9.10).
        (Nftables, POD, "10.96.0.10:81", "reject"),
        (Ebpf, POD, "10.96.0.10:81", "reject"),
        (Iptables, POD, "10.96.0.10:81", "reject"),
        // Nobody's.
        (Nftables, POD, "192.0.2.1:30081", "untouched"),
        (Nftables, POD, "192.0.2.2:30080", "untouched"),
    ];
    let desired = desired(web());
    for (mode, from, to, expected) in table {
        assert_eq!(said(&desired, &rules(mode), from, to), expected, "{mode:?} {from} to {to}");
    }
}

#[test]
fn nobody_to_serve_is_refused_or_dropped() {
    let mut plan = web();
    plan.external = Outcome::Drop;
    let local = desired(plan.clone());
    for mode in [Mode::Ebpf, Mode::Nftables, Mode::Iptables] {
        assert_eq!(said(&local, &rules(mode), OUTSIDE, "192.0.2.1:30080"), "drop", "{mode:?}");
        assert!(said(&local, &rules(mode), POD, "192.0.2.1:30080").starts_with('2'), "3.5, {mode:?}");
    }
    (plan.internal, plan.external, plan.external_from_node) = (Outcome::Reject, Outcome::Reject, Outcome::Reject);
    let empty = desired(plan);
    for mode in [Mode::Ebpf, Mode::Nftables, Mode::Iptables] {
        for (from, to) in [(POD, "10.96.0.10:80"), (NODE, "192.0.2.1:30080"), (OUTSIDE, "192.0.2.1:30080")] {
            assert_eq!(said(&empty, &rules(mode), from, to), "reject", "{mode:?} {from} to {to}");
        }
    }
    assert_eq!(said(&empty, &rules(Mode::Nftables), NODE, "127.0.0.1:30080"), "untouched", "6.7");
}

#[test]
fn policy_cluster_masquerades_all_that_comes_by_an_external_address() {
    let plan = ServicePortPlan { masquerade_external: true, external: web().external_from_node, ..web() };
    let desired = desired(plan);
    for from in [POD, OUTSIDE] {
        assert_eq!(said(&desired, &rules(Mode::Nftables), from, "192.0.2.1:30080"), "2 masq", "{from}");
    }
    assert_eq!(said(&desired, &rules(Mode::Ebpf), POD, "192.0.2.1:30080"), "2");
}

#[test]
fn settings_of_the_node_count() {
    let desired = desired(web());
    let all = rules(Mode::Nftables);
    let all = Rules { packets: PacketSettings { masquerade_all: true, ..all.packets.clone() }, ..all };
    assert_eq!(said(&desired, &all, POD, "10.96.0.10:80"), "2 masq", "8.4");
    let unknown = Rules { packets: PacketSettings::default(), ..rules(Mode::Nftables) };
    assert_eq!(said(&desired, &unknown, NODE, "10.96.0.10:80"), "2", "8.3");
    assert_eq!(said(&desired, &unknown, POD, "192.0.2.1:30080"), "1", "a pod that nobody can tell from others");
    let off = Rules { second_line: false, ..rules(Mode::Ebpf) };
    assert_eq!(said(&desired, &off, OUTSIDE, "10.96.0.10:80"), "reject");
    assert_eq!(said(&desired, &off, POD, "10.96.0.10:80"), "2", "sockets are the first line");
}

#[test]
fn the_answer_names_frontend_and_rule() {
    let desired = desired(web());
    let index = Index::new(&desired);
    let decision = index.decide(&probe(OUTSIDE, "192.0.2.1:30080"), &rules(Mode::Ebpf));
    let (plan, frontend) = decision.frontend.unwrap();
    assert_eq!((plan.key.to_string().as_str(), frontend), ("default/web:http/TCP IPv4", Frontend::NodePort(30080)));
    assert_eq!(decision.rule, "external traffic policy Local: 1 endpoint");
    assert_eq!(index.service("default/web").count(), 1);
    assert_eq!(index.service("default/other").count(), 0);
}
