//! The roles allow what an agent asks the API server for, and nothing else.

use std::{collections::BTreeSet, fs};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Cluster, eventually, secs};

use crate::render::overlay;

/// Allowed, but not seen in a short test: an event is patched when it is told again within six minutes, and the agent tells
/// the same once a minute at most.
const LATER: &str = "patch events.k8s.io events";

const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: NodePort, clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.2]}]
";

/// What the roles of an overlay allow, a line for each verb and resource.
fn allowed(name: &str) -> Result<BTreeSet<String>> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut allowed = BTreeSet::new();
    for role in overlay(name)?.iter().filter(|object| object["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in words(&rule["apiGroups"]) {
                let group = if group.is_empty() { "core" } else { &group };
                for resource in words(&rule["resources"]) {
                    allowed.extend(words(&rule["verbs"]).iter().map(|verb| format!("{verb} {group} {resource}")));
                }
            }
        }
    }
    ensure!(!allowed.iter().any(|line| line.contains('*')), "{name}: {allowed:?}");
    Ok(allowed)
}

/// What an agent with these components asks for, until it has asked for all of `expected`.
fn asked(components: &str, expected: &BTreeSet<String>) -> Result<()> {
    let builder = Cluster::builder().nodes(1).small_api_server().without_agents();
    let builder = builder.agent_flag("--components", components).agent_flag("--subnet-manager", "kube");
    let mut cluster = builder.build()?;
    cluster.manifests().apply("objects.yaml", OBJECTS)?;
    // From here on all requests are the agent's.
    let file = cluster.run().directory().join("requests");
    cluster.manifests_mut().kill_api_server()?;
    cluster.manifests_mut().restart_api_server_with_audit(&file)?;
    // It asks for streaming lists first, and for lists where a server has none of them.
    cluster.manifests().api_server_faults(&json!({"noStreamingLists": true}))?;
    cluster.start_agents()?;
    let seen = || -> Result<BTreeSet<String>> { Ok(fs::read_to_string(&file)?.lines().map(str::to_owned).collect()) };
    eventually(secs(60), || {
        let seen = seen()?;
        let missing: Vec<_> = expected.iter().filter(|line| *line != LATER && !seen.contains(*line)).collect();
        ensure!(missing.is_empty(), "{components}: allowed and never asked for: {missing:?}");
        Ok(())
    })?;
    // A change and an end of the agent ask for nothing else.
    cluster.manifests().apply_object(&serde_saphyr::from_str(
        "{apiVersion: v1, kind: Service, metadata: {name: other, namespace: default}, spec: {clusterIP: 10.96.0.11, ports: [{port: 80}]}}",
    )?)?;
    cluster.node(1).agent().stop()?;
    let own = "patch core services";
    let seen: Vec<String> = seen()?.into_iter().filter(|line| line != own && !expected.contains(line)).collect();
    ensure!(seen.is_empty(), "{components}: asked for and not allowed: {seen:?}");
    cluster.shutdown()
}

#[test]
fn all_components_ask_for_exactly_what_they_may() -> Result<()> {
    asked("overlay,proxy,cni", &allowed("kubeadm")?)
}

#[test]
fn services_alone_ask_for_exactly_what_they_may() -> Result<()> {
    asked("proxy", &allowed("proxy-only")?)
}

#[test]
fn the_pod_network_alone_asks_for_exactly_what_it_may() -> Result<()> {
    asked("overlay,cni", &allowed("overlay-only")?)
}

/// Leases are in etcd then, which knows no roles of Kubernetes.
#[test]
fn with_etcd_the_agent_may_what_services_need() -> Result<()> {
    assert_eq!(allowed("etcd")?, allowed("proxy-only")?);
    for name in ["no-kube-proxy", "migrate-from-flannel"] {
        assert_eq!(allowed(name)?, allowed("kubeadm")?, "{name}");
    }
    Ok(())
}
