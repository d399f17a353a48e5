//! Section 1: which objects are looked at.

use serde_json::json;

use crate::{
    objects::{
        At,
        Server::{A1, B1},
        service, slice,
    },
    scenario::{
        Client::{Node, Outside, Pod},
        Group, Mode,
        Outcome::{Refused, Untouched},
        Target::{ClusterIp, ExternalIp, LoadBalancer, NodePort},
        by, given,
    },
};

const PROXY_NAME: &str = "/metadata/labels/service.kubernetes.io~1service-proxy-name";

pub(super) fn groups() -> Vec<Group> {
    vec![
        given(
            "a Service with the label service-proxy-name",
            [service().on([A1]).node_port().set(PROXY_NAME, json!("other"))],
        )
        .row("1.1", "it belongs to another proxy", Pod, ClusterIp, Untouched)
        .row("1.1", "its NodePort too", Outside, NodePort, Untouched),
        given("a Service that gets the label service-proxy-name, and loses it", [service().on([A1])])
            .row("1.1", "without the label it is served", Pod, ClusterIp, by([A1]))
            .then([service().on([A1]).set(PROXY_NAME, json!("other"))])
            .row("1.1", "with the label it is gone", Pod, ClusterIp, Untouched)
            .then([service().on([A1])])
            .row("1.1", "without it, it is back", Pod, ClusterIp, by([A1])),
        given(
            "a slice with the label headless beside an ordinary one",
            [service().on([A1]).slice(slice([B1]).set("/metadata/labels/service.kubernetes.io~1headless", json!("")))],
        )
        .row("1.2", "the headless slice is not looked at", Pod, ClusterIp, by([A1])),
        given(
            "a hand-made slice with a name of its own, managed by nobody",
            [service().slice(
                slice([A1, B1]).set("/metadata/labels/endpointslice.kubernetes.io~1managed-by", json!("a-person")),
            )],
        )
        .row("1.2", "a slice belongs to its Service by label only", Pod, ClusterIp, by([A1, B1])),
        given(
            "a slice without the Service's label",
            [service().slice(slice([A1]).set("/metadata/labels/kubernetes.io~1service-name", json!(null)))],
        )
        .row("1.2", "it is no endpoint of anything", Pod, ClusterIp, Refused),
        given(
            "type ExternalName with a ClusterIP",
            [service()
                .on([A1])
                .set("/spec/type", json!("ExternalName"))
                .set("/spec/externalName", json!("example.org"))],
        )
        .row("1.8", "it is skipped", Pod, ClusterIp, Untouched),
        given(
            "clusterIP None with an external IP",
            [service()
                .on([A1])
                .external_ip()
                .set("/spec/clusterIP", json!("None"))
                .set("/spec/clusterIPs", json!(["None"]))],
        )
        .row("1.9", "a headless Service has no external IP either", Pod, ExternalIp, Untouched),
        given(
            "clusterIP None that becomes an address",
            [service().on([A1]).set("/spec/clusterIP", json!("None")).set("/spec/clusterIPs", json!(["None"]))],
        )
        .row("1.9", "headless: nothing is there", Pod, ClusterIp, Untouched)
        .then([service().on([A1])])
        .row("1.9", "with an address it is served", Pod, ClusterIp, by([A1])),
        given(
            "type ClusterIP with a nodePort and a LoadBalancer address",
            [service().on([A1]).node_port().load_balancer().set("/spec/type", json!("ClusterIP"))],
        )
        .row("1.10", "the type does not matter to a NodePort", Outside, NodePort, by([A1]))
        .row("1.10", "nor to a LoadBalancer address", Outside, LoadBalancer, by([A1])),
        given(
            "publishNotReadyAddresses, selector, trafficDistribution and annotations without hints",
            [service()
                .on([A1, B1])
                .set("/spec/selector", json!({"app": "other"}))
                .set("/spec/publishNotReadyAddresses", json!(true))
                .set("/spec/trafficDistribution", json!("PreferSameNode"))
                .set("/metadata/annotations", json!({"service.kubernetes.io/topology-mode": "Auto"}))],
        )
        .row("1.11", "fields that only controllers read are ignored", Pod, ClusterIp, by([A1, B1])),
        given(
            "source ranges given by the old annotation",
            [service().on([A1]).load_balancer().set(
                "/metadata/annotations",
                json!({"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"}),
            )],
        )
        .row("1.11", "the annotation is ignored", Outside, LoadBalancer, by([A1])),
        given(
            "external IPs with leading zeros and capitals, and some that are no addresses",
            [service().on([A1]).set_at("/spec/externalIPs", |at: &At| {
                let v4 = format!("198.051.{}.{:03}", 100 + at.service, at.group);
                let v6 = format!("2001:0DB8:0051:{:04X}:0000:0000:0000:{:04X}", at.service, at.group);
                json!(["", "no-address", v4, v6])
            })],
        )
        .row("1.12", "sloppy addresses are understood, bad ones skipped", Pod, ExternalIp, by([A1])),
        given(
            "a slice whose port has another name",
            [service().slice(slice([A1]).ports(json!([{"name": "other", "protocol": "TCP", "port": 8080}])))],
        )
        .row("1.13", "ports are matched by name, so there is no endpoint", Pod, ClusterIp, Refused),
        given(
            "a slice whose port has another protocol",
            [service().slice(slice([A1]).ports(json!([{"name": "main", "protocol": "UDP", "port": 8080}])))],
        )
        .row("1.13", "ports are matched by protocol too", Pod, ClusterIp, Refused),
        given(
            "a slice with a port without a number, and one with number 0",
            [service()
                .slice(slice([A1]).ports(json!([{"name": "main", "protocol": "TCP"}])))
                .slice(slice([B1]).ports(json!([{"name": "main", "protocol": "TCP", "port": 0}])))],
        )
        .row("1.13", "such ports are ignored", Node, ClusterIp, Refused),
        given(
            "a slice without ports' names for a Service without a port's name",
            [service()
                .set("/spec/ports/0/name", json!(null))
                .slice(slice([A1, B1]).ports(json!([{"name": "", "protocol": "TCP", "port": 8080}])))],
        )
        .row("1.13", "no name matches the empty name", Pod, ClusterIp, by([A1, B1])),
        given(
            "a Service that is IPv4 only",
            [service()
                .on([A1])
                .set("/spec/ipFamilies", json!(["IPv4"]))
                .set_at("/spec/clusterIPs", |at| json!([at.cluster_ip(crate::objects::Family::V4)]))
                .external_ip()],
        )
        .row("14.6", "its own family is served", Pod, ClusterIp, by([A1]))
        .only(crate::objects::Family::V4)
        .row("14.6", "there is nothing of the other family", Pod, ExternalIp, Untouched)
        .only(crate::objects::Family::V6),
        given("a Service that is deleted", [service().on([A1]), service().on([B1])])
            .row("1.1", "it is served", Pod, ClusterIp, by([A1]))
            .then([service().set(PROXY_NAME, json!("other")), service().on([B1])])
            .row("1.1", "it is gone", Pod, ClusterIp, Untouched)
            .row("1.1", "its neighbour is not", Pod, ClusterIp, by([B1]))
            .second()
            .row("1.1", "nor for clients of the node", Node, ClusterIp, by([B1]).sees_n1())
            .second()
            .otherwise(&[Mode::Ebpf], &by([B1]).sees_client(), "the node's own address, by whichever device"),
    ]
}
