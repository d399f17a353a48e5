//! Section 7: session affinity.

use std::time::Duration;

use crate::{
    objects::{
        Server::{A1, A2, B1},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodElsewhere},
        Group,
        Order::{One, Other, Same},
        Target::{ClusterIp, ExternalIp, LoadBalancer, NodePort},
        by, given,
    },
};

const ENDPOINTS: [crate::objects::Server; 3] = [A1, A2, B1];

pub(super) fn groups() -> Vec<Group> {
    let all = || by(ENDPOINTS);
    vec![
        given("affinity ClientIP", [service().on(ENDPOINTS).affinity(10_800)])
            .row("7.1", "a pod stays with one endpoint", Pod, ClusterIp, all().order(One).sees_client())
            .row("7.1", "and comes back to it", Pod, ClusterIp, all().order(Same))
            .row("7.1", "the node is another client", Node, ClusterIp, all().order(Other))
            .row("7.1", "a pod of another node has one too", PodElsewhere, ClusterIp, all().order(One)),
        given(
            "affinity ClientIP with every kind of address",
            [service().on(ENDPOINTS).affinity(10_800).external_ip().load_balancer().node_port()],
        )
        .row("7.1", "a pod by ClusterIP", Pod, ClusterIp, all().order(One))
        .row("7.1", "the same endpoint by NodePort", Pod, NodePort, all().order(Same))
        .row("7.1", "by external IP", Pod, ExternalIp, all().order(Same))
        .row("7.1", "by LoadBalancer IP", Pod, LoadBalancer, all().order(Same)),
        given(
            "affinity ClientIP with external addresses",
            [service().on(ENDPOINTS).affinity(10_800).external_ip().node_port()],
        )
        .row("7.1", "a client outside by NodePort", Outside, NodePort, all().order(One).sees_n1())
        .row("7.1", "the same endpoint by external IP", Outside, ExternalIp, all().order(Same).sees_n1()),
        given("affinity ClientIP by UDP", [service().udp().on(ENDPOINTS).affinity(10_800).node_port()])
            .row("7.1", "a pod stays with one endpoint", Pod, ClusterIp, all().order(One))
            .row("7.1", "without connect too", Pod, ClusterIp, all().order(Same))
            .sendto()
            .row("7.1", "a client outside stays with one", Outside, NodePort, all().order(One)),
        given(
            "affinity ClientIP with two ports",
            [service().on(ENDPOINTS).port("second", "TCP", 81, 8081).affinity(10_800)],
        )
        .row("7.1", "one endpoint for the first port", Pod, ClusterIp, all().order(One))
        .row("7.1", "one for the second", Pod, ClusterIp, all().at_8081().order(One))
        .port(81),
        given("affinity of 4 seconds, two endpoints", [service().on([A1, B1]).affinity(4).node_port()])
            .row("7.2", "one endpoint", Pod, ClusterIp, by([A1, B1]).order(One))
            .row("7.2", "the same after 2.5 s", Pod, ClusterIp, by([A1, B1]).order(Same))
            .after(Duration::from_millis(2500))
            .row("7.2", "the same after 2.5 s more: the time slides", Pod, ClusterIp, by([A1, B1]).order(Same))
            .after(Duration::from_millis(2500))
            .row("7.2", "the next one after 6 s", Pod, ClusterIp, by([A1, B1]).order(Other))
            .after(Duration::from_secs(6)),
        given("affinity of 4 seconds for a client outside", [service().on([A1, B1]).affinity(4).node_port()])
            .row("7.2", "one endpoint", Outside, NodePort, by([A1, B1]).order(One))
            .row("7.2", "the same after 2.5 s", Outside, NodePort, by([A1, B1]).order(Same))
            .after(Duration::from_millis(2500))
            .row("7.2", "the same after 2.5 s more: the time slides", Outside, NodePort, by([A1, B1]).order(Same))
            .after(Duration::from_millis(2500))
            .row("7.2", "the next one after 6 s", Outside, NodePort, by([A1, B1]).order(Other))
            .after(Duration::from_secs(6)),
        given("affinity, and the endpoint goes", [service().on([A1]).affinity(10_800).node_port()])
            .row("7.5", "first one", Pod, ClusterIp, by([A1]).order(One))
            .row("7.5", "for a client outside too", Outside, NodePort, by([A1]).order(One))
            .then([service().on([B1]).affinity(10_800).node_port()])
            .row("7.5", "then the other", Pod, ClusterIp, by([B1]).order(One))
            .row("7.5", "for a client outside too", Outside, NodePort, by([B1]).order(One))
            .then([service().on([A1, B1]).affinity(10_800).node_port()])
            .row("7.5", "and it stays there", Pod, ClusterIp, by([B1]).order(One))
            .row("7.5", "the client outside too", Outside, NodePort, by([B1]).order(One)),
        given(
            "affinity with externalTrafficPolicy Local",
            [service().on(ENDPOINTS).affinity(10_800).node_port().external_local()],
        )
        .row("7.6", "a pod has one of all", Pod, NodePort, all().order(One))
        .row("7.6", "a client outside one of the node's", Outside, NodePort, by([A1, A2]).order(One).sees_client())
        .row("7.6", "and keeps it", Outside, NodePort, by([A1, A2]).order(Same).sees_client()),
        given("affinity ClientIP that is switched off", [service().on([A1, B1]).affinity(10_800)])
            .row("7.1", "with it, one endpoint", Pod, ClusterIp, by([A1, B1]).order(One))
            .then([service().on([A1, B1])])
            .row("2.8", "without it, both in turn", Pod, ClusterIp, by([A1, B1])),
    ]
}
