//! Session affinity, kube-proxy.md section 7.

use std::time::Duration;

use weft_proxy::{
    model::{IpFamily, Protocol},
    plan::{Frontend, ServicePortPlan},
};

use crate::{
    setup::{PODS, PODS6, Setup, VIP, VIP6, at, cluster_ip, name, named, plan, serve_pods, to},
    support::{Node, in_netns, route_to_loopback},
};

const NODE: &str = "172.30.0.1";
const NODE6: &str = "fd30::1";
const EXTERNAL: &str = "192.0.2.10";
const EXTERNAL6: &str = "fdc0::10";
const NODE_PORT: u16 = 30080;

/// Asks each address once, by TCP and by UDP, connected and not.
const ASK: &str = "
def ask(kind, host, port):
    if kind == 'tcp': s = tcp(host, port)
    elif kind == 'udp': s = udp(host); s.connect((host, int(port))); s.send(b'x')
    else: s = udp(host); s.sendto(b'x', (host, int(port)))
    return s.recv(64).decode()
for where in sys.argv[2:]:
    print(ask(sys.argv[1], *where.split('|')))";

fn sticky(name: &str, family: IpFamily, frontends: &[Frontend], pods: &[&str]) -> ServicePortPlan {
    let affinity = Some(Duration::from_secs(10_800));
    ServicePortPlan { affinity, ..plan(named(name, Protocol::Tcp, family), frontends, &to(pods)) }
}

fn ask(node: &Node, kind: &str, hosts: &[&str]) -> Vec<String> {
    let mut arguments = vec![kind.to_owned()];
    arguments.extend(hosts.iter().map(|host| if host.contains('|') { host.to_string() } else { format!("{host}|80") }));
    node.run(ASK, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A node with one Service in both families at every kind of frontend.
fn everywhere() -> Setup {
    let mut setup = Setup::new();
    setup.desired.node_port_addresses = [NODE, NODE6].map(|ip| ip.parse().unwrap()).into();
    let frontends =
        |vip, external| [cluster_ip(vip), Frontend::NodePort(NODE_PORT), Frontend::ExternalIp(at(external))];
    setup.program(&sticky("web", IpFamily::V4, &frontends(VIP, EXTERNAL), &PODS));
    setup.program(&sticky("web", IpFamily::V6, &frontends(VIP6, EXTERNAL6), &PODS6));
    setup
}

#[test]
fn rule_7_1_all_frontends_of_a_port_share_it_and_each_pod_has_its_own() {
    let mapped = |ip: &str| format!("::ffff:{ip}");
    let node_port = |ip: &str| format!("{ip}|{NODE_PORT}");
    let v4 =
        [VIP.to_owned(), EXTERNAL.to_owned(), node_port(NODE), node_port(&mapped(NODE)), mapped(VIP), VIP.to_owned()];
    let v6 = [VIP6.to_owned(), EXTERNAL6.to_owned(), node_port(NODE6), VIP6.to_owned()];
    let asked: Vec<&str> = v4.iter().chain(&v6).map(String::as_str).collect();
    let addresses = [&PODS[..], &PODS6, &[NODE, NODE6]].concat();
    in_netns(&addresses, || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let setup = everywhere();
        let expected = |index: usize| {
            let mut expected = vec![name(PODS[index]); v4.len()];
            expected.extend(vec![name(PODS6[index]); v6.len()]);
            expected
        };
        // TCP and UDP are two Service ports, each with turns and records of its own; connected and unconnected UDP are one.
        for kind in ["tcp", "udp", "datagrams"] {
            assert_eq!(ask(&setup.node, kind, &asked), expected(0), "{kind}, the host");
        }
        let node = &setup.node;
        let addresses = &addresses;
        // A pod's servers have to be in its own namespace here, where no packet leads out.
        in_netns(addresses, move || {
            serve_pods(&PODS);
            serve_pods(&PODS6);
            for kind in ["tcp", "udp", "datagrams"] {
                assert_eq!(ask(node, kind, &asked), expected(1), "{kind}, a pod");
            }
        });
        assert_eq!(ask(&setup.node, "tcp", &[VIP, VIP6]), [name(PODS[0]), name(PODS6[0])], "still");
    });
}

#[test]
fn rule_7_2_it_ends_when_no_connection_began_for_the_timeout() {
    // Ever longer pauses, until the client gets another endpoint. All the time before, it must keep the one it has.
    let program = "
kind, host = sys.argv[1:]
def ask():
    s = tcp(host, 80) if kind == 'tcp' else udp(host)
    if kind == 'udp': s.sendto(b'x', (host, 80))
    return time.monotonic(), s.recv(64).decode()
begun, first = ask(); last = begun; pause = 0.25
while True:
    time.sleep(pause); now, server = ask()
    if server != first: break
    last = now; pause *= 1.5
print(now - last, last - begun)";
    in_netns(&[PODS, PODS6].concat(), || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let mut setup = Setup::new();
        for (family, vip, pods) in [(IpFamily::V4, VIP, PODS), (IpFamily::V6, VIP6, PODS6)] {
            let affinity = Some(Duration::from_secs(1));
            setup.program(&ServicePortPlan { affinity, ..sticky("web", family, &[cluster_ip(vip)], &pods) });
        }
        let cases = [("tcp", VIP), ("udp", VIP), ("tcp", VIP6), ("udp", VIP6)];
        let clients = cases.map(|(kind, vip)| setup.node.python(program, &[kind, vip]));
        for (client, case) in clients.into_iter().zip(cases) {
            let lines = client.lines();
            let (pause, kept) = lines[0].split_once(' ').unwrap();
            let (pause, kept): (f64, f64) = (pause.parse().unwrap(), kept.parse().unwrap());
            // By the first connect, which is a moment before the client looks at its clock.
            assert!(pause > 0.95, "{case:?}: another endpoint after only {pause} s");
            assert!(kept > 1.1, "{case:?}: each connection prolongs it, but it was over after {kept} s");
        }
    });
}

#[test]
fn rule_7_5_when_its_endpoint_goes_a_client_stays_with_the_next() {
    in_netns(&[PODS, PODS6].concat(), || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let mut setup = Setup::new();
        for (family, vip, pods) in [(IpFamily::V4, VIP, PODS), (IpFamily::V6, VIP6, PODS6)] {
            for kind in ["tcp", "datagrams"] {
                setup.program(&sticky(kind, family, &[cluster_ip(vip)], &pods));
                let four = |setup: &Setup| ask(&setup.node, kind, &[vip; 4]);
                assert_eq!(four(&setup), [(); 4].map(|()| name(pods[0])), "{kind}");
                setup.program(&sticky(kind, family, &[cluster_ip(vip)], &pods[1..]));
                let next = four(&setup);
                assert!([name(pods[1]), name(pods[2])].contains(&next[0]), "{next:?}");
                assert_eq!(next, [(); 4].map(|()| next[0].clone()), "{kind}");
                // Back again, and first in the set: the client's endpoint is not where it was.
                setup.program(&sticky(kind, family, &[cluster_ip(vip)], &pods));
                assert_eq!(four(&setup), next, "{kind}");
                setup.clear();
            }
        }
    });
}

#[test]
fn rule_7_6_only_endpoints_of_the_chosen_list_count() {
    in_netns(&[&PODS[..], &[NODE]].concat(), || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.desired.node_port_addresses = [NODE.parse().unwrap()].into();
        let both = [cluster_ip(VIP), Frontend::NodePort(NODE_PORT)];
        // Internal traffic policy Local, and the only endpoint of this node is the third.
        let mut plan = sticky("web", IpFamily::V4, &both, &PODS);
        plan.internal = to(&PODS[2..]);
        setup.program(&plan);
        let node_port = format!("{NODE}|{NODE_PORT}");
        let first = ask(&setup.node, "tcp", &[&node_port, &node_port]);
        assert_eq!(first, [name(PODS[0]), name(PODS[0])]);
        // Not the first pod, which this client has a record of; but the third it then has a record of is in both lists.
        let then = ask(&setup.node, "tcp", &[VIP, VIP, &node_port]);
        assert_eq!(then, [(); 3].map(|()| name(PODS[2])));
    });
}

#[test]
fn rule_7_7_a_new_agent_changes_nothing() {
    in_netns(&[PODS, PODS6].concat(), || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let mut setup = Setup::new();
        setup.program(&sticky("web", IpFamily::V4, &[cluster_ip(VIP)], &PODS));
        setup.program(&sticky("web", IpFamily::V6, &[cluster_ip(VIP6)], &PODS6));
        for kind in ["tcp", "udp"] {
            assert_eq!(ask(&setup.node, kind, &[VIP, VIP6]), [name(PODS[0]), name(PODS6[0])]);
        }
        for _ in 0..3 {
            setup.restart();
            for kind in ["tcp", "udp"] {
                assert_eq!(ask(&setup.node, kind, &[VIP, VIP6]), [name(PODS[0]), name(PODS6[0])], "{kind}");
            }
        }
    });
}

#[test]
fn it_holds_in_sets_of_any_size_however_they_change() {
    // Connecting UDP sends nothing, so one endpoint's count tells where the socket went.
    let program = "
for line in sys.stdin:
    s = udp(sys.argv[1]); s.connect((sys.argv[1], 80)); s.close(); print('done', flush=True)";
    in_netns(&[], || {
        route_to_loopback("10.244.0.0/16");
        route_to_loopback("fd44::/64");
        let mut setup = Setup::new();
        for (family, vip, prefix) in [(IpFamily::V4, VIP, "10.244.1."), (IpFamily::V6, VIP6, "fd44::1:")] {
            // In order of numbers: IPv6 addresses of two decimal digits only.
            let pods: Vec<String> = match family {
                IpFamily::V4 => (0..2000).map(|n| format!("10.244.{}.{}", n / 250, n % 250)).collect(),
                IpFamily::V6 => (0..2000).map(|n| format!("{prefix}{n:x}")).collect(),
            };
            let key = named("web", Protocol::Udp, family);
            let mut client = setup.node.python(program, &[vip]);
            let mine = &pods[777];
            let mut expected = 0;
            // Which pods are in the set besides the client's: all before it, all after it, every so many, none.
            let besides: [fn(usize) -> bool; 8] = [
                |_| false,
                |n| n < 777,
                |n| n > 777,
                |_| true,
                |n| n % 2 == 0,
                |n| n % 97 == 0,
                |n| n == 776,
                |n| n == 778,
            ];
            for other in besides {
                let set: Vec<&str> =
                    pods.iter().enumerate().filter(|(n, _)| *n == 777 || other(*n)).map(|(_, pod)| &**pod).collect();
                setup.program(&sticky("web", family, &[cluster_ip(vip)], &set));
                client.say("go");
                assert_eq!(client.hear(), "done");
                expected += 1;
                assert_eq!(setup.connections_of(&key)[mine], expected, "among {}", set.len());
            }
        }
    });
}

#[test]
fn clients_that_come_at_once_agree_on_one_endpoint() {
    let program = "
sys.stdin.readline()
for i in range(20): tcp(sys.argv[1], 80).close()";
    in_netns(&PODS, || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.program(&sticky("web", IpFamily::V4, &[cluster_ip(VIP)], &PODS));
        let mut clients: Vec<_> = (0..6).map(|_| setup.node.python(program, &[VIP])).collect();
        for client in &mut clients {
            client.say("go");
        }
        for client in clients {
            client.lines();
        }
        let counts = setup.connections_of(&named("web", Protocol::Tcp, IpFamily::V4));
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 120]);
    });
}
