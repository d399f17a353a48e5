//! Section 3: traffic policies.

use crate::{
    objects::{
        Server::{A1, A2, B1},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodElsewhere},
        Flags, Group, Mode,
        Outcome::{Refused, Silence},
        Target::{ClusterIp, ExternalIp, LoadBalancer, NodePort, NodePortElsewhere, NodePortSecond},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    let mut groups = internal();
    groups.extend(external());
    groups.extend(both());
    groups
}

fn internal() -> Vec<Group> {
    vec![
        given("internalTrafficPolicy Local, endpoints on both nodes", [service().on([A1, A2, B1]).internal_local()])
            .row("3.1", "a pod gets its node's endpoints", Pod, ClusterIp, by([A1, A2]).sees_client())
            .row("3.1", "a pod of another node gets that one's", PodElsewhere, ClusterIp, by([B1]).sees_client())
            .row("3.1", "the node gets its own", Node, ClusterIp, by([A1, A2]).sees_n1())
            .row("3.1", "from outside, those of the node it enters by", Outside, ClusterIp, by([A1, A2]).sees_n1()),
        given("internalTrafficPolicy Local, endpoints on n2 only", [service().on([B1]).internal_local()])
            .row("3.2", "a pod of n1 gets nothing", Pod, ClusterIp, Silence)
            .row("3.2", "the node gets nothing", Node, ClusterIp, Silence)
            .row("3.2", "a client outside gets nothing", Outside, ClusterIp, Silence)
            .row("3.2", "a pod of n2 is served", PodElsewhere, ClusterIp, by([B1])),
        given("internalTrafficPolicy Local by UDP, endpoints on n2 only", [service().udp().on([B1]).internal_local()])
            .row("3.2", "a connected socket gets nothing", Pod, ClusterIp, Silence)
            .row("3.2", "a socket without connect gets nothing", Pod, ClusterIp, Silence)
            .sendto()
            .row("3.2", "a pod of n2 is served", PodElsewhere, ClusterIp, by([B1])),
        given("internalTrafficPolicy Local, no endpoint", [service().internal_local()])
            .row("3.2", "a pod is refused", Pod, ClusterIp, Refused)
            .row("3.2", "the node is refused", Node, ClusterIp, Refused),
        given("internalTrafficPolicy Local with a NodePort", [service().on([A1, B1]).internal_local().node_port()])
            .row("3.1, 3.8", "the NodePort has all endpoints", Outside, NodePort, by([A1, B1]).sees_n1())
            .row("3.1, 3.8", "the ClusterIP those of the node", Pod, ClusterIp, by([A1])),
    ]
}

fn external() -> Vec<Group> {
    vec![
        given(
            "externalTrafficPolicy Local, NodePort, endpoints on both nodes",
            [service().on([A1, A2, B1]).node_port().external_local()],
        )
        .row("3.4, 8.6", "from outside: this node's, who see the client", Outside, NodePort, by([A1, A2]).sees_client())
        .row("3.4, 8.6", "at n2: that node's", Outside, NodePortElsewhere, by([B1]).sees_client())
        .row("3.5, 8.6", "a pod gets all, who see the pod", Pod, NodePort, by([A1, A2, B1]).sees_client())
        .row("3.5", "a pod at another address of the node", Pod, NodePortSecond, by([A1, A2, B1]).sees_client())
        .row("3.6, 8.6", "the node gets all, who see the node", Node, NodePort, by([A1, A2, B1]).sees_n1())
        .row("3.7", "a pod of n2 that n2 masquerades counts as outside", PodElsewhere, NodePort, by([A1, A2]).sees_n2())
        .row("3.3", "the ClusterIP has all endpoints", Pod, ClusterIp, by([A1, A2, B1]).sees_client()),
        given(
            "externalTrafficPolicy Local, NodePort, endpoints on n2 only",
            [service().on([B1]).node_port().external_local()],
        )
        .row("3.4", "from outside: nothing", Outside, NodePort, Silence)
        .row("3.4", "at n2: served", Outside, NodePortElsewhere, by([B1]).sees_client())
        .row("3.5", "a pod is served all the same", Pod, NodePort, by([B1]).sees_client())
        .row("3.6", "the node is served all the same", Node, NodePort, by([B1]).sees_n1()),
        given("externalTrafficPolicy Local, no endpoint", [service().node_port().external_local()])
            .row("3.4", "from outside: refused", Outside, NodePort, Refused)
            .row("3.4", "a pod is refused", Pod, NodePort, Refused)
            .row("3.4", "the node is refused", Node, NodePort, Refused),
        given(
            "externalTrafficPolicy Local, external IP and LoadBalancer, endpoints on both nodes",
            [service().on([A1, B1]).external_ip().load_balancer().external_local()],
        )
        .row(
            "3.4, 8.6",
            "external IP from outside: this node's, who see the client",
            Outside,
            ExternalIp,
            by([A1]).sees_client(),
        )
        .row("3.4, 8.6", "LoadBalancer from outside: the same", Outside, LoadBalancer, by([A1]).sees_client())
        .row("3.5, 8.6", "external IP from a pod: all", Pod, ExternalIp, by([A1, B1]).sees_client())
        .row("3.5, 8.6", "LoadBalancer from a pod: all", Pod, LoadBalancer, by([A1, B1]).sees_client())
        .row("3.6, 8.6", "external IP from the node: all", Node, ExternalIp, by([A1, B1]).sees_n1())
        .row("3.6, 8.6", "LoadBalancer from the node: all", Node, LoadBalancer, by([A1, B1]).sees_n1()),
        given(
            "externalTrafficPolicy Local, external IP and LoadBalancer, endpoints on n2 only",
            [service().on([B1]).external_ip().load_balancer().external_local()],
        )
        .row("3.4", "external IP from outside: nothing", Outside, ExternalIp, Silence)
        .row("3.4", "LoadBalancer from outside: nothing", Outside, LoadBalancer, Silence)
        .row("3.5", "LoadBalancer from a pod: served", Pod, LoadBalancer, by([B1]).sees_client())
        .row("3.6", "external IP from the node: served", Node, ExternalIp, by([B1]).sees_n1()),
        given(
            "externalTrafficPolicy Local by UDP",
            [
                service().udp().on([A1, B1]).node_port().external_local(),
                service().udp().on([B1]).node_port().external_local(),
            ],
        )
        .row("3.4, 8.6", "from outside: this node's, who see the client", Outside, NodePort, by([A1]).sees_client())
        .row("3.5, 8.6", "a pod gets all", Pod, NodePort, by([A1, B1]).sees_client())
        .row("3.4", "no endpoint here: nothing", Outside, NodePort, Silence)
        .second(),
        given(
            "externalTrafficPolicy Local without a detector of pods",
            [service().on([A1, B1]).node_port().external_local(), service().on([B1]).node_port().external_local()],
        )
        .with(Flags::NoDetector)
        .row("3.4", "from outside: this node's", Outside, NodePort, by([A1]).sees_client())
        .row("3.5", "pods count as outside", Pod, NodePort, by([A1]).sees_client())
        .otherwise(&[Mode::Ebpf], &by([A1, B1]).sees_client(), "a socket is known to be of this node")
        .row("3.6", "the node is short-circuited even so", Node, NodePort, by([A1, B1]).sees_n1())
        .row("3.6", "also when only n2 has an endpoint", Node, NodePort, by([B1]).sees_n1())
        .second(),
    ]
}

fn both() -> Vec<Group> {
    vec![
        given("both policies Local", [service().on([A1, B1]).node_port().internal_local().external_local()])
            .row("3.8", "the ClusterIP has the node's", Pod, ClusterIp, by([A1]))
            .row("3.8, 3.5", "a pod has all by the NodePort", Pod, NodePort, by([A1, B1]))
            .row("3.8, 3.4", "a client outside has the node's", Outside, NodePort, by([A1]).sees_client()),
        given("a policy that changes", [service().on([A1, B1]).node_port()])
            .row("3.3", "Cluster: all", Outside, NodePort, by([A1, B1]).sees_n1())
            .then([service().on([A1, B1]).node_port().external_local()])
            .row("3.4", "Local: the node's", Outside, NodePort, by([A1]).sees_client())
            .then([service().on([A1, B1]).node_port().internal_local()])
            .row("3.3", "Cluster again: all", Outside, NodePort, by([A1, B1]).sees_n1())
            .row("3.1", "and the other one Local now", Pod, ClusterIp, by([A1])),
    ]
}
