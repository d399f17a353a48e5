//! Section 9: Services without endpoints, source ranges, addresses and ports of no Service.

use crate::{
    objects::{
        Family,
        Server::{A1, A2, B1},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodElsewhere},
        Group, Mode,
        Outcome::{Refused, RefusedToSend, Silence, Untouched},
        Target::{ClusterIp, ExternalIp, LoadBalancer, NodePort, UnusedClusterIp},
        by, given,
    },
};

/// The node's own addresses.
const N1: [&str; 2] = ["192.0.2.1/32", "2001:db8::1/128"];
/// What the client outside has, and pods do not.
const OUTSIDE: [&str; 2] = ["192.0.2.200/32", "2001:db8::200/128"];
const PODS: [&str; 2] = ["10.244.0.0/16", "2001:db8:42::/56"];

pub(super) fn groups() -> Vec<Group> {
    let mut groups = no_endpoints();
    groups.extend(source_ranges());
    groups.extend(unknown());
    groups
}

fn no_endpoints() -> Vec<Group> {
    vec![
        given("no endpoints, every kind of address", [service().node_port().external_ip().load_balancer()])
            .row("9.1", "ClusterIP, from a pod", Pod, ClusterIp, Refused)
            .row("9.1", "ClusterIP, from the node", Node, ClusterIp, Refused)
            .row("9.1", "ClusterIP, from outside", Outside, ClusterIp, Refused)
            .row("9.1", "NodePort, from outside", Outside, NodePort, Refused)
            .row("9.1", "NodePort, from a pod", Pod, NodePort, Refused)
            .row("9.1", "NodePort, from a pod of another node", PodElsewhere, NodePort, Refused)
            .row("9.1", "NodePort, from the node", Node, NodePort, Refused)
            .row("9.1", "external IP, from outside", Outside, ExternalIp, Refused)
            .row("9.1", "external IP, from a pod", Pod, ExternalIp, Refused)
            .row("9.2", "external IP, from the node", Node, ExternalIp, Refused)
            .row("9.1", "LoadBalancer IP, from outside", Outside, LoadBalancer, Refused)
            .row("9.1", "LoadBalancer IP, from a pod", Pod, LoadBalancer, Refused)
            .row("9.2", "LoadBalancer IP, from the node", Node, LoadBalancer, Refused),
        given("no endpoints by UDP", [service().udp().node_port()])
            .row("9.3", "a connected socket of a pod", Pod, ClusterIp, Refused)
            .row("9.3", "a client outside", Outside, NodePort, Refused)
            .row("9.3", "a connected socket of the node", Node, ClusterIp, Refused)
            .otherwise(Mode::PACKETS, &RefusedToSend, "the output hook refuses under the call that sends"),
        given("endpoints that come to a Service without", [service().node_port()])
            .row("9.1", "first refused", Pod, ClusterIp, Refused)
            .then([service().on([A1, B1]).node_port()])
            .row("9.1", "then served", Pod, ClusterIp, by([A1, B1]))
            .row("9.1", "outside too", Outside, NodePort, by([A1, B1])),
    ]
}

fn source_ranges() -> Vec<Group> {
    vec![
        given(
            "source ranges of the client outside, every kind of address",
            [service().on([A1, B1]).load_balancer().external_ip().node_port().source_ranges(&OUTSIDE)],
        )
        .row("9.6", "the client outside is let in", Outside, LoadBalancer, by([A1, B1]).sees_n1())
        .row("9.6", "a pod is not", Pod, LoadBalancer, Silence)
        .row("9.6", "the node is not", Node, LoadBalancer, Silence)
        .row("2.2, 9.6", "the NodePort has no ranges", Pod, NodePort, by([A1, B1]))
        .row("9.6", "the external IP has none", Pod, ExternalIp, by([A1, B1]))
        .row("9.6", "the ClusterIP has none", Pod, ClusterIp, by([A1, B1])),
        given("source ranges of pods", [service().on([A1, B1]).load_balancer().source_ranges(&PODS)])
            .row("9.6", "the client outside is not let in", Outside, LoadBalancer, Silence)
            .row("9.6", "a pod is", Pod, LoadBalancer, by([A1, B1]))
            .row("9.6", "a pod of another node is", PodElsewhere, LoadBalancer, by([A1, B1])),
        given(
            "source ranges with spaces around them",
            [service().on([A1]).load_balancer().source_ranges(&[" 192.0.2.0/24 ", "\t2001:db8::/64"])],
        )
        .row("9.6", "they are understood", Outside, LoadBalancer, by([A1]))
        .row("9.6", "and hold", Pod, LoadBalancer, Silence),
        given("source ranges of IPv4 only", [service().on([A1]).load_balancer().source_ranges(&["10.0.0.0/8"])])
            .row("9.6", "IPv4 is restricted", Outside, LoadBalancer, Silence)
            .only(Family::V4)
            .row("9.6", "IPv6 is not", Outside, LoadBalancer, by([A1]))
            .only(Family::V6),
        given(
            "source ranges with everybody among them",
            [service().on([A1]).load_balancer().source_ranges(&["10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0"])],
        )
        .row("9.6", "everybody is let in", Outside, LoadBalancer, by([A1])),
        given("source ranges without endpoints", [service().load_balancer().source_ranges(&OUTSIDE)])
            .row("9.8", "who is let in is refused", Outside, LoadBalancer, Refused)
            .row("9.8", "who is not, hears nothing", Pod, LoadBalancer, Silence),
        given(
            "source ranges with externalTrafficPolicy Local",
            [service()
                .on([A1, B1])
                .load_balancer()
                .external_local()
                .source_ranges(&[OUTSIDE[0], OUTSIDE[1], PODS[0], PODS[1]])],
        )
        .row("9.9", "the client outside: this node's, who see it", Outside, LoadBalancer, by([A1]).sees_client())
        .row("9.9", "a pod: all", Pod, LoadBalancer, by([A1, B1]).sees_client())
        .row("9.6", "the node is not let in", Node, LoadBalancer, Silence),
        given(
            "source ranges of n1, which has the LoadBalancer IP itself",
            [service().on([A1, A2]).load_balancer().source_ranges(&N1)],
        )
        .with_load_balancer_on_n1()
        .row("9.7", "the node, whose packets come from that IP, is let in", Node, LoadBalancer, by([A1, A2]).sees_n1())
        .row("9.7", "a pod is not", Pod, LoadBalancer, Silence),
        given(
            "source ranges of others than n1, which has the LoadBalancer IP itself",
            [service().on([A1, A2]).load_balancer().source_ranges(&OUTSIDE)],
        )
        .with_load_balancer_on_n1()
        .row("9.7", "the node is not let in either", Node, LoadBalancer, Silence)
        .row("9.6", "the client outside is", Outside, LoadBalancer, by([A1, A2]).sees_n1()),
        given("source ranges by UDP", [service().udp().on([A1, A2]).load_balancer().source_ranges(&OUTSIDE)])
            .row("9.6", "the client outside is let in", Outside, LoadBalancer, by([A1, A2]))
            .row("9.6", "a pod is not", Pod, LoadBalancer, Silence)
            .row("9.6", "without connect neither", Pod, LoadBalancer, Silence)
            .sendto(),
        given("source ranges that change", [service().on([A1]).load_balancer().source_ranges(&PODS)])
            .row("9.6", "not among them", Outside, LoadBalancer, Silence)
            .then([service().on([A1]).load_balancer().source_ranges(&OUTSIDE)])
            .row("9.6", "among them", Outside, LoadBalancer, by([A1]))
            .then([service().on([A1]).load_balancer()])
            .row("9.6", "no ranges any more", Pod, LoadBalancer, by([A1])),
    ]
}

fn unknown() -> Vec<Group> {
    vec![
        given(
            "a Service of TCP and one of UDP",
            [service().on([A1]).external_ip().load_balancer(), service().udp().on([A1])],
        )
        .row("9.10", "another port of a ClusterIP, from a pod", Pod, ClusterIp, Refused)
        .port(82)
        .row("9.10", "from the node", Node, ClusterIp, Refused)
        .port(82)
        .row("9.10", "from outside", Outside, ClusterIp, Refused)
        .port(82)
        .row("9.10", "another protocol", Pod, ClusterIp, Refused)
        .second()
        .tcp()
        .row("2.4", "another port of an external IP", Pod, ExternalIp, Untouched)
        .port(82)
        .row("2.3", "another port of a LoadBalancer IP", Outside, LoadBalancer, Untouched)
        .port(82)
        .row("9.11", "a ClusterIP of no Service", Pod, UnusedClusterIp, Untouched)
        .row("9.11", "from the node", Node, UnusedClusterIp, Untouched),
    ]
}
