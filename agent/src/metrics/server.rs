//! kube-proxy's metrics server (kube-proxy.md 11.2): `/metrics`, `/proxyMode`, `/configz`, `/healthz`.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response, StatusCode, header},
    routing::any,
};
use serde_json::json;
use tokio::sync::watch;
use weft_overlay::OverlayStatus;

use super::{Metrics, Scraped, text};
use crate::{config::Settings, health::response, services};

const PLAIN: &str = "text/plain; charset=utf-8";

/// What the server answers from.
#[derive(Clone)]
pub(crate) struct Exposed {
    /// What was counted.
    pub(crate) metrics: Arc<Metrics>,
    /// The Services thread, when the component runs.
    pub(crate) services: Option<services::Handle>,
    /// The pod network, when the component runs.
    pub(crate) overlay: Option<watch::Receiver<OverlayStatus>>,
    /// The effective configuration.
    pub(crate) settings: watch::Receiver<Settings>,
}

/// Answers at any method, as kube-proxy does.
pub(crate) fn router(exposed: Exposed) -> Router {
    Router::new()
        .route("/metrics", any(metrics))
        .route("/healthz", any(ping))
        .route("/healthz/ping", any(ping))
        .route("/proxyMode", any(mode))
        .route("/configz", any(configz))
        .route("/debug/pprof/{*what}", any(pprof))
        .fallback(|| async { response(StatusCode::NOT_FOUND, PLAIN, b"404 page not found\n".to_vec()) })
        .with_state(exposed)
}

async fn ping() -> Response<Body> {
    response(StatusCode::OK, PLAIN, b"ok".to_vec())
}

async fn pprof() -> Response<Body> {
    let text = "profiles are a Go runtime's; perf and /proc show what a Rust program does\n";
    response(StatusCode::NOT_FOUND, PLAIN, text.into())
}

async fn metrics(State(exposed): State<Exposed>, headers: HeaderMap) -> Response<Body> {
    let (measured, report) = match &exposed.services {
        Some(services) => (services.measure().await, services.report().await),
        None => (None, None),
    };
    let overlay = exposed.overlay.as_ref().map(|overlay| overlay.borrow().clone());
    let text = exposed.metrics.encode(&Scraped { measured, report, overlay });
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/openmetrics-text") {
        response(StatusCode::OK, text::OPEN_METRICS, text.into())
    } else {
        response(StatusCode::OK, text::CONTENT_TYPE, text::from_open_metrics(&text).into())
    }
}

/// Empty while the agent without the component has none.
async fn mode(State(exposed): State<Exposed>) -> Response<Body> {
    let report = match &exposed.services {
        Some(services) => services.report().await,
        None => None,
    };
    response(StatusCode::OK, PLAIN, report.map(|report| report.proxy.mode).unwrap_or_default().into())
}

async fn configz(State(exposed): State<Exposed>) -> Response<Body> {
    let body = json!({ "kubeproxy.config.k8s.io": exposed.settings.borrow().document() });
    response(StatusCode::OK, "application/json", body.to_string().into())
}
