//! Balancing, refusing, restarting, repairing.

use std::{collections::BTreeMap, io::ErrorKind, net::IpAddr, sync::Arc, thread, time::Duration};

use crate::{
    EXTERNAL,
    node::{ALL, CLIENT, NODE_POD_SIDE, Node, ask, node_port, pick, pod, vip},
    node_with, plane,
    support::{PATIENCE, ask_tcp, ask_udp, assert_no_connection_fails, enter},
    web,
};
use weft_proxy::{
    dataplane::Changed,
    model::{IpFamily, Protocol, ServiceName},
    nftables::{Nftables, PacketScope},
    plan::{Frontend, Outcome},
};

#[test]
fn node_port_is_in_exact_round_robin_for_four_clients_at_once() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        let plan = web(protocol, family, &[2, 3, 4]);
        node.put(&plan);
        let mut answers: BTreeMap<IpAddr, u32> = BTreeMap::new();
        let pods: Vec<IpAddr> = thread::scope(|scope| {
            let client = || {
                let _netns = enter(&node.net.client);
                let answer = |_| ask(protocol, node_port(family), PATIENCE).unwrap().pod;
                (0..150).map(answer).collect::<Vec<_>>()
            };
            let clients = [(); 4].map(|()| scope.spawn(client));
            clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        for pod in pods {
            *answers.entry(pod).or_default() += 1;
        }
        assert_eq!(answers, [2, 3, 4].map(|last| (pod(family, last), 200)).into(), "{protocol} {family}");
        assert_eq!(node.connections(&plan.key), [200, 200, 200], "{protocol} {family}");
    }
}

/// Else a pod's UDP answer could look like a request to a NodePort to the socket programs, and be lost.
#[test]
fn masquerading_leaves_the_node_ports_alone() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        node.put(&web(protocol, family, &[2]));
        for _ in 0..50 {
            let port = node.ask(protocol, node_port(family)).unwrap().source_port;
            assert!(port >= 32_768, "{protocol} {family}: {port}");
        }
    }
}

#[test]
fn the_pod_sees_the_node_if_masqueraded_and_the_client_if_not() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2]);
        for (masquerade, source) in [(true, NODE_POD_SIDE), (false, CLIENT)] {
            plan.masquerade_external = masquerade;
            node.put(&plan);
            let answer = node.ask(protocol, node_port(family)).unwrap();
            assert_eq!(answer.source.to_string(), pick(family, source), "{protocol} {family} {masquerade}");
        }
    }
}

#[test]
fn external_ip_and_load_balancer_address_are_balanced_too() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        for frontend in [Frontend::ExternalIp(vip(family)), Frontend::LoadBalancer(vip(family))] {
            let mut plan = web(protocol, family, &[2, 3]);
            plan.frontends = vec![frontend];
            node.put(&plan);
            let pods = [(); 4].map(|()| node.ask(protocol, vip(family)).unwrap().pod);
            assert_ne!(pods[0], pods[1]);
            assert_eq!(pods[..2], pods[2..]);
        }
    }
}

#[test]
fn rules_9_1_9_3_and_9_4_reject_refuses_at_once_and_drop_is_silent() {
    let mut node = node_with(EXTERNAL);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2]);
        plan.frontends.push(Frontend::ExternalIp(vip(family)));
        plan.external = Outcome::Reject;
        node.put(&plan);
        for to in [node_port(family), vip(family)] {
            let error = node.ask(protocol, to).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{protocol} {to}");
        }
        let local = node.net.node.run(|| ask(protocol, vip(family), PATIENCE)).unwrap().unwrap_err();
        // UDP is told by sendmsg itself that a rule forbids it; kube-proxy's rules do the same.
        let told = if protocol == Protocol::Tcp { ErrorKind::ConnectionRefused } else { ErrorKind::PermissionDenied };
        assert_eq!(local.kind(), told, "{protocol} from the node itself");
        plan.external = Outcome::Drop;
        node.put(&plan);
        for to in [node_port(family), vip(family)] {
            let short = Duration::from_millis(200);
            let error = node.net.client.run(|| ask(protocol, to, short)).unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{protocol} {to}: {error}");
        }
    }
}

#[test]
fn rule_8_7_a_pod_reaches_itself_through_the_node_port() {
    let mut node = node_with(EXTERNAL);
    for family in [IpFamily::V4, IpFamily::V6] {
        for masquerade in [true, false] {
            let mut plan = web(Protocol::Udp, family, &[2]);
            plan.masquerade_external = masquerade;
            node.put(&plan);
            let from = pod(family, 2);
            let answer = node.net.pods.run(|| ask_udp((from, 0).into(), node_port(family), PATIENCE)).unwrap().unwrap();
            assert_eq!(answer.pod, from);
            assert_eq!(answer.source.to_string(), pick(family, NODE_POD_SIDE), "{masquerade}");
        }
        // Without a local endpoint in the way, the pod's TCP connection goes the same way.
        node.put(&web(Protocol::Tcp, family, &[3]));
        let answer = node.net.pods.run(|| ask_tcp(node_port(family), PATIENCE)).unwrap().unwrap();
        assert_eq!(answer.pod, pod(family, 3));
    }
}

#[test]
fn no_connection_fails_while_endpoints_come_and_go() {
    let mut node = node_with(EXTERNAL);
    let family = IpFamily::V4;
    node.put(&web(Protocol::Tcp, family, &[2, 3, 4]));
    let client = Arc::clone(&node.net.client);
    assert_no_connection_fails(&client, node_port(family), || {
        // Other numbers of endpoints (another chain, and back) and other endpoints of the same number.
        for pods in [&[2, 3][..], &[3, 4], &[4], &[2, 3, 4]] {
            node.put(&web(Protocol::Tcp, family, pods));
        }
    });
}

#[test]
fn counters_survive_a_change_of_the_other_endpoints() {
    let mut node = node_with(EXTERNAL);
    let (tcp, family) = (Protocol::Tcp, IpFamily::V4);
    let mut plan = web(tcp, family, &[2, 3]);
    node.put(&plan);
    for _ in 0..10 {
        node.ask(tcp, node_port(family)).unwrap();
    }
    plan = web(tcp, family, &[2, 3, 4]);
    node.put(&plan);
    assert_eq!(node.connections(&plan.key), [5, 5, 0]);
}

#[test]
fn a_restart_leaves_the_table_as_it_is() {
    let mut node = node_with(EXTERNAL);
    let plans = ALL.map(|(protocol, family)| web(protocol, family, &[2, 3, 4]));
    for plan in &plans {
        node.put(plan);
    }
    let mut refusing = web(Protocol::Tcp, IpFamily::V4, &[]);
    refusing.key.port.service = ServiceName::new("default", "refusing");
    refusing.frontends = vec![Frontend::NodePort(30081), Frontend::ExternalIp(vip(IpFamily::V4))];
    refusing.external = Outcome::Reject;
    node.put(&refusing);
    refusing.key.port.service = ServiceName::new("default", "silent");
    refusing.frontends = vec![Frontend::NodePort(30082), Frontend::ExternalIp(vip(IpFamily::V6))];
    refusing.external = Outcome::Drop;
    node.put(&refusing);
    node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();

    // With handles: a rule, chain or set made again would have another one.
    let before = node.net.nft("-a list ruleset");
    node.restart(plane(EXTERNAL));
    assert_eq!(node.net.nft("-a list ruleset"), before);
    let mut counted = node.connections(&plans[0].key);
    counted.sort_unstable();
    assert_eq!(counted, [0, 0, 1]);
}

#[test]
fn a_restart_brings_what_changed_meanwhile() {
    let mut node = node_with(EXTERNAL);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2, 3, 4]));
    node.put(&web(Protocol::Udp, IpFamily::V4, &[2]));
    node.desired.ports.clear();
    let plan = web(Protocol::Tcp, IpFamily::V4, &[3]);
    node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
    node.restart(plane(EXTERNAL));
    assert_eq!(node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap().pod, pod(IpFamily::V4, 3));
    let error = node.ask(Protocol::Udp, node_port(IpFamily::V4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "nobody listens on the node itself");
}

#[test]
fn a_foreign_flush_is_noticed_and_repaired() {
    let mut node = node_with(EXTERNAL);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
    assert!(node.is_intact());
    for flush in ["flush ruleset", "delete table inet weft-proxy", "flush table inet weft-proxy"] {
        node.net.nft(flush);
        assert!(!node.is_intact(), "{flush}");
        node.apply(&Changed::Everything);
        assert!(node.is_intact(), "{flush}");
        node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap();
    }
}

#[test]
fn foreign_tables_are_not_touched() {
    let mut node = node_with(EXTERNAL);
    node.net.nft("add table ip foreign");
    node.net.nft("add chain ip foreign pre { type nat hook prerouting priority dstnat ; }");
    node.net.nft("add rule ip foreign pre tcp dport 30080 dnat to 192.0.2.1:1");
    node.net.nft("add table inet weft-proxy-2");
    let foreign = |node: &Node<Nftables>| {
        [node.net.nft("-a list table ip foreign"), node.net.nft("-a list table inet weft-proxy-2")]
    };
    let before = foreign(&node);
    node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
    node.ask(Protocol::Tcp, node_port(IpFamily::V4)).expect("ours comes before the standard priority");
    node.net.nft("delete table inet weft-proxy");
    node.apply(&Changed::Everything);
    node.cleanup();
    // Twice is fine.
    node.cleanup();
    assert_eq!(foreign(&node), before);
    assert!(!node.net.nft("list tables").contains("inet weft-proxy\n"));
}

#[test]
fn a_cluster_ip_to_drop_is_dropped_beside_the_socket_plane() {
    let mut node = node_with(EXTERNAL);
    let mut plan = web(Protocol::Tcp, IpFamily::V4, &[2]);
    plan.frontends = vec![Frontend::ClusterIp(vip(IpFamily::V4))];
    plan.internal = Outcome::Drop;
    node.put(&plan);
    let short = Duration::from_millis(200);
    for from in [&node.net.node, &node.net.pods] {
        let error = from.run(|| ask_tcp(vip(IpFamily::V4), short)).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    }
}

#[test]
fn scope_all_serves_cluster_ips_to_pods_and_to_the_node() {
    let mut node = node_with(PacketScope::All);
    for (protocol, family) in ALL {
        let mut plan = web(protocol, family, &[2, 3, 4]);
        plan.frontends = vec![Frontend::ClusterIp(vip(family))];
        node.put(&plan);
        for from in [&node.net.node, &*node.net.client] {
            let ask = || ask(protocol, vip(family), PATIENCE).unwrap().pod;
            let mut pods = from.run(|| [(); 3].map(|()| ask())).unwrap();
            pods.sort_unstable();
            assert_eq!(pods, [2, 3, 4].map(|last| pod(family, last)), "{protocol} {family}");
        }
    }
}
