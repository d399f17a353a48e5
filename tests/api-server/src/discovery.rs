//! What the server says of itself: its version, the groups and kinds it has, and as much of OpenAPI as `kubectl apply`
//! looks at before it trusts the server to check fields.

use std::collections::BTreeSet;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{
    failure,
    kinds::{KINDS, Kind},
};

/// Verbs of every kind.
const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

/// Answers a path that is no resource.
pub(crate) fn answer(path: &str) -> Response {
    let found = match path.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
        ["readyz" | "healthz" | "livez"] => return "ok".into_response(),
        ["version"] => Some(json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"})),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()})),
        ["api", version] => resources(version),
        ["apis", group, version] => resources(&format!("{group}/{version}")),
        ["openapi", "v3"] => Some(open_api_index()),
        ["openapi", "v3", "api", version] => Some(open_api(version)),
        ["openapi", "v3", "apis", group, version] => Some(open_api(&format!("{group}/{version}"))),
        _ => None,
    };
    match found {
        Some(value) => axum::Json(value).into_response(),
        None => failure(StatusCode::NOT_FOUND, &format!("nothing is at {path}")),
    }
}

fn versions() -> BTreeSet<&'static str> {
    KINDS.iter().map(|kind| kind.api_version).collect()
}

fn groups() -> Vec<Value> {
    let named = KINDS.iter().filter(|kind| !kind.group().is_empty());
    let groups: BTreeSet<_> = named.map(|kind| (kind.group(), kind.api_version, kind.version())).collect();
    let group = |(name, api_version, version)| {
        let version = json!({"groupVersion": api_version, "version": version});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    groups.into_iter().map(group).collect()
}

fn resources(api_version: &str) -> Option<Value> {
    let one = |kind: &Kind| {
        let short: Vec<&str> = Some(kind.short).filter(|short| !short.is_empty()).into_iter().collect();
        json!({
            "name": kind.plural,
            "singularName": kind.kind.to_lowercase(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
            "shortNames": short,
        })
    };
    let kinds: Vec<Value> = KINDS.iter().filter(|kind| kind.api_version == api_version).map(one).collect();
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": kinds});
    (!kinds.is_empty()).then_some(list)
}

fn open_api_path(api_version: &str) -> String {
    if api_version.contains('/') { format!("apis/{api_version}") } else { format!("api/{api_version}") }
}

fn open_api_index() -> Value {
    let path = |version| {
        let path = open_api_path(version);
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
        (path, url)
    };
    json!({"paths": versions().into_iter().map(path).collect::<Map<_, _>>()})
}

/// `kubectl` asks whether PATCH of a kind takes `fieldValidation`; it then leaves the checking to the server.
fn open_api(api_version: &str) -> Value {
    let path = |kind: &Kind| {
        let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{namespace}{}/{{name}}", open_api_path(api_version), kind.plural);
        let operation = json!({
            "parameters": [{"name": "fieldValidation", "in": "query"}],
            "x-kubernetes-group-version-kind": {"group": kind.group(), "version": kind.version(), "kind": kind.kind},
        });
        (path, json!({"patch": operation}))
    };
    let paths: Map<_, _> = KINDS.iter().filter(|kind| kind.api_version == api_version).map(path).collect();
    json!({"openapi": "3.0.0", "info": {"title": "Weft's test API server", "version": "1"}, "paths": paths})
}
