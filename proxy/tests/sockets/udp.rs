//! UDP sockets, with and without connect.

use weft_proxy::plan::Frontend;

use crate::{
    setup::{PODS, PODS6, Setup, VIP, VIP6, cluster_ip, name, serve_pods, to},
    support::in_netns,
};

#[test]
fn an_unconnected_socket_stays_with_its_endpoint_until_that_goes() {
    let program = "
s = udp(sys.argv[1])
for line in sys.stdin:
    s.sendto(b'x', (sys.argv[1], 80)); data, source = s.recvfrom(64)
    print(data.decode(), show(source), sep='|', flush=True)";
    in_netns(&[PODS, PODS6].concat(), || {
        serve_pods(&PODS);
        serve_pods(&PODS6);
        let mut setup = Setup::new();
        for (vip, address, pods) in [(VIP, VIP, PODS), (VIP6, VIP6, PODS6), (VIP, &*format!("::ffff:{VIP}"), PODS)] {
            setup.service(cluster_ip(vip), &to(&pods));
            let mut client = setup.node.python(program, &[address]);
            let mut ask = || {
                client.say("go");
                let answer = client.hear();
                let (server, source) = answer.split_once('|').unwrap();
                assert_eq!(source, format!("{address} 80"));
                server.to_owned()
            };
            let first = ask();
            assert_eq!([ask(), ask(), ask()], [(); 3].map(|()| first.clone()), "it sticks");

            let others: Vec<&str> = pods.into_iter().filter(|pod| name(pod) != first).collect();
            for gone in &others {
                let rest: Vec<&str> = pods.into_iter().filter(|pod| pod != gone).collect();
                setup.service(cluster_ip(vip), &to(&rest));
                assert_eq!(ask(), first, "{gone} went, not {first}");
            }
            setup.service(cluster_ip(vip), &to(&others));
            let second = ask();
            assert!(others.iter().any(|pod| name(pod) == second), "{second} is one of {others:?}");
            assert_eq!(ask(), second);
        }
    });
}

#[test]
fn a_udp_socket_that_changes_its_mind_is_never_told_a_wrong_peer() {
    let program = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
vip, pod = (sys.argv[1], 80), (sys.argv[2], 8080)
def ask(to=None):
    s.sendto(b'x', to) if to else s.send(b'x')
    data, source = s.recvfrom(64); print(data.decode(), show(source), sep='|')
s = udp(vip[0])
s.connect(vip); print(show(s.getpeername())); ask()
ask(vip)                                          # a connected socket hears only its own endpoint
s.connect(pod); print(show(s.getpeername())); ask()
s.connect(vip); print(show(s.getpeername()))
assert libc.connect(s.fileno(), bytes(16), 16) == 0 # AF_UNSPEC
try: s.getpeername()
except OSError as e: print(errno.errorcode[e.errno])
ask(pod); ask(vip); ask(pod); ask(vip)";
    in_netns(&[PODS[0], PODS6[0]], || {
        serve_pods(&[PODS[0], PODS6[0]]);
        let mut setup = Setup::new();
        setup.service(cluster_ip(VIP), &to(&PODS[..1]));
        setup.service(cluster_ip(VIP6), &to(&PODS6[..1]));
        let mapped = |address| format!("::ffff:{address}");
        let cases = [
            (VIP.to_owned(), PODS[0].to_owned()),
            (VIP6.to_owned(), PODS6[0].to_owned()),
            (mapped(VIP), mapped(PODS[0])),
        ];
        for (vip, pod) in cases {
            let server = name(pod.trim_start_matches("::ffff:"));
            let answers = setup.node.run(program, &[&vip, &pod]);
            let (service, endpoint) = (format!("{vip} 80"), format!("{pod} 8080"));
            let from_service = format!("{server}|{service}");
            let from_endpoint = format!("{server}|{endpoint}");
            let expected = [
                &service,
                &from_service,
                &from_service,
                &endpoint,
                &from_endpoint,
                &service,
                "ENOTCONN",
                &from_endpoint,
                &from_service,
                &from_endpoint,
                &from_service,
            ];
            assert_eq!(answers, expected);
        }
    });
}

const ANSWER_CLIENT: &str = "
for server, client in zip(sys.argv[1::2], sys.argv[2::2]):
    a = udp(server); a.bind((server, 7000)); b = udp(client); b.bind((client, 30080))
    b.sendto(b'question', (server if server != '::' else '127.0.0.1', 7000)); data, source = a.recvfrom(64)
    a.sendto(b'answer', source); print(b.recv(64).decode())
    a.close(); b.close()
    c = udp(client); c.sendto(b'x', (client, 30080)); print(c.recv(64).decode()); c.close()";

#[test]
fn a_udp_server_answers_a_client_at_the_node_whose_port_is_a_node_port() {
    in_netns(&[&PODS[..], &PODS6, &["10.244.9.9", "fd44::9", "172.30.0.1", "fd30::1"]].concat(), || {
        serve_pods(&PODS[..1]);
        serve_pods(&PODS6[..1]);
        let mut setup = Setup::new();
        setup.desired.node_port_addresses = ["172.30.0.1", "fd30::1"].map(|ip| ip.parse().unwrap()).into();
        setup.service(Frontend::NodePort(30080), &to(&PODS[..1]));
        setup.service(Frontend::NodePort(30080), &to(&PODS6[..1]));
        // A socket that asks the Service itself is led to its endpoint as ever.
        let (v4, v6) = (name(PODS[0]), name(PODS6[0]));
        // The last server has IPv4 and IPv6 in one socket.
        let cases = ["10.244.9.9", "172.30.0.1", "fd44::9", "fd30::1", "::", "172.30.0.1"];
        let answers = setup.node.run(ANSWER_CLIENT, &cases);
        assert_eq!(answers, ["answer", &v4, "answer", &v6, "answer", &v4]);
    });
}
