//! What is in the tables, and whose it is.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use weft_proxy::{
    dataplane::{Changed, DataPlane},
    iptables::{Iptables, Variant, remove_kube_proxy_rules},
    model::{IpFamily, Protocol, ServiceName},
    plan::{Frontend, LocalTraffic, Outcome, PacketSettings},
};

use crate::{
    BOTH,
    node::{ALL, NODE_PORT, Node, cluster_ip, endpoints, node_port, pick, pod, vip, web},
    node_with, plane, settings,
};

/// Services with everything that makes a rule of its own kind.
fn put_every_kind(node: &mut Node<Iptables>) {
    for (index, (protocol, family)) in ALL.into_iter().chain([(Protocol::Sctp, IpFamily::V4)]).enumerate() {
        let mut plan = web(protocol, family, &[2, 3, 4]);
        plan.frontends = vec![
            Frontend::ClusterIp(cluster_ip(family)),
            Frontend::LoadBalancer(vip(family)),
            Frontend::NodePort(NODE_PORT),
        ];
        let range = pick(family, ["192.0.2.0/24", "2001:db8::/32"]);
        plan.source_ranges = vec![range.parse().expect("a network")];
        plan.affinity = (index % 2 == 0).then_some(Duration::from_secs(10_800));
        plan.external = endpoints(family, &[2]);
        plan.masquerade_external = index % 2 == 1;
        node.put(&plan);
        let at = |last: u16| SocketAddr::new(vip(family).ip(), last);
        for (port, outcome) in [(81, Outcome::Reject), (82, Outcome::Drop)] {
            plan.key.port.service = ServiceName::new("default", format!("refused-{port}"));
            plan.frontends = vec![
                Frontend::ClusterIp(SocketAddr::new(cluster_ip(family).ip(), port)),
                Frontend::LoadBalancer(at(port)),
                Frontend::NodePort(NODE_PORT + port),
            ];
            for each in [&mut plan.internal, &mut plan.external, &mut plan.external_from_node] {
                *each = outcome.clone();
            }
            node.put(&plan);
        }
    }
}

#[test]
fn a_restart_leaves_every_kind_of_rule_as_it_is() {
    let all_settings = [
        settings(),
        PacketSettings { masquerade_all: true, masquerade_bit: 3, localhost_node_ports: false, ..settings() },
        PacketSettings { local_traffic: LocalTraffic::Interface("pods0".into()), ..settings() },
        PacketSettings { local_traffic: LocalTraffic::InterfacePrefix("pods".into()), ..settings() },
    ];
    for settings in all_settings {
        let plane = |variant| Iptables::with_variant(settings.clone(), variant).unwrap();
        let mut legacy = Node::new(plane(Variant::Legacy));
        put_every_kind(&mut legacy);
        let mut node = Node::new(plane(Variant::Nft));
        put_every_kind(&mut node);
        // With handles: a rule that is written again has another one.
        let before = node.net.nft("-a list ruleset");
        node.restart(plane(Variant::Nft));
        assert_eq!(node.net.nft("-a list ruleset"), before);
        // So a restart of the legacy variant, which prints the same, finds nothing to write either.
        let sorted = |node: &Node<Iptables>, variant| {
            let rules = node.rules(variant);
            let mut lines: Vec<String> = rules.lines().map(str::to_owned).collect();
            lines.retain(|line| line.starts_with("-A"));
            lines.sort_unstable();
            lines
        };
        let strip_turns =
            |lines: Vec<String>| lines.into_iter().filter(|line| !line.contains("--packet")).collect::<Vec<_>>();
        assert_eq!(strip_turns(sorted(&legacy, Variant::Legacy)), strip_turns(sorted(&node, Variant::Nft)));
    }
}

#[test]
fn a_restart_brings_what_changed_meanwhile() {
    for variant in BOTH {
        let mut node = node_with(variant);
        put_every_kind(&mut node);
        node.desired.ports.clear();
        let plan = web(Protocol::Tcp, IpFamily::V4, &[3]);
        node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
        node.restart(plane(variant));
        assert_eq!(node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap().pod, pod(IpFamily::V4, 3));
        let error = node.ask(Protocol::Udp, node_port(IpFamily::V4)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "nobody listens on the node itself");
        let seps = node.rules(variant).lines().filter(|line| line.starts_with(":KUBE-SEP-")).count();
        assert_eq!(seps, 1, "{variant:?}");
    }
}

#[test]
fn foreign_flushes_are_noticed_and_repaired() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
        assert!(node.is_intact());
        let before = node.rules(variant);
        for sabotage in [
            "-F",
            "-t nat -F",
            "-t nat -F KUBE-SERVICES",
            "-t nat -F KUBE-MARK-MASQ",
            "-t nat -D POSTROUTING 1",
            "-t nat -D OUTPUT 1",
            "-D FORWARD 2",
        ] {
            node.iptables(variant, sabotage);
            assert!(node.notices_within_a_second(), "{variant:?} {sabotage}");
            node.apply(&Changed::Everything);
            assert_eq!(node.rules(variant), before, "{variant:?} {sabotage}");
            assert!(node.is_intact(), "{variant:?} {sabotage}");
            node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();
        }
    }
}

#[test]
fn foreign_rules_are_not_touched() {
    for variant in BOTH {
        let mut node = Node::new(plane(variant));
        node.cleanup();
        for rule in [
            "-t nat -N CNI-HOSTPORT",
            "-t nat -A PREROUTING -j CNI-HOSTPORT",
            "-t nat -A CNI-HOSTPORT -p tcp --dport 9 -j DNAT --to-destination 10.244.1.9:80",
            "-N KUBE-ROUTER-INPUT",
            "-A FORWARD -i pods0 -j ACCEPT",
            "-t mangle -N KUBE-KUBELET-CANARY",
        ] {
            node.iptables(variant, rule);
        }
        let before = node.rules(variant);
        node.apply(&Changed::Everything);
        put_every_kind(&mut node);
        assert_ne!(node.rules(variant), before);
        node.cleanup();
        node.cleanup();
        let without = |rules: String| {
            let kubelets = |line: &&str| line.contains("KUBE-FIREWALL");
            rules.lines().filter(|line| !kubelets(line)).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(without(node.rules(variant)), without(before), "{variant:?}");
    }
}

#[test]
fn the_variant_in_use_is_found() {
    for variant in BOTH {
        let mut node = Node::new(plane(variant));
        node.cleanup();
        node.iptables(variant, "-t mangle -N KUBE-IPTABLES-HINT");
        node.restart(Iptables::new(settings()));
        assert!(node.rules(variant).contains(":KUBE-SERVICES"), "{variant:?}");
        let other = BOTH.into_iter().find(|other| *other != variant).unwrap();
        assert!(!node.rules(other).contains(":KUBE-SERVICES"), "{other:?}");
    }
}

#[test]
fn a_variant_that_is_no_longer_in_use_is_left_clean() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
        let other = BOTH.into_iter().find(|other| *other != variant).unwrap();
        node.iptables(other, "-t mangle -N KUBE-KUBELET-CANARY");
        node.restart(Iptables::new(settings()));
        assert!(!node.rules(variant).contains("KUBE-SERVICES"), "{variant:?}");
        assert!(node.rules(other).contains("KUBE-SERVICES"), "{other:?}");
        node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();
    }
}

#[test]
fn a_kube_proxys_rules_stay_until_somebody_says_so() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.cleanup();
        for rule in [
            "-t nat -N KUBE-SERVICES",
            "-t nat -N KUBE-SVC-AAAAAAAAAAAAAAAA",
            "-t nat -A PREROUTING -j KUBE-SERVICES",
            "-t nat -A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA",
            "-t mangle -N KUBE-PROXY-CANARY",
            // kubelet's (12.7), as is KUBE-FIREWALL, which is there already.
            "-t mangle -N KUBE-KUBELET-CANARY",
            "-t nat -N KUBE-MARK-DROP",
        ] {
            node.iptables(variant, rule);
        }
        let before = node.rules(variant);
        node.cleanup();
        assert_eq!(node.rules(variant), before, "{variant:?}: not ours");
        node.net.node.run(|| remove_kube_proxy_rules().unwrap()).unwrap();
        let left = node.rules(variant);
        let gone = ["KUBE-SERVICES", "KUBE-SVC", "KUBE-PROXY"].into_iter().all(|name| !left.contains(name));
        assert!(gone, "{variant:?}: {left}");
        let kubelets = ["-KUBELET-CANARY", ":KUBE-MARK-DROP", ":KUBE-FIREWALL", "-A INPUT -j KUBE-FIREWALL"];
        assert!(kubelets.into_iter().all(|name| left.contains(name)), "{variant:?}: {left}");
    }
}

#[test]
fn a_kube_proxy_that_is_to_stay_keeps_us_away() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.cleanup();
        node.iptables(variant, "-t nat -N KUBE-SERVICES");
        let before = node.rules(variant);
        let mut plane = Iptables::new(settings()).sparing_kube_proxy();
        let Node { net, desired, .. } = &mut node;
        let error = net.node.run(|| plane.apply(desired, &Changed::Everything)).unwrap().unwrap_err();
        assert!(error.source.to_string().contains("--take-over-kube-proxy"), "{error}: {}", error.source);
        assert_eq!(node.rules(variant), before, "{variant:?}");
        node.iptables(variant, "-t nat -X KUBE-SERVICES");
        let Node { net, desired, .. } = &mut node;
        net.node.run(|| plane.apply(desired, &Changed::Everything)).unwrap().unwrap();
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    let mut node = node_with(Variant::Nft);
    // A chain of ours in the way, as a rule of somebody else refers to it.
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
    let rules = node.rules(Variant::Nft);
    let chain = rules.lines().find_map(|line| line.strip_prefix(":KUBE-EXT-")).unwrap().split(' ').next().unwrap();
    node.iptables(Variant::Nft, "-t nat -N FOREIGN");
    node.iptables(Variant::Nft, &format!("-t nat -A FOREIGN -j KUBE-EXT-{chain}"));
    node.desired.ports.clear();
    let Node { net, plane, desired } = &mut node;
    let error = net.node.run(|| plane.apply(desired, &Changed::Everything)).unwrap().unwrap_err();
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    assert!(text.contains(&format!("`-X KUBE-EXT-{chain}`")), "{text}");
}
