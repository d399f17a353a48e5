//! Every field of every object is one of its type, with a value of the field's type.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::render::{OVERLAYS, Tree, directory, objects, only, overlay};

/// `monitoring.coreos.com/v1`, as far as we use it. The operator's types are in no crate.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrometheusRule {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: RuleSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSpec {
    groups: Vec<Group>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Alert>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    lasting: String,
    labels: Value,
    annotations: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodMonitor {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: MonitorSpec,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MonitorSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    job_label: Option<String>,
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Endpoint {
    port: String,
    relabelings: Vec<Relabeling>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    metric_relabelings: Vec<Relabeling>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Relabeling {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    source_labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replacement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
}

/// Reads it into its type and writes it again: what is lost on the way is no field.
fn strictly<T: Serialize + DeserializeOwned>(object: &Value) -> Result<()> {
    let typed: T = serde_json::from_value(object.clone())?;
    let again = serde_json::to_value(&typed)?;
    ensure!(again == *object, "a field is unknown or changes:\n{object:#}\nis read as\n{again:#}");
    Ok(())
}

fn check(object: &Value) -> Result<()> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let result = match (object["apiVersion"].as_str().unwrap_or_default(), kind) {
        ("apps/v1", "DaemonSet") => strictly::<DaemonSet>(object),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(object),
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => strictly::<ClusterRoleBinding>(object),
        ("monitoring.coreos.com/v1", "PrometheusRule") => strictly::<PrometheusRule>(object),
        ("monitoring.coreos.com/v1", "PodMonitor") => strictly::<PodMonitor>(object),
        (version, kind) => bail!("{version} {kind} is not expected here"),
    };
    result.with_context(|| format!("{kind} {}", object["metadata"]["name"]))
}

#[test]
fn all_objects_are_of_their_types() -> Result<()> {
    let tree = Tree::copy()?;
    let directories = OVERLAYS.iter().map(|name| tree.overlay(name)).chain([tree.monitoring()]);
    for directory in directories {
        for object in objects(&directory)? {
            check(&object).with_context(|| directory.display().to_string())?;
        }
    }
    Ok(())
}

/// Prometheus finds the same pods once more, under kube-proxy's name.
#[test]
fn the_second_monitor_is_of_its_type_and_of_the_same_pods() -> Result<()> {
    let path = directory().join("monitoring/as-kube-proxy.yaml");
    let second: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    check(&second)?;
    let monitoring = objects(&Tree::copy()?.monitoring())?;
    let first = only(&monitoring, "PodMonitor")?;
    assert_eq!(second["spec"]["selector"], first["spec"]["selector"]);
    let port = |monitor: &Value| monitor["spec"]["podMetricsEndpoints"][0]["port"].clone();
    assert_eq!(port(&second), port(first));
    assert_ne!(second["metadata"]["name"], first["metadata"]["name"]);
    Ok(())
}

#[test]
fn a_misspelt_field_is_found() -> Result<()> {
    let mut daemon_set = only(&overlay("kubeadm")?, "DaemonSet")?.clone();
    check(&daemon_set)?;
    daemon_set["spec"]["template"]["spec"]["hostNetwrok"] = true.into();
    assert!(check(&daemon_set).is_err());
    Ok(())
}

/// `kubectl patch` takes what is part of a DaemonSet.
#[test]
fn the_patch_of_the_old_daemon_sets_fits_them() -> Result<()> {
    let path = directory().join("overlays/migrate-from-flannel/leave-chosen-nodes.yaml");
    let patch: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    let spec = patch["spec"]["template"]["spec"].clone();
    strictly::<k8s_openapi::api::core::v1::Affinity>(&spec["affinity"])?;
    let term = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let chosen = overlay("migrate-from-flannel")?;
    let selector = &only(&chosen, "DaemonSet")?["spec"]["template"]["spec"]["nodeSelector"];
    assert_eq!(selector["weft"], term[0]["matchExpressions"][1]["values"][0], "nodes are left to the new agent");
    Ok(())
}

/// What removes the agent's work has to reach all that the agent reaches, by the same names.
#[test]
fn the_pod_that_cleans_up_is_the_agents_with_another_verb() -> Result<()> {
    let path = directory().join("overlays/migrate-from-flannel/cleanup-pod.yaml");
    let pod: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    strictly::<k8s_openapi::api::core::v1::Pod>(&pod)?;
    let all = overlay("migrate-from-flannel")?;
    let agent = &only(&all, "DaemonSet")?["spec"]["template"]["spec"];
    for field in ["serviceAccountName", "hostNetwork", "hostPID", "tolerations", "volumes"] {
        assert_eq!(pod["spec"][field], agent[field], "{field}");
    }
    let (cleanup, agent) = (&pod["spec"]["containers"][0], &agent["containers"][0]);
    for field in ["image", "env", "securityContext", "volumeMounts"] {
        assert_eq!(cleanup[field], agent[field], "{field}");
    }
    let mut arguments = agent["args"].as_array().context("args")?.clone();
    arguments[0] = "cleanup".into();
    assert_eq!(cleanup["args"], Value::Array(arguments));
    Ok(())
}

#[test]
fn every_overlay_is_tested() -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory().join("overlays"))? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    let mut tested = OVERLAYS.to_vec();
    tested.sort_unstable();
    assert_eq!(found, tested);
    Ok(())
}

/// The example for binary installs and the ConfigMap say the same.
#[test]
fn every_role_is_bound_to_the_agent_of_the_same_namespace() -> Result<()> {
    for name in OVERLAYS {
        let all = overlay(name)?;
        let names = |kind: &str| -> Vec<String> {
            all.iter().filter(|o| o["kind"] == kind).map(|o| o["metadata"]["name"].to_string()).collect()
        };
        assert_eq!(names("ClusterRole"), names("ClusterRoleBinding"), "{name}");
        let account = only(&all, "ServiceAccount")?;
        for binding in all.iter().filter(|object| object["kind"] == "ClusterRoleBinding") {
            assert_eq!(binding["roleRef"]["name"], binding["metadata"]["name"], "{name}");
            for field in ["name", "namespace"] {
                assert_eq!(binding["subjects"][0][field], account["metadata"][field], "{name}");
            }
        }
    }
    Ok(())
}
