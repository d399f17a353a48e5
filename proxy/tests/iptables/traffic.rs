//! What clients see.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use weft_proxy::{
    iptables::Iptables,
    model::{IpFamily, Protocol, ServiceName},
    plan::{Frontend, LocalTraffic, Outcome, PacketSettings},
};

use crate::{
    BOTH,
    node::{
        ALL, CLIENT, NODE_POD_SIDE, NODE_PORT, Node, ask, ask_from, cluster_ip, endpoints, node_port, pick, pod, vip,
        web,
    },
    node_with, plane,
    support::{PATIENCE, ask_udp, assert_no_connection_fails, enter},
};

/// Long enough for a packet on this machine, too short for a TCP client to try again.
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn node_port_is_in_exact_round_robin_for_four_clients_at_once() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let plan = web(protocol, family, &[2, 3, 4]);
            node.put(&plan);
            let pods: Vec<IpAddr> = thread::scope(|scope| {
                let client = || {
                    let _netns = enter(&node.net.client);
                    let answer = |_| ask(protocol, node_port(family), PATIENCE).unwrap().pod;
                    (0..150).map(answer).collect::<Vec<_>>()
                };
                let clients = [(); 4].map(|()| scope.spawn(client));
                clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
            });
            let mut answers: BTreeMap<IpAddr, u32> = BTreeMap::new();
            for pod in pods {
                *answers.entry(pod).or_default() += 1;
            }
            assert_eq!(
                answers,
                [2, 3, 4].map(|last| (pod(family, last), 200)).into(),
                "{variant:?} {protocol} {family}"
            );
            assert_eq!(node.connections(&plan.key), [200, 200, 200], "{variant:?} {protocol} {family}");
        }
    }
}

#[test]
fn the_round_goes_on_while_other_services_change() {
    for variant in BOTH {
        let mut node = node_with(variant);
        let (tcp, family) = (Protocol::Tcp, IpFamily::V4);
        let plan = web(tcp, family, &[2, 3, 4]);
        node.put(&plan);
        let mut other = web(tcp, family, &[2]);
        other.key.port.service = ServiceName::new("default", "other");
        other.frontends = vec![Frontend::NodePort(30081)];
        for connection in 0..12 {
            let expected = pod(family, 2 + connection % 3);
            assert_eq!(node.ask(tcp, node_port(family)).unwrap().pod, expected, "{variant:?} {connection}");
            let pods: &[u8] = if connection % 2 == 0 { &[3, 4] } else { &[2] };
            other.external = endpoints(family, pods);
            other.external_from_node = other.external.clone();
            node.put(&other);
        }
        node.restart(plane(variant));
        assert_eq!(node.ask(tcp, node_port(family)).unwrap().pod, pod(family, 2), "{variant:?}: a restart");
        assert_eq!(node.connections(&plan.key), [5, 4, 4], "{variant:?}");
    }
}

#[test]
fn who_is_masqueraded_and_who_is_not() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2]);
            let seen = |node: &Node<Iptables>, to| node.ask(protocol, to).unwrap().source.to_string();
            node.put(&plan);
            assert_eq!(
                seen(&node, node_port(family)),
                pick(family, NODE_POD_SIDE),
                "8.5 {variant:?} {protocol} {family}"
            );
            assert_eq!(seen(&node, cluster_ip(family)), pick(family, NODE_POD_SIDE), "8.2");
            plan.masquerade_external = false;
            node.put(&plan);
            assert_eq!(seen(&node, node_port(family)), pick(family, CLIENT), "8.6");
            let from_node = ask_from(&node.net.node, protocol, node_port(family)).unwrap();
            assert_eq!(from_node.source.to_string(), pick(family, NODE_POD_SIDE), "8.6: the node itself");
        }
    }
}

#[test]
fn all_frontends_are_balanced_from_everywhere() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            for external in [Frontend::ExternalIp(vip(family)), Frontend::LoadBalancer(vip(family))] {
                let mut plan = web(protocol, family, &[3, 4]);
                plan.frontends.insert(1, external);
                node.put(&plan);
                for to in [cluster_ip(family), vip(family), node_port(family)] {
                    for from in [&node.net.node, &*node.net.client] {
                        let pods = [(); 4].map(|()| ask_from(from, protocol, to).unwrap().pod);
                        assert_ne!(pods[0], pods[1], "{variant:?} {protocol} {to}");
                        assert_eq!(pods[..2], pods[2..], "{variant:?} {protocol} {to}");
                    }
                }
            }
        }
    }
}

#[test]
fn policy_local_drops_outside_and_serves_the_node_and_its_pods() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[3]);
            plan.frontends.insert(1, Frontend::ExternalIp(vip(family)));
            plan.masquerade_external = false;
            plan.external = Outcome::Drop;
            node.put(&plan);
            for to in [node_port(family), vip(family)] {
                let error = node.net.client.run(|| ask(protocol, to, SHORT)).unwrap().unwrap_err();
                assert!(is_silence(&error), "{variant:?} {protocol} {to}: {error}");
                ask_from(&node.net.node, protocol, to).expect("3.6: the node");
            }
        }
    }
}

/// The pods of this test are one namespace, where answers between them take a short cut. So here the client is the pod.
#[test]
fn pods_keep_their_address_and_are_never_sent_away() {
    let (v4, v6) = (Some("192.0.2.2/32".parse().unwrap()), Some("2001:db8::2/128".parse().unwrap()));
    let by_interface = [LocalTraffic::Interface("client0".into()), LocalTraffic::InterfacePrefix("cli".into())];
    for (variant, local_traffic) in
        BOTH.into_iter().cycle().zip([LocalTraffic::Cidrs { v4, v6 }].into_iter().chain(by_interface))
    {
        let settings = PacketSettings { local_traffic, ..PacketSettings::default() };
        let mut node = Node::new(Iptables::with_variant(settings, variant).unwrap());
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[3]);
            plan.external = Outcome::Drop;
            plan.masquerade_external = false;
            node.put(&plan);
            for to in [cluster_ip(family), node_port(family)] {
                let answer = node.ask(protocol, to).expect("3.5: the cluster's endpoints");
                assert_eq!(answer.source.to_string(), pick(family, CLIENT), "8.1, 8.6: {variant:?} {protocol} {to}");
            }
            let from_node = ask_from(&node.net.node, protocol, cluster_ip(family)).unwrap();
            assert_eq!(from_node.source.to_string(), pick(family, NODE_POD_SIDE), "8.2: {variant:?} {protocol}");
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

#[test]
fn rules_9_1_9_3_and_9_4_reject_refuses_at_once_and_drop_is_silent() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2]);
            plan.frontends.insert(1, Frontend::ExternalIp(vip(family)));
            for outcome in [&mut plan.internal, &mut plan.external, &mut plan.external_from_node] {
                *outcome = Outcome::Reject;
            }
            node.put(&plan);
            let addresses = [cluster_ip(family), node_port(family), vip(family)];
            for to in addresses {
                let error = node.ask(protocol, to).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{variant:?} {protocol} {to}");
            }
            for to in addresses {
                let error = ask_from(&node.net.node, protocol, to).unwrap_err();
                // UDP is told by sendmsg itself that a rule in OUTPUT forbids it.
                let told = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                assert!(told.contains(&error.kind()), "9.2: {variant:?} {protocol} {to} from the node: {error}");
            }
            plan.internal = Outcome::Drop;
            node.put(&plan);
            let error = node.net.client.run(|| ask(protocol, cluster_ip(family), SHORT)).unwrap().unwrap_err();
            assert!(is_silence(&error), "3.2: {variant:?} {protocol}: {error}");
        }
    }
}

#[test]
fn source_ranges_let_in_who_is_in_them() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2]);
            plan.frontends = vec![Frontend::LoadBalancer(vip(family)), Frontend::NodePort(NODE_PORT)];
            plan.source_ranges = vec![pick(family, ["192.0.2.2/32", "2001:db8::2/128"]).parse().unwrap()];
            node.put(&plan);
            node.ask(protocol, vip(family)).expect("in the range");
            let shut_out = |node: &Node<Iptables>, from: &weft_netlink::Netns| {
                let error = from.run(|| ask(protocol, vip(family), SHORT)).unwrap().unwrap_err();
                let told = is_silence(&error) || error.kind() == ErrorKind::PermissionDenied;
                assert!(told, "{variant:?} {protocol} {family}: {error}");
                node.ask(protocol, node_port(family)).expect("9.6: a NodePort has no ranges");
            };
            shut_out(&node, &node.net.node);
            plan.source_ranges = vec![pick(family, ["203.0.113.0/24", "2001:db8:1::/64"]).parse().unwrap()];
            node.put(&plan);
            shut_out(&node, &node.net.client);
        }
    }
}

#[test]
fn rule_8_7_a_pod_reaches_itself() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for family in [IpFamily::V4, IpFamily::V6] {
            for masquerade in [true, false] {
                let mut plan = web(Protocol::Udp, family, &[2]);
                plan.masquerade_external = masquerade;
                node.put(&plan);
                let from = pod(family, 2);
                for to in [node_port(family), cluster_ip(family)] {
                    let answer = node.net.pods.run(|| ask_udp((from, 0).into(), to, PATIENCE)).unwrap().unwrap();
                    assert_eq!(answer.pod, from);
                    assert_eq!(answer.source.to_string(), pick(family, NODE_POD_SIDE), "{variant:?} {to} {masquerade}");
                }
            }
        }
    }
}

#[test]
fn node_ports_at_localhost() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.put(&web(Protocol::Tcp, IpFamily::V4, &[3]));
        let localhost = SocketAddr::from(([127, 0, 0, 1], NODE_PORT));
        let answer = ask_from(&node.net.node, Protocol::Tcp, localhost).unwrap();
        assert_eq!(answer.source.to_string(), NODE_POD_SIDE[0], "6.6: {variant:?}");
        let only_node_port_addresses = SocketAddr::new(NODE_POD_SIDE[0].parse().unwrap(), NODE_PORT);
        let error = ask_from(&node.net.pods, Protocol::Tcp, only_node_port_addresses).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "6.2: {variant:?}");
    }
}

#[test]
fn no_connection_fails_while_endpoints_come_and_go() {
    for variant in BOTH {
        let mut node = node_with(variant);
        let family = IpFamily::V4;
        node.put(&web(Protocol::Tcp, family, &[2, 3, 4]));
        let client = Arc::clone(&node.net.client);
        assert_no_connection_fails(&client, node_port(family), || {
            for pods in [&[2, 3][..], &[3, 4], &[4], &[2, 3, 4]] {
                node.put(&web(Protocol::Tcp, family, pods));
            }
            node.restart(plane(variant));
        });
    }
}
