//! Metadata without what a node agent never looks at.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

/// Everything else is read past: above all `managedFields`, a tree of small maps that is often larger than the object itself.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Lean {
    name: Option<String>,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
}

/// For `#[serde(deserialize_with = ...)]` of an object's metadata: name, namespace, labels, annotations, resource version and deletion
/// timestamp. The other fields stay empty.
///
/// # Errors
/// One of those has the wrong type.
pub fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Lean { name, namespace, labels, annotations, resource_version, deletion_timestamp } =
        Lean::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        labels,
        annotations,
        resource_version,
        deletion_timestamp,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_read_and_the_rest_passed_over() {
        let text = r#"{"name": "web", "namespace": "shop", "labels": {"a": "b"}, "annotations": null, "resourceVersion": "7",
            "deletionTimestamp": "2026-11-21T06:00:00Z", "uid": "u", "managedFields": [{"fieldsV1": {"f:spec": {}}}]}"#;
        let meta = lean_metadata(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web"), Some("shop")));
        assert_eq!((meta.labels.unwrap()["a"].as_str(), meta.resource_version.as_deref()), ("b", Some("7")));
        assert!(meta.deletion_timestamp.is_some() && meta.managed_fields.is_none() && meta.uid.is_none());
    }
}
