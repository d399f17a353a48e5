//! Section 4: conditions of endpoints, those that end, duplicates.

use serde_json::json;

use crate::{
    objects::{
        Server::{A1, A2, B1, B2},
        service, slice,
    },
    scenario::{
        Client::{Outside, Pod},
        Group,
        Outcome::{Refused, Silence},
        Target::{ClusterIp, NodePort},
        by, given,
    },
};

pub(super) fn groups() -> Vec<Group> {
    let mut groups = conditions();
    groups.extend(terminating());
    groups.extend(slices());
    groups
}

fn conditions() -> Vec<Group> {
    vec![
        given("endpoints without conditions", [service().on([A1.is(&json!({})), B1.is(&json!({}))])]).row(
            "4.1",
            "no condition means ready",
            Pod,
            ClusterIp,
            by([A1, B1]),
        ),
        given(
            "an endpoint that is ready and terminating, beside a ready one",
            [service().on([A1.is(&json!({"ready": true, "terminating": true})), B1.into()])],
        )
        .row("4.1", "ready counts", Pod, ClusterIp, by([A1, B1])),
        given(
            "an endpoint that is not ready, beside two ready ones",
            [service().on([A1.into(), A2.not_ready(), B1.into()])],
        )
        .row("4.2", "ready ones only", Pod, ClusterIp, by([A1, B1])),
        given(
            "endpoints that are not ready but serving",
            [service().on([A1.is(&json!({"ready": false, "serving": true}))])],
        )
        .row("4.3", "they are never used", Pod, ClusterIp, Refused),
        given("an endpoint that becomes ready", [service().on([A1.into(), B1.not_ready()])])
            .row("4.2", "first one of two", Pod, ClusterIp, by([A1]))
            .then([service().on([A1, B1])])
            .row("4.2", "then both", Pod, ClusterIp, by([A1, B1]))
            .then([service().on([A1.not_ready(), B1.not_ready()])])
            .row("4.2", "then none", Pod, ClusterIp, Refused),
    ]
}

fn terminating() -> Vec<Group> {
    vec![
        given("a ready endpoint and a terminating one", [service().on([A1.terminating(), B1.into()])]).row(
            "4.3",
            "the ready one only",
            Pod,
            ClusterIp,
            by([B1]),
        ),
        given(
            "only terminating endpoints, one of them serving no more",
            [service().on([
                A1.terminating(),
                B1.terminating(),
                B2.is(&json!({"ready": false, "serving": false, "terminating": true})),
            ])],
        )
        .row("4.3", "those that serve are used to the end", Pod, ClusterIp, by([A1, B1])),
        given(
            "only terminating endpoints that do not serve",
            [service().on([A1.is(&json!({"ready": false, "serving": false, "terminating": true}))]).node_port()],
        )
        .row("4.6", "a pod is refused", Pod, ClusterIp, Refused)
        .row("4.6", "a client outside is refused", Outside, NodePort, Refused),
        given(
            "externalTrafficPolicy Local, a terminating endpoint here, a ready one on n2",
            [service().on([A1.terminating(), B1.into()]).node_port().external_local()],
        )
        .row("4.4", "from outside: the terminating one here", Outside, NodePort, by([A1]).sees_client())
        .row("4.4", "by ClusterIP: the ready one there", Pod, ClusterIp, by([B1]))
        .row("4.4, 3.5", "from a pod by NodePort: the ready one there", Pod, NodePort, by([B1])),
        given(
            "internalTrafficPolicy Local, a terminating endpoint here, a ready one on n2",
            [service().on([A1.terminating(), B1.into()]).internal_local()],
        )
        .row("4.4", "the terminating one here", Pod, ClusterIp, by([A1])),
        given(
            "externalTrafficPolicy Local, a terminating endpoint on n2 only",
            [service().on([B1.terminating()]).node_port().external_local()],
        )
        .row("4.5", "from outside: nothing, since there is one elsewhere", Outside, NodePort, Silence)
        .row("4.5, 3.5", "a pod is served", Pod, NodePort, by([B1])),
        given(
            "terminating endpoints with hints for other zones",
            [service().on([
                A1.for_zones(&["z2"]).with("conditions", json!({"ready": false, "serving": true, "terminating": true})),
                B1.for_zones(&["z1"]).with("conditions", json!({"ready": false, "serving": true, "terminating": true})),
            ])],
        )
        .row("4.3, 5.2", "hints do not count among them", Pod, ClusterIp, by([A1, B1])),
    ]
}

fn slices() -> Vec<Group> {
    vec![
        given(
            "an endpoint without nodeName, internalTrafficPolicy Local",
            [service().on([A1.is(&json!({})).with("nodeName", json!(null))]).internal_local()],
        )
        .row("4.7", "it is not local", Pod, ClusterIp, Silence),
        given("an endpoint with two addresses", [service().on([A1.is(&json!({})).also(A2), B1.into()])]).row(
            "4.8",
            "the first one counts",
            Pod,
            ClusterIp,
            by([A1, B1]),
        ),
        given(
            "an endpoint without addresses",
            [service().on([A1.is(&json!({})).with("addresses", json!([])), B1.into()])],
        )
        .row("4.8", "it is skipped", Pod, ClusterIp, by([B1])),
        given(
            "a slice of addressType FQDN beside ordinary ones",
            [service().on([A1]).slice(
                slice([B1.is(&json!({})).with("addresses", json!(["b1.example.org"]))])
                    .set("/addressType", json!("FQDN")),
            )],
        )
        .row("4.9", "it is ignored", Pod, ClusterIp, by([A1])),
        given("three slices", [service().on([A1]).on([A2]).on([B1])]).row(
            "4.10",
            "their endpoints are united",
            Pod,
            ClusterIp,
            by([A1, A2, B1]),
        ),
        given("two slices that share an endpoint", [service().on([A1, A2]).on([A2, B1])]).row(
            "4.10",
            "it is one endpoint, with one turn",
            Pod,
            ClusterIp,
            by([A1, A2, B1]),
        ),
        given(
            "two slices with one address and two ports",
            [service().on([A1]).slice(slice([A1]).ports(json!([{"name": "main", "protocol": "TCP", "port": 8081}])))],
        )
        .row("4.10", "they are two endpoints", Pod, ClusterIp, by([A1]).and_at_8081(A1)),
        given(
            "one address terminating in one slice and ready in the next",
            [service().on([A1.terminating(), B1.into()]).on([A1])],
        )
        .row("4.11", "the ready one wins", Pod, ClusterIp, by([A1, B1])),
        given(
            "one address ready in one slice and terminating in the next",
            [service().on([A1, B1]).on([A1.terminating()])],
        )
        .row("4.11", "the ready one wins in this order too", Pod, ClusterIp, by([A1, B1])),
    ]
}
