use std::{sync::Arc, time::Duration};

use serde_json::Value;
use weft_proxy::{
    model::api::{Metadata, Node, NodeSpec, Object, Taint},
    plan::Change,
};

use super::{Health, NodeEligibility};
use crate::{metrics::Metrics, services, source::SourceEvent};

fn health() -> Health {
    Health {
        services: Some(Arc::new(services::Health::new(Duration::from_secs(60)))),
        overlay: None,
        node: Arc::new(NodeEligibility::new("n1")),
        metrics: Arc::new(Metrics::new()),
    }
}

async fn ask(health: &Health, path: &str) -> (u16, Value) {
    let (parts, body) = health.answer(path).into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    if parts.status != 404 {
        assert_eq!(parts.headers["content-type"], "application/json");
    }
    assert_eq!(parts.headers["x-content-type-options"], "nosniff");
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
}

fn node(name: &str, deleted: bool, taint: Option<&str>) -> SourceEvent {
    let metadata = Metadata {
        name: name.to_owned(),
        deletion_timestamp: deleted.then(|| "2026-01-01T00:00:00Z".to_owned()),
        ..Metadata::default()
    };
    let taints = taint.into_iter().map(|key| Taint { key: key.to_owned() }).collect();
    let spec = NodeSpec { taints, ..NodeSpec::default() };
    SourceEvent::Change(Change::Apply(Object::Node(Node { metadata, spec, ..Node::default() })))
}

#[tokio::test]
async fn rule_11_1_healthz_looks_at_the_node_and_livez_does_not() {
    let health = health();
    for (event, healthz) in [
        (None, 503),
        (Some(node("n2", false, None)), 503),
        (Some(node("n1", false, Some("other"))), 200),
        (Some(node("n1", false, Some("ToBeDeletedByClusterAutoscaler"))), 503),
        (Some(node("n1", false, None)), 200),
        (Some(node("n1", true, None)), 503),
    ] {
        event.iter().for_each(|event| health.node.see(event));
        let (code, body) = ask(&health, "/healthz").await;
        assert_eq!((code, &body["nodeEligible"]), (healthz, &Value::Bool(healthz == 200)), "{event:?}");
        assert_eq!(body["healthy"], true, "it covers the data planes only");
        let (code, body) = ask(&health, "/livez").await;
        assert_eq!((code, body.get("nodeEligible")), (200, None));
    }
    assert_eq!(ask(&health, "/other").await.0, 404);
}

#[tokio::test]
async fn rule_11_1_both_fail_when_an_update_waits_for_too_long() {
    let health = health();
    health.node.see(&node("n1", false, None));
    let services = health.services.as_ref().unwrap();
    let (_, body) = ask(&health, "/healthz").await;
    assert_eq!(body.get("status"), None, "nothing was written yet");
    assert_eq!(ask(&health, "/readyz").await.0, 503, "so it is not ready");
    services.pending();
    services.updated();
    let (code, body) = ask(&health, "/healthz").await;
    assert_eq!(
        (code, &body["status"]["IPv4"]["healthy"], &body["status"]["IPv6"]["healthy"]),
        (200, &true.into(), &true.into())
    );
    assert_eq!(body["lastUpdated"], body["currentTime"], "of a good answer it is now");
    assert_eq!(ask(&health, "/readyz").await, (200, serde_json::json!({"ready": true, "proxy": true})));
    services.set_limit(Duration::ZERO);
    services.pending();
    for path in ["/healthz", "/livez"] {
        let (code, body) = ask(&health, path).await;
        assert_eq!((code, &body["healthy"]), (503, &false.into()), "{path}");
        assert_eq!(body["lastUpdated"], body["status"]["IPv4"]["lastUpdated"], "of a bad one the last real update");
    }
    assert_eq!(ask(&health, "/readyz").await.0, 503);
}
