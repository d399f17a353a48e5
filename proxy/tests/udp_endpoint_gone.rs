//! From an EndpointSlice that lost an endpoint to a client that goes on with another one: planner, socket plane, sockets.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "../../ebpf/loader/tests/support/mod.rs"]
mod support;

use support::{Node, in_netns, serve};
use weft_proxy::{
    dataplane::{Changed, DataPlane},
    ebpf::Ebpf,
    model::api::Object,
    plan::{Change, Planner, PlannerConfig},
    udp_sockets,
};

const SERVICE: &str = "
kind: Service
metadata: {name: dns}
spec: {clusterIPs: [10.96.0.10, 'fd96::10'], ports: [{port: 80, protocol: UDP}]}";

/// Connects once, then sends whenever told to, as a program with one socket for life would.
const CLIENT: &str = "
def attempt(what):
    try: return what()
    except OSError as e: return errno.errorcode[e.errno]
def connect(): s.connect((sys.argv[1], 80))
def ask(): s.send(b'x'); return s.recv(64).decode()
s = udp(sys.argv[1]); connect(); print(ask(), flush=True)
for line in sys.stdin:
    answer = attempt(ask)
    # The socket is told of its fate by its pending error, once.
    if answer == 'EDESTADDRREQ': s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR); connect()
    print(answer, flush=True)";

struct Setup {
    node: Node,
    plane: Ebpf,
    planner: Planner,
}

impl Setup {
    fn new() -> Self {
        let node = Node::new();
        let plane = Ebpf::open(node.config()).unwrap();
        let mut setup = Self { node, plane, planner: Planner::new(PlannerConfig::new("n1")) };
        setup.apply(SERVICE);
        setup
    }

    fn apply(&mut self, manifest: &str) {
        let object: Object = serde_saphyr::from_str(manifest).unwrap();
        self.planner.apply(Change::Apply(object)).unwrap();
        let changes = self.planner.take_changes();
        self.plane.apply(self.planner.desired(), &Changed::Ports(changes)).unwrap();
    }

    /// The slice of a family has these endpoints now.
    fn endpoints(&mut self, family: &str, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{addresses: ['{address}']}}")).collect();
        self.apply(&format!(
            "kind: EndpointSlice
metadata: {{name: {}, labels: {{kubernetes.io/service-name: dns}}}}
addressType: {family}
ports: [{{port: 8080, protocol: UDP}}]
endpoints: [{}]",
            family.to_lowercase(),
            endpoints.join(", ")
        ));
    }

    /// What the agent does after an apply.
    fn close_sockets(&mut self) -> usize {
        let gone = self.planner.take_gone_udp_endpoints();
        let namespaces = udp_sockets::namespaces(&self.node.config().cgroup_root).unwrap();
        let closed = udp_sockets::close(&namespaces.found, &gone);
        assert!(closed.failed.is_empty(), "{:?}", closed.failed);
        closed.sockets
    }
}

#[test]
fn a_connected_client_moves_on_when_its_endpoint_goes() {
    for (family, service, pods) in [
        ("IPv4", "10.96.0.10", ["10.244.0.1", "10.244.0.2"]),
        ("IPv4", "::ffff:10.96.0.10", ["10.244.0.1", "10.244.0.2"]),
        ("IPv6", "fd96::10", ["fd44::1", "fd44::2"]),
    ] {
        in_netns(&pods, || {
            let [first, second] = pods.map(|pod| std::net::SocketAddr::new(pod.parse().unwrap(), 8080).to_string());
            serve(&first);
            serve(&second);
            let mut setup = Setup::new();
            setup.endpoints(family, &pods[..1]);
            let mut stranded = setup.node.python(CLIENT, &[service]);
            assert_eq!(stranded.hear(), first);
            setup.endpoints(family, &pods[1..2]);
            let mut bystander = setup.node.python(CLIENT, &[service]);
            assert_eq!(bystander.hear(), second);

            // Translated for good when it connected.
            stranded.say("");
            assert_eq!(stranded.hear(), first);
            assert_eq!(setup.close_sockets(), 1, "{service}");
            stranded.say("");
            assert_eq!(stranded.hear(), "EDESTADDRREQ");
            for client in [&mut stranded, &mut bystander] {
                client.say("");
                assert_eq!(client.hear(), second);
            }
            assert_eq!(setup.close_sockets(), 0);
        });
    }
}
