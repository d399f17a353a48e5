//! kube-proxy's metrics server (kube-proxy.md 11.2): `/metrics`, `/metrics/slis`, `/proxyMode`, `/configz`, `/healthz`,
//! `/statusz`, `/flagz`.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, header},
    routing::any,
};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use weft_overlay::OverlayStatus;

use super::{
    Metrics, Scraped,
    pages::{About, Page},
    text,
};
use crate::{config::Settings, health::response, services};

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

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
    /// Who answers.
    pub(crate) about: About,
}

/// Answers at any method, as kube-proxy does.
pub(crate) fn router(exposed: Exposed) -> Router {
    Router::new()
        .route("/metrics", any(metrics))
        .route("/metrics/slis", any(slis))
        .route("/healthz", any(healthz))
        .route("/healthz/ping", any(ping))
        .route("/statusz", any(statusz))
        .route("/flagz", any(flagz))
        .route("/proxyMode", any(mode))
        .route("/configz", any(configz))
        .route("/debug/pprof/{*what}", any(pprof))
        .fallback(|| async { response(StatusCode::NOT_FOUND, PLAIN, b"404 page not found\n".to_vec()) })
        .with_state(exposed)
}

/// Counted under kube-proxy's name for it.
async fn healthz(State(exposed): State<Exposed>) -> Response<Body> {
    exposed.metrics.checked("healthz", "ping", true);
    ping().await
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
    as_accepted(&headers, exposed.metrics.encode(&Scraped { measured, report, overlay }))
}

/// DELETE forgets them.
async fn slis(State(exposed): State<Exposed>, method: Method, headers: HeaderMap) -> Response<Body> {
    if method == Method::DELETE {
        exposed.metrics.health_checks.reset();
        return response(StatusCode::OK, PLAIN, b"metrics reset\n".to_vec());
    }
    as_accepted(&headers, exposed.metrics.health_checks.encode())
}

/// OpenMetrics text, or the older format for who does not ask for it.
fn as_accepted(headers: &HeaderMap, text: String) -> Response<Body> {
    if accept(headers).contains("application/openmetrics-text") {
        response(StatusCode::OK, text::OPEN_METRICS, text.into())
    } else {
        response(StatusCode::OK, text::CONTENT_TYPE, text::from_open_metrics(&text).into())
    }
}

fn accept(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default()
}

async fn statusz(State(exposed): State<Exposed>, headers: HeaderMap) -> Response<Body> {
    page(exposed.about.status(accept(&headers), Timestamp::now()))
}

async fn flagz(State(exposed): State<Exposed>, headers: HeaderMap) -> Response<Body> {
    page(exposed.about.flags(accept(&headers)))
}

fn page(page: Option<Page>) -> Response<Body> {
    match page {
        Some(Page::Text(text)) => response(StatusCode::OK, PLAIN, text.into()),
        Some(Page::Object(object)) => response(StatusCode::OK, JSON, object.to_string().into()),
        None => response(
            StatusCode::NOT_ACCEPTABLE,
            PLAIN,
            b"there is text/plain, and application/json with v, g and as\n".to_vec(),
        ),
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
    response(StatusCode::OK, JSON, body.to_string().into())
}
