//! Section 8: masquerading, where other flags are needed. Most rules of this section are seen in the rows of others.

use crate::{
    objects::{
        Server::{A1, A2, B1},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodA1, PodElsewhere},
        Flags, Group, Mode,
        Target::{ClusterIp, ExternalIp, NodePort},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    vec![
        given("masqueradeAll", [service().on([A1, B1])])
            .with(Flags::MasqueradeAll)
            .row("8.4", "pods are masqueraded", Pod, ClusterIp, by([A1, B1]).sees_n1())
            .kept_by_sockets()
            .row("8.4", "the node", Node, ClusterIp, by([A1, B1]).sees_n1())
            .row("8.4", "clients outside", Outside, ClusterIp, by([A1, B1]).sees_n1()),
        given("masqueradeAll with externalTrafficPolicy Local", [service().on([A1, B1]).node_port().external_local()])
            .with(Flags::MasqueradeAll)
            .row("8.9", "clients outside keep their address", Outside, NodePort, by([A1]).sees_client())
            .row("8.9, 3.5", "pods too, at all endpoints", Pod, NodePort, by([A1, B1]).sees_client()),
        given(
            "externalTrafficPolicy Local, and a pod of n2 that nobody masquerades; hints leave one of two endpoints",
            [service().on([A1.for_zones(&["z1"]), A2.for_zones(&["z2"])]).node_port().external_local()],
        )
        .with(Flags::MasqueradeAll)
        .row(
            "3.7",
            "it is in the cluster's network: short circuit to the cluster's list",
            PodElsewhere,
            NodePort,
            by([A1]).sees_client(),
        )
        .row("3.7", "a client outside has the node's list", Outside, NodePort, by([A1, A2]).sees_client()),
        given("no detector of pods", [service().on([A1]).node_port()])
            .with(Flags::NoDetector)
            .row("8.3", "pods keep their address", Pod, ClusterIp, by([A1]).sees_client())
            .row("8.3", "the node keeps its own", Node, ClusterIp, by([A1]).sees_client())
            .row("8.3", "clients outside keep theirs", Outside, ClusterIp, by([A1]).sees_client())
            .row("8.5", "the NodePort is masqueraded all the same", Outside, NodePort, by([A1]).sees_n1())
            .row("8.7", "and so is hairpin", PodA1, ClusterIp, by([A1]).sees_n1())
            .kept_by_sockets(),
        given("pods told by the Node's pod CIDRs", [service().on([A1, B1]).node_port()])
            .with(Flags::NodeCidr)
            .row("8.1, 8.8", "pods keep their address", Pod, ClusterIp, by([A1, B1]).sees_client())
            .row("8.2, 8.8", "the node is outside of them", Node, ClusterIp, by([A1, B1]).sees_n1())
            .row("8.2, 8.8", "clients outside are masqueraded", Outside, ClusterIp, by([A1, B1]).sees_n1()),
        given(
            "pods told by the Node's pod CIDRs, externalTrafficPolicy Local",
            [service().on([A1, B1]).node_port().external_local()],
        )
        .with(Flags::NodeCidr)
        .row("3.5, 8.8", "pods have all endpoints", Pod, NodePort, by([A1, B1]).sees_client())
        .row("3.4", "clients outside have the node's", Outside, NodePort, by([A1]).sees_client()),
        given("pods told by the names of their interfaces", [service().on([A1, B1]).node_port()])
            .with(Flags::InterfacePrefix)
            .row("8.1, 8.8", "pods keep their address", Pod, ClusterIp, by([A1, B1]).sees_client())
            .row("8.2, 8.8", "packets of the node have no input interface", Node, ClusterIp, by([A1, B1]).sees_n1())
            .row("8.2, 8.8", "clients outside are masqueraded", Outside, ClusterIp, by([A1, B1]).sees_n1()),
        given(
            "pods told by the names of their interfaces, externalTrafficPolicy Local",
            [service().on([A1, B1]).node_port().external_local().external_ip()],
        )
        .with(Flags::InterfacePrefix)
        .row("3.5, 8.8", "pods have all endpoints", Pod, NodePort, by([A1, B1]).sees_client())
        .row("3.5, 8.8", "by external IP too", Pod, ExternalIp, by([A1, B1]).sees_client())
        .row("3.4", "clients outside have the node's", Outside, NodePort, by([A1]).sees_client())
        .row("3.6", "the node has all", Node, NodePort, by([A1, B1]).sees_n1()),
        given("local traffic told by one interface, which is not that of pods", [service().on([A1, A2])])
            .with(Flags::Bridge)
            .row("8.1, 8.8", "what comes in by it keeps its address", Outside, ClusterIp, by([A1, A2]).sees_client())
            .row("8.2, 8.8", "pods come in by another", Pod, ClusterIp, by([A1, A2]).sees_n1())
            .kept_by_sockets()
            .row("8.2, 8.8", "packets of the node have no input interface", Node, ClusterIp, by([A1, A2]).sees_n1()),
        given(
            "local traffic told by one interface, externalTrafficPolicy Local; hints leave one of two endpoints",
            [service().on([A1.for_zones(&["z1"]), A2.for_zones(&["z2"])]).node_port().external_local()],
        )
        .with(Flags::Bridge)
        .row("3.5, 8.8", "what comes in by it has the cluster's list", Outside, NodePort, by([A1]).sees_client())
        .row("3.4, 8.8", "pods count as clients outside: the node's list", Pod, NodePort, by([A1, A2]).sees_client())
        .otherwise(&[Mode::Ebpf], &by([A1]).sees_client(), "a socket is known to be of this node"),
        given(
            "externalTrafficPolicy Local, its own endpoint as client",
            [service().on([A1]).node_port().external_local()],
        )
        .row("8.7", "hairpin is masqueraded whatever the policy", PodA1, NodePort, by([A1]).sees_n1())
        .kept_by_sockets(),
        given("hairpin by UDP", [service().udp().on([A1])])
            .row("8.7", "a connected socket", PodA1, ClusterIp, by([A1]).sees_n1())
            .kept_by_sockets()
            .row("8.7", "a socket without connect", PodA1, ClusterIp, by([A1]).sees_n1())
            .sendto()
            .kept_by_sockets(),
        given("the Service's own endpoint among others as client", [service().on([A1, B1])]).row(
            "8.7",
            "it reaches itself and the other in turn",
            PodA1,
            ClusterIp,
            by([A1, B1]),
        ),
    ]
}
