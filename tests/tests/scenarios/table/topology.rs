//! Section 5: topology hints. n1 is in zone z1, n2 in zone z2.

use serde_json::json;

use crate::{
    objects::{
        Server::{A1, A2, B1, B2},
        service,
    },
    scenario::{
        Client::{Node, Outside, Pod, PodElsewhere},
        Flags, Group,
        Target::{ClusterIp, NodePort},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    let mut groups = zones();
    groups.extend(nodes());
    groups.extend(scope());
    groups
}

fn zones() -> Vec<Group> {
    vec![
        given(
            "hints for both zones",
            [service().on([A1.for_zones(&["z1"]), A2.for_zones(&["z1"]), B1.for_zones(&["z2"])])],
        )
        .row("5.3", "a pod stays in its zone", Pod, ClusterIp, by([A1, A2]))
        .row("5.3", "a pod of the other zone in that one", PodElsewhere, ClusterIp, by([B1]))
        .row("5.3", "the node in its own", Node, ClusterIp, by([A1, A2])),
        given("an endpoint for both zones", [service().on([A1.for_zones(&["z1"]), B1.for_zones(&["z1", "z2"])])])
            .row("5.3", "z1 has both", Pod, ClusterIp, by([A1, B1]))
            .row("5.3", "z2 has one", PodElsewhere, ClusterIp, by([B1])),
        given(
            "one ready endpoint without hint",
            [service().on([A1.for_zones(&["z1"]), B1.for_zones(&["z2"]), B2.into()])],
        )
        .row("5.2, 5.4", "hints are off for the whole port", Pod, ClusterIp, by([A1, B1, B2])),
        given("hints for another zone only", [service().on([A1.for_zones(&["z3"]), B1.for_zones(&["z3"])])]).row(
            "5.4",
            "all endpoints",
            Pod,
            ClusterIp,
            by([A1, B1]),
        ),
        given(
            "the only endpoint of the zone is not ready",
            [service().on([A1.for_zones(&["z1"]).with("conditions", json!({"ready": false})), B1.for_zones(&["z2"])])],
        )
        .row("5.4", "all that are ready", Pod, ClusterIp, by([B1])),
        given(
            "an endpoint that is not ready has no hint",
            [service().on([A1.for_zones(&["z1"]), A2.not_ready(), B1.for_zones(&["z2"])])],
        )
        .row("5.6", "it does not matter", Pod, ClusterIp, by([A1])),
    ]
}

fn nodes() -> Vec<Group> {
    vec![
        given("hints for nodes", [service().on([A1.for_nodes(&["n1"]), A2.for_nodes(&["n2"]), B1.for_nodes(&["n2"])])])
            .row("5.3", "n1 has its own", Pod, ClusterIp, by([A1]))
            .row("5.3", "n2 has its own", PodElsewhere, ClusterIp, by([A2, B1])),
        given(
            "hints for nodes and zones that contradict",
            [service().on([
                A1.for_nodes(&["n2"])
                    .with("hints", json!({"forNodes": [{"name": "n2"}], "forZones": [{"name": "z1"}]})),
                B1.for_nodes(&["n1"])
                    .with("hints", json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z2"}]})),
            ])],
        )
        .row("5.2", "nodes go first", Pod, ClusterIp, by([B1])),
        given(
            "hints for other nodes, and for zones",
            [service().on([
                A1.for_nodes(&[]).with("hints", json!({"forNodes": [{"name": "n3"}], "forZones": [{"name": "z1"}]})),
                B1.for_nodes(&[]).with("hints", json!({"forNodes": [{"name": "n3"}], "forZones": [{"name": "z2"}]})),
            ])],
        )
        .row("5.4", "then the zone decides", Pod, ClusterIp, by([A1])),
        given("one ready endpoint without a hint for nodes", [service().on([A1.for_nodes(&["n1"]), B1.into()])]).row(
            "5.2",
            "all endpoints",
            Pod,
            ClusterIp,
            by([A1, B1]),
        ),
    ]
}

fn scope() -> Vec<Group> {
    vec![
        given("hints with a NodePort", [service().on([A1.for_zones(&["z1"]), B1.for_zones(&["z2"])]).node_port()]).row(
            "5.5",
            "they hold for clients outside",
            Outside,
            NodePort,
            by([A1]),
        ),
        given(
            "hints with externalTrafficPolicy Local",
            [service()
                .on([A1.for_zones(&["z1"]), A2.for_zones(&["z2"]), B1.for_zones(&["z1"])])
                .node_port()
                .external_local()],
        )
        .row("5.5", "they never hold for the node's own list", Outside, NodePort, by([A1, A2]).sees_client())
        .row("5.5, 3.5", "they hold for the short circuit", Pod, NodePort, by([A1, B1])),
        given(
            "hints with internalTrafficPolicy Local",
            [service().on([A1.for_zones(&["z1"]), A2.for_zones(&["z2"]), B1.for_zones(&["z1"])]).internal_local()],
        )
        .row("5.5", "they never hold for the node's own list", Pod, ClusterIp, by([A1, A2])),
        given("a node that changes its zone", [service().on([A1.for_zones(&["z1"]), B1.for_zones(&["z2"])])])
            .with(Flags::NodeCidr)
            .row("5.7", "the endpoint of z1", Pod, ClusterIp, by([A1]))
            .then_n1_is_in("z2")
            .row("5.7", "the endpoint of z2", Pod, ClusterIp, by([B1]))
            .row("5.7", "for the node too", Node, ClusterIp, by([B1]))
            .then_n1_is_in("z1")
            .row("5.7", "the endpoint of z1 again", Pod, ClusterIp, by([A1])),
        given("hints that change", [service().on([A1.for_zones(&["z1"]), B1.for_zones(&["z2"])])])
            .row("5.3", "the zone's", Pod, ClusterIp, by([A1]))
            .then([service().on([A1.for_zones(&["z2"]), B1.for_zones(&["z1"])])])
            .row("5.3", "the zone's new one", Pod, ClusterIp, by([B1])),
    ]
}
