//! What a socket is told where it gets no endpoint, and what is left to the packets.

use std::{sync::Arc, time::Duration};

use weft_proxy::{
    dataplane::{Changed, DataPlane},
    ebpf::MapSizes,
    model::{IpFamily, Protocol},
    plan::{Frontend, Outcome, ServicePortPlan},
};

use crate::{
    setup::{PODS, Setup, VIP, at, cluster_ip, name, named, plan, serve_pods, to},
    support::{in_netns, serve},
};

const NODE: &str = "172.30.0.1";
const BALANCER: &str = "192.0.2.80";

const ASK: &str = "
def answer(ask):
    try: return ask()
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def by_tcp():
    s = tcp(host, port); return s.recv(64).decode()
def by_udp():
    s = udp(host); s.sendto(b'x', (host, int(port))); return s.recv(64).decode()
for where in sys.argv[1:]:
    host, port = where.split('|')
    print(answer(by_tcp)); print(answer(by_udp))";

/// An external traffic policy Local without an endpoint here drops what comes from outside; clients of this node, pods and the host's
/// processes alike, are given any endpoint (3.5, 3.6).
#[test]
fn rules_3_5_and_3_6_clients_of_the_node_are_not_bound_by_the_external_policy() {
    in_netns(&[&PODS[..], &[NODE]].concat(), || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.desired.node_port_addresses = [NODE.parse().unwrap()].into();
        let frontends = [
            cluster_ip(VIP),
            Frontend::NodePort(30080),
            Frontend::LoadBalancer(at(BALANCER)),
            Frontend::ExternalIp(at("192.0.2.81")),
        ];
        let plan = plan(named("web", Protocol::Tcp, IpFamily::V4), &frontends, &to(&PODS[..1]));
        setup.program(&ServicePortPlan { external: Outcome::Drop, masquerade_external: false, ..plan });
        let asked = [
            format!("{VIP}|80"),
            format!("{NODE}|30080"),
            "127.0.0.1|30080".to_owned(),
            format!("{BALANCER}|80"),
            format!("::ffff:{BALANCER}|80"),
            "192.0.2.81|80".to_owned(),
        ];
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        assert_eq!(setup.node.run(ASK, &asked), vec![name(PODS[0]); 2 * asked.len()]);
    });
}

/// Whoever has the address answers, which stands for the packet path here.
#[test]
fn a_load_balancer_address_with_source_ranges_is_left_to_the_packets() {
    in_netns(&[&PODS[..], &[BALANCER]].concat(), || {
        serve_pods(&PODS);
        serve(&format!("{BALANCER}:80"));
        let mut setup = Setup::new();
        let frontends = [cluster_ip(VIP), Frontend::LoadBalancer(at(BALANCER))];
        let plan = plan(named("web", Protocol::Tcp, IpFamily::V4), &frontends, &to(&PODS[..1]));
        let ranges = vec!["198.51.100.0/24".parse().unwrap()];
        setup.program(&ServicePortPlan { source_ranges: ranges, ..plan.clone() });
        let asked = [&*format!("{BALANCER}|80"), &format!("{VIP}|80")];
        let (packets, pod) = (&*format!("{BALANCER}:80"), &*name(PODS[0]));
        assert_eq!(setup.node.run(ASK, &asked), [packets, packets, pod, pod]);
        setup.program(&plan);
        assert_eq!(setup.node.run(ASK, &asked), [pod; 4]);
    });
}

/// SCTP never calls these hooks, and other protocols that do are let through: the Service is TCP's and UDP's. UDP-Lite stands for them,
/// for a kernel without SCTP has it.
#[test]
fn other_protocols_are_not_touched() {
    let program = "
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); server.bind((sys.argv[1], 80))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); s.settimeout(5)
s.connect((sys.argv[1], 80)); print(show(s.getpeername()))
s.send(b'connected'); print(server.recv(64).decode())
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136); s.sendto(b'not', (sys.argv[1], 80)); print(server.recv(64).decode())";
    in_netns(&[PODS[0], VIP], || {
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS[..1]));
        assert_eq!(setup.node.run(program, &[VIP]), [&*format!("{VIP} 80"), "connected", "not"]);
        setup.service(cluster_ip(VIP), &Outcome::Reject);
        assert_eq!(setup.node.run(program, &[VIP]), [&*format!("{VIP} 80"), "connected", "not"], "nor refused");
    });
}

/// An MPTCP socket connects by TCP subflows, and those call the hooks.
#[test]
fn mptcp_is_tcp() {
    let program = "
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.settimeout(5)
s.connect((sys.argv[1], 80)); print(s.recv(64).decode())";
    in_netns(&PODS, || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS[..1]));
        assert_eq!(setup.node.run(program, &[VIP]), [name(PODS[0])]);
    });
}

#[test]
fn how_full_the_maps_are_is_known_and_a_full_one_is_no_silent_miss() {
    let program = "
for i in range(40):
    s = udp(sys.argv[1]); s.sendto(b'x', (sys.argv[1], 80)); assert s.recv(64)
    tcp(sys.argv[1], 80).close()";
    in_netns(&PODS, || {
        serve_pods(&PODS);
        let mut setup = Setup::with_sizes(MapSizes { frontends: 64, udp_flows: 4096, ..MapSizes::default() });
        let web = plan(named("web", Protocol::Tcp, IpFamily::V4), &[cluster_ip(VIP)], &to(&PODS));
        setup.program(&ServicePortPlan { affinity: Some(Duration::from_secs(60)), ..web });
        setup.node.run(program, &[VIP]);
        let fill = |setup: &Setup, name| {
            let fill = setup.plane.fill().unwrap().into_iter().find(|map| map.name == name).unwrap();
            (fill.used, fill.capacity)
        };
        assert_eq!(fill(&setup, "SERVICES4"), (2, 64), "TCP and UDP");
        assert_eq!(fill(&setup, "SERVICES6"), (0, 64));
        assert_eq!(fill(&setup, "BACKENDS4"), (8, 1 << 18), "two blocks of four");
        assert_eq!(fill(&setup, "ROUND_ROBIN"), (4, 1 << 17), "two sets and two affinities");
        assert_eq!(fill(&setup, "CONNECTIONS"), (6, 1 << 18));
        assert_eq!(fill(&setup, "AFFINITY"), (2, 1 << 15), "one client");
        assert_eq!(fill(&setup, "UDP_FLOWS"), (40, 4096), "one for each socket");
        assert_eq!(fill(&setup, "UDP_REPLIES"), (40, 4096));

        for n in 0..62 {
            let refused = plan(named(&format!("a{n}"), Protocol::Tcp, IpFamily::V4), &[], &Outcome::Reject);
            let frontends = vec![cluster_ip(&format!("10.96.1.{n}"))];
            setup.desired.ports.insert(refused.key.clone(), Arc::new(ServicePortPlan { frontends, ..refused }));
        }
        setup.plane.apply(&setup.desired, &Changed::Everything).unwrap();
        let late = plan(named("zzz", Protocol::Tcp, IpFamily::V4), &[cluster_ip("10.96.2.1")], &to(&PODS));
        setup.desired.ports.insert(late.key.clone(), Arc::new(late));
        let error = setup.plane.apply(&setup.desired, &Changed::Everything).unwrap_err().to_string();
        assert!(error.contains("default/zzz"), "{error}");
        assert!(error.contains("map SERVICES4 is full: 64 elements; raise --ebpf-max-frontends"), "{error}");
        assert_eq!(setup.node.run(ASK, &[&format!("{VIP}|80")]).len(), 2, "the others are served");
    });
}
