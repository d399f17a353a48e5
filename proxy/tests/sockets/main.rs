//! The socket programs with plans in their maps and real clients. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod affinity;
mod answers;
mod setup;
#[path = "../../../ebpf/loader/tests/support/mod.rs"]
mod support;
mod udp;

use std::{collections::BTreeMap, time::Instant};

use setup::{PODS, PODS6, Setup, VIP, VIP6, cluster_ip, name, serve_pods, to};
use support::{in_netns, serve};
use weft_proxy::{
    dataplane::{Changed, DataPlane},
    ebpf::Ebpf,
    model::Protocol,
    plan::{Frontend, Outcome},
};

const ASK_TCP: &str = "
for i in range(int(sys.argv[2])):
    s = tcp(sys.argv[1], 80); print(s.recv(64).decode(), show(s.getpeername()), sep='|'); s.close()";

const ASK_UDP: &str = "
for i in range(int(sys.argv[2])):
    s = udp(sys.argv[1]); s.sendto(b'x', (sys.argv[1], 80)); data, source = s.recvfrom(64)
    print(data.decode(), show(source), sep='|'); s.close()";

/// 600 connections of 4 clients at once to `address`: 200 for each endpoint, all seen as coming from the Service.
fn assert_exact_round_robin(setup: &Setup, program: &str, address: &str, pods: &[&str]) {
    let clients: Vec<_> = (0..4).map(|_| setup.node.python(program, &[address, "150"])).collect();
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for line in clients.into_iter().flat_map(support::Client::lines) {
        let (server, peer) = line.split_once('|').unwrap();
        assert_eq!(peer, format!("{address} 80"));
        *answers.entry(server.to_owned()).or_default() += 1;
    }
    let expected: BTreeMap<_, _> = pods.iter().map(|pod| (name(pod), 200)).collect();
    assert_eq!(answers, expected, "{address}");
}

#[test]
fn round_robin_is_exact_with_concurrent_clients() {
    in_netns(&[PODS, PODS6].concat(), || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS));
        setup.service(cluster_ip(VIP6), &to(&PODS6));
        let mapped = format!("::ffff:{VIP}");
        for (protocol, program) in [(Protocol::Tcp, ASK_TCP), (Protocol::Udp, ASK_UDP)] {
            assert_exact_round_robin(&setup, program, VIP, &PODS);
            assert_exact_round_robin(&setup, program, VIP6, &PODS6);
            assert_exact_round_robin(&setup, program, &mapped, &PODS);
            let counts = setup.connections(protocol, cluster_ip(VIP));
            assert_eq!(counts, PODS.map(|pod| (pod.to_owned(), 400)).into());
            let counts = setup.connections(protocol, cluster_ip(VIP6));
            assert_eq!(counts, PODS6.map(|pod| (pod.to_owned(), 200)).into());
        }
    });
}

#[test]
fn without_endpoints_a_client_is_refused_at_once() {
    let program = "
def attempt(what):
    try: what(); print('no error')
    except OSError as e: print(errno.errorcode[e.errno])
for host in sys.argv[1:]:
    attempt(lambda: tcp(host, 80))
    attempt(lambda: udp(host).connect((host, 80)))
    attempt(lambda: udp(host).sendto(b'x', (host, 80)))";
    in_netns(&[], || {
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &Outcome::Reject);
        setup.service(cluster_ip(VIP6), &Outcome::Reject);
        let answers = setup.node.run(program, &[VIP, VIP6, &format!("::ffff:{VIP}")]);
        assert_eq!(answers, ["ECONNREFUSED"; 9]);
    });
}

#[test]
fn what_is_to_be_dropped_and_what_is_no_service_go_where_they_say() {
    in_netns(&[&PODS[..], &[VIP]].concat(), || {
        serve_pods(&PODS);
        serve(&format!("{VIP}:80"));
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &Outcome::Drop);
        for program in [ASK_TCP, ASK_UDP] {
            assert_eq!(setup.node.run(program, &[VIP, "1"]), [format!("{VIP}:80|{VIP} 80")]);
        }
        setup.service(cluster_ip(VIP), &to(&PODS));
        assert_eq!(setup.node.run(ASK_TCP, &[VIP, "1"]), [format!("{}|{VIP} 80", name(PODS[0]))]);
        setup.desired.ports.clear();
        setup.plane.apply(&setup.desired, &Changed::Everything).unwrap();
        assert_eq!(setup.node.run(ASK_TCP, &[VIP, "1"]), [format!("{VIP}:80|{VIP} 80")]);
    });
}

#[test]
fn a_connect_that_takes_several_calls_takes_one_turn() {
    let program = "
s = socket.socket(); s.setblocking(False)
while True:
    error = s.connect_ex((sys.argv[1], 80))
    if error == errno.EISCONN: break
    time.sleep(0.001)
print(show(s.getpeername()))";
    in_netns(&PODS, || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS));
        assert_eq!(setup.node.run(program, &[VIP]), [format!("{VIP} 80")]);
        let total: u64 = setup.connections(Protocol::Tcp, cluster_ip(VIP)).values().sum();
        assert_eq!(total, 1);
    });
}

const ASK_PORT: &str = "
for host in sys.argv[1:]:
    for kind in ('tcp', 'udp'):
        try:
            if kind == 'tcp': s = tcp(host, 30080)
            else: s = udp(host); s.sendto(b'x', (host, 30080))
            print(s.recv(64).decode())
        except OSError as e: print(errno.errorcode.get(e.errno, e))";

#[test]
fn node_ports_are_at_the_nodes_addresses_and_at_the_hosts_loopback_only() {
    let node_addresses = ["172.30.0.1", "172.30.0.2", "fd30::1"];
    in_netns(&[&node_addresses[..], &PODS[..1], &PODS6[..1]].concat(), || {
        serve_pods(&[PODS[0], PODS6[0]]);
        let mut setup = Setup::new();
        setup.desired.node_port_addresses = ["172.30.0.1", "fd30::1"].map(|ip| ip.parse().unwrap()).into();
        setup.service(Frontend::NodePort(30080), &to(&PODS[..1]));
        setup.service(Frontend::NodePort(30080), &to(&PODS6[..1]));
        let hosts = ["172.30.0.1", "::ffff:172.30.0.1", "127.0.0.1", "::ffff:127.0.0.1", "fd30::1", "::1"];
        let (v4, v6) = (name(PODS[0]), name(PODS6[0]));
        let expected = [[&*v4; 8].as_slice(), &[&*v6; 4]].concat();
        assert_eq!(setup.node.run(ASK_PORT, &hosts), expected);

        // Of the node, but not one NodePorts are accepted at: nobody listens there.
        assert_eq!(setup.node.run(ASK_PORT, &["172.30.0.2"])[0], "ECONNREFUSED");

        // A pod's loopback is its own.
        let node = &setup.node;
        in_netns(&["10.244.9.9"], move || {
            for loopback in ["127.0.0.1:30080", "[::1]:30080"] {
                serve(loopback);
            }
            let answers = node.run(ASK_PORT, &["127.0.0.1", "::1"]);
            assert_eq!(answers, ["127.0.0.1:30080", "127.0.0.1:30080", "[::1]:30080", "[::1]:30080"]);
        });
    });
}

#[test]
fn agents_come_and_go_and_no_connection_fails() {
    // Closed with a reset, so that the ports of 100,000 connections do not linger.
    let load = "
import struct
n = 0
long = tcp(sys.argv[1], 80); first = long.recv(64)
print('ready', flush=True)
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    s = tcp(sys.argv[1], 80); assert s.recv(64); n += 1
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()
long.send(b'still there'); assert long.recv(64) == b'still there'
print(n)";
    in_netns(&PODS, || {
        serve_pods(&PODS);
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS));
        let mut clients: Vec<_> = (0..2).map(|_| setup.node.python(load, &[VIP])).collect();
        for client in &mut clients {
            assert_eq!(client.hear(), "ready");
        }
        let started = Instant::now();
        for round in 0..20 {
            // As by kill -9: nothing is said to the kernel, and the next agent finds the pins.
            setup.plane = Ebpf::open(setup.node.config()).unwrap();
            setup.plane.apply(&setup.desired, &Changed::Everything).unwrap();
            let pods = [&PODS[..], &PODS[1..], &PODS[..2]][round % 3];
            setup.service(cluster_ip(VIP), &to(pods));
        }
        let seconds = started.elapsed().as_secs_f64();
        for client in &mut clients {
            client.say("stop");
        }
        let total: u64 = clients.into_iter().map(|client| client.lines()[0].parse::<u64>().unwrap()).sum();
        eprintln!("{total} connections and 0 failures in {seconds:.2} s with 20 restarts and 20 changes");
        assert!(total > 100, "{total}");

        // Pod 2 was an endpoint all the time, so its count is of all agents together.
        let counts = setup.connections(Protocol::Tcp, cluster_ip(VIP));
        assert!(counts[PODS[1]] * 3 >= total, "{counts:?} of {total}");
    });
}

#[test]
fn a_storm_of_changes_never_sends_anybody_to_another_service() {
    // Odd Services have odd pods only. One element after the other is replaced while clients look them up.
    let load = "
import select
n = 0
print('ready', flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for i in range(10):
        s = udp('10.96.1.0'); s.connect(('10.96.1.%d' % i, 80)); s.send(b'x'); n += 1
        answer = s.recv(64).decode(); s.close()
        assert int(answer.split(':')[0][-1]) % 2 == i % 2, (i, answer)
print(n)";
    let pods = ["10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.4"];
    in_netns(&pods, || {
        serve_pods(&pods);
        let mut setup = Setup::new();
        let outcome = |service: usize, round: usize| {
            let (first, second) = (pods[(service + 1) % 2], pods[(service + 1) % 2 + 2]);
            to([&[first][..], &[second], &[first, second]][round % 3])
        };
        let vips: Vec<String> = (0..10).map(|n| format!("10.96.1.{n}")).collect();
        for (n, vip) in vips.iter().enumerate() {
            setup.service(cluster_ip(vip), &outcome(n, 0));
        }
        let mut clients: Vec<_> = (0..2).map(|_| setup.node.python(load, &[])).collect();
        for client in &mut clients {
            assert_eq!(client.hear(), "ready");
        }
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed().as_secs() < 2 {
            rounds += 1;
            for (n, vip) in vips.iter().enumerate() {
                setup.service(cluster_ip(vip), &outcome(n, rounds));
            }
        }
        for client in &mut clients {
            client.say("stop");
        }
        let total: u64 = clients.into_iter().map(|client| client.lines()[0].parse::<u64>().unwrap()).sum();
        eprintln!("{total} connects during {} changes of a Service", rounds * vips.len());
        assert!(total > 100, "{total}");
    });
}
