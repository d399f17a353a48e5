//! Section 2: addresses of Services.

use serde_json::json;

use crate::{
    objects::{
        At,
        Server::{A1, A2, B1, B2, N1},
        service, slice,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodA1, PodElsewhere},
        Group, Mode,
        Outcome::Untouched,
        Target::{ClusterIp, ExternalIp, LoadBalancer, NodePort, NodePortElsewhere},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    vec![
        given("a ClusterIP", [service().on([A1, A2, B1])])
            .row("2.1, 8.1", "pods reach it and keep their address", Pod, ClusterIp, by([A1, A2, B1]).sees_client())
            .row("2.1, 8.1", "from another node too", PodElsewhere, ClusterIp, by([A1, A2, B1]).sees_client())
            .row("2.1, 8.2", "the node reaches it", Node, ClusterIp, by([A1, A2, B1]).sees_n1())
            .row("8.2", "from outside it is masqueraded", Outside, ClusterIp, by([A1, A2, B1]).sees_n1()),
        given("a ClusterIP by UDP", [service().udp().on([A1, A2, B1])])
            .row("2.1, 8.1", "connected sockets", Pod, ClusterIp, by([A1, A2, B1]).sees_client())
            .row("2.1, 8.1", "sockets without connect", Pod, ClusterIp, by([A1, A2, B1]).sees_client())
            .sendto()
            .row("2.1, 8.2", "sockets of the node", Node, ClusterIp, by([A1, A2, B1]).sees_n1())
            .row("2.1, 8.2", "sockets of the node without connect", Node, ClusterIp, by([A1, A2, B1]).sees_n1())
            .sendto(),
        given("a NodePort", [service().on([A1, A2, B1]).node_port()])
            .row("2.2, 8.5", "from outside", Outside, NodePort, by([A1, A2, B1]).sees_n1())
            .row("2.2, 8.5", "every node serves it", Outside, NodePortElsewhere, by([A1, A2, B1]).sees_n2())
            .row("2.2, 8.5", "from a pod", Pod, NodePort, by([A1, A2, B1]).sees_n1())
            .kept_by_sockets()
            .row("2.2, 8.5", "from a pod of another node", PodElsewhere, NodePort, by([A1, A2, B1]).sees_n1())
            .row("2.2, 8.5", "from the node itself", Node, NodePort, by([A1, A2, B1]).sees_n1())
            .row("2.2", "of another node, from a pod", Pod, NodePortElsewhere, by([A1, A2, B1]).sees_n2())
            .row("2.2", "of another node, from the node", Node, NodePortElsewhere, by([A1, A2, B1]).sees_n2()),
        given("a NodePort by UDP", [service().udp().on([A1, B1]).node_port()])
            .row("2.2, 8.5", "from outside", Outside, NodePort, by([A1, B1]).sees_n1())
            .row("2.2, 8.5", "from a pod", Pod, NodePort, by([A1, B1]).sees_n1())
            .kept_by_sockets()
            .row("2.2, 8.5", "from a pod without connect", Pod, NodePort, by([A1, B1]).sees_n1())
            .sendto()
            .kept_by_sockets()
            .row("2.2, 8.5", "from the node itself", Node, NodePort, by([A1, B1]).sees_n1()),
        given("a LoadBalancer address", [service().on([A1, B1]).load_balancer()])
            .row("2.3, 8.5", "from outside", Outside, LoadBalancer, by([A1, B1]).sees_n1())
            .row("2.3, 8.5", "from a pod", Pod, LoadBalancer, by([A1, B1]).sees_n1())
            .kept_by_sockets()
            .row("2.3, 8.5", "from a pod of another node", PodElsewhere, LoadBalancer, by([A1, B1]).sees_n2())
            .otherwise(&[Mode::Ebpf], &by([A1, B1]).sees_client(), "no NAT at the socket, so no need to masquerade")
            .row("2.3, 8.5", "from the node", Node, LoadBalancer, by([A1, B1]).sees_n1()),
        given(
            "a LoadBalancer address with ipMode Proxy",
            [service().on([A1]).load_balancer().set_at("/status/loadBalancer/ingress", |at: &At| {
                at.both(At::load_balancer).map(|ip| json!({"ip": ip, "ipMode": "Proxy"})).into()
            })],
        )
        .row("2.3", "traffic of pods goes to the load balancer", Pod, LoadBalancer, Untouched)
        .row("2.3", "traffic of the node too", Node, LoadBalancer, Untouched)
        .row("2.3", "and what comes from outside", Outside, LoadBalancer, Untouched),
        given(
            "a LoadBalancer address with ipMode VIP, and one by host name",
            [service().on([A1]).load_balancer().set_at("/status/loadBalancer/ingress", |at: &At| {
                let [v4, v6] = at.both(At::load_balancer).map(|ip| json!({"ip": ip, "ipMode": "VIP"}));
                json!([{"hostname": "lb.example.org"}, v4, v6])
            })],
        )
        .row("2.3", "the address is served, the name ignored", Outside, LoadBalancer, by([A1]).sees_n1()),
        given("external IPs", [service().on([A1, B1]).external_ip()])
            .row("2.4, 8.5", "from outside", Outside, ExternalIp, by([A1, B1]).sees_n1())
            .row("2.4, 8.5", "from a pod", Pod, ExternalIp, by([A1, B1]).sees_n1())
            .kept_by_sockets()
            .row("2.4, 8.5", "from the node", Node, ExternalIp, by([A1, B1]).sees_n1()),
        given("external IPs by UDP", [service().udp().on([A1, B1]).external_ip()])
            .row("2.4, 8.5", "from outside", Outside, ExternalIp, by([A1, B1]).sees_n1())
            .row("2.4, 8.5", "from a pod", Pod, ExternalIp, by([A1, B1]).sees_n1())
            .kept_by_sockets(),
        given(
            "two slices with different port numbers",
            [service().on([A1]).slice(slice([B1]).ports(json!([{"name": "main", "protocol": "TCP", "port": 8081}])))],
        )
        .row("2.5", "each slice has its own target port", Pod, ClusterIp, by([A1]).and_at_8081(B1)),
        given("TCP and UDP on one port", [service().on([A1, B1]).port("datagrams", "UDP", 80, 8081)])
            .row("2.6", "TCP goes to its endpoints", Pod, ClusterIp, by([A1, B1]))
            .row("2.6", "UDP to its own", Pod, ClusterIp, by([A1, B1]).at_8081())
            .udp(),
        given("two ports", [service().on([A1, B1]).node_port().port("second", "TCP", 81, 8081)])
            .row("2.5", "the first by its ClusterIP", Pod, ClusterIp, by([A1, B1]))
            .row("2.5", "the second by its ClusterIP", Pod, ClusterIp, by([A1, B1]).at_8081())
            .port(81)
            .row("2.5", "the first by its NodePort", Outside, NodePort, by([A1, B1]))
            .row("2.5", "the second by its NodePort", Outside, NodePort, by([A1, B1]).at_8081())
            .port(81),
        given(
            "an external IP that is the node's, with the port of another Service's NodePort",
            [
                service().on([A1]).node_port().external_local(),
                service()
                    .on([B1])
                    .set("/spec/externalIPs", json!(["192.0.2.1", "2001:db8::1"]))
                    .set_at("/spec/ports/0/port", |at| json!(At { service: 0, ..*at }.node_port(0))),
            ],
        )
        .row("2.7", "the address and port go before the NodePort", Outside, NodePort, by([B1]))
        .row("2.7", "from a pod too", Pod, NodePort, by([B1]))
        .row(
            "2.7",
            "the NodePort keeps the node's other addresses",
            Outside,
            crate::scenario::Target::NodePortSecond,
            by([A1]),
        ),
        given("four endpoints", [service().on([A1, A2, B1, B2]).node_port()])
            .row("2.8", "strict turns from a pod", Pod, ClusterIp, by([A1, A2, B1, B2]))
            .row("2.8", "strict turns from outside", Outside, NodePort, by([A1, A2, B1, B2])),
        given("endpoints that come and go", [service().on([A1, A2, B1])])
            .row("2.8", "three in turn", Pod, ClusterIp, by([A1, A2, B1]))
            .then([service().on([A1, B1])])
            .row("2.8", "one goes: the others in turn", Pod, ClusterIp, by([A1, B1]))
            .then([service().on([A1, A2, B1, B2])])
            .row("2.8", "two come: all in turn", Pod, ClusterIp, by([A1, A2, B1, B2])),
        given("an endpoint on the node's own network", [service().on([N1]).node_port()])
            .row("2.2", "from a pod by its ClusterIP", Pod, ClusterIp, by([N1]).sees_client())
            .row("2.2", "from a pod of another node by its ClusterIP", PodElsewhere, ClusterIp, by([N1]))
            .row(
                "8.11",
                "from outside by the NodePort: not masqueraded on its way in",
                Outside,
                NodePort,
                by([N1]).sees_client(),
            )
            .row("8.11", "from the node by the NodePort", Node, NodePort, by([N1]).sees_n1()),
        given("the Service's own endpoint as client", [service().on([A1]).node_port().external_ip()])
            .row("8.7", "hairpin by ClusterIP is masqueraded", PodA1, ClusterIp, by([A1]).sees_n1())
            .kept_by_sockets()
            .row("8.7", "hairpin by NodePort", PodA1, NodePort, by([A1]).sees_n1())
            .kept_by_sockets()
            .row("8.7", "hairpin by external IP", PodA1, ExternalIp, by([A1]).sees_n1())
            .kept_by_sockets(),
    ]
}
