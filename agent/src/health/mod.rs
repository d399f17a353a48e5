//! `/healthz`, `/livez` and `/readyz`: kube-proxy's answers (kube-proxy.md 11.1), and whether all parts do their work.
//!
//! The API server being away changes none of them: what the kernel holds goes on working.

mod listen;
mod node;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Response, StatusCode, Uri, header},
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use weft_overlay::OverlayStatus;

use crate::{metrics::Metrics, services};
pub(crate) use listen::{Listening, Servers};
pub(crate) use node::NodeEligibility;

/// What health is told from.
#[derive(Clone)]
pub(crate) struct Health {
    /// Of the data planes, when the component runs.
    pub(crate) services: Option<Arc<services::Health>>,
    /// The pod network, when the component runs.
    pub(crate) overlay: Option<watch::Receiver<OverlayStatus>>,
    /// Whether load balancers may send to this node.
    pub(crate) node: Arc<NodeEligibility>,
    /// Where answers are counted.
    pub(crate) metrics: Arc<Metrics>,
}

/// Body of `/healthz` and `/livez`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyReport {
    last_updated: String,
    healthy: bool,
}

/// Body of `/readyz`; a part that does not run is left out.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<bool>,
}

/// Answers at any method, as kube-proxy does; unknown paths are 404.
pub(crate) fn router(health: Health) -> Router {
    Router::new().fallback(move |uri: Uri| std::future::ready(health.answer(uri.path())))
}

impl Health {
    fn answer(&self, path: &str) -> Response<Body> {
        let now = Timestamp::now();
        let (ok, body) = match path {
            "/healthz" => {
                let eligible = self.node.is_eligible();
                let (ok, report) = self.report(Some(eligible), now);
                self.metrics.healthz_answered(ok);
                if self.services.is_some() {
                    self.metrics.checked("healthz", "proxy", report.healthy);
                    self.metrics.checked("healthz", "node", eligible);
                }
                (ok, serde_json::to_vec(&report))
            }
            "/livez" => {
                let (ok, report) = self.report(None, now);
                self.metrics.livez_answered(ok);
                if self.services.is_some() {
                    self.metrics.checked("livez", "proxy", ok);
                }
                (ok, serde_json::to_vec(&report))
            }
            "/readyz" => {
                let readiness = self.readiness();
                for (part, ready) in [("proxy", readiness.proxy), ("overlay", readiness.overlay)] {
                    if let Some(ready) = ready {
                        self.metrics.checked("readyz", part, ready);
                    }
                }
                (readiness.ready, serde_json::to_vec(&readiness))
            }
            _ => return response(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".into()),
        };
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(status, "application/json", body.unwrap_or_default())
    }

    fn report(&self, node_eligible: Option<bool>, now: Timestamp) -> (bool, Report) {
        let Some(services) = self.services.as_ref().map(|services| services.snapshot()) else {
            // Without Services no Node is looked at, and nothing waits to be written.
            let now = now.to_string();
            let report = Report {
                last_updated: now.clone(),
                current_time: now,
                node_eligible: None,
                healthy: true,
                status: BTreeMap::new(),
            };
            return (true, report);
        };
        let ok = services.healthy && node_eligible != Some(false);
        let updated = services.updated.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string());
        let started = services.updated.is_some() || services.waiting.is_some();
        let family = || FamilyReport { last_updated: updated.clone(), healthy: services.healthy };
        // Both families are written in one go.
        let families = if started { vec!["IPv4", "IPv6"] } else { Vec::new() };
        let report = Report {
            last_updated: if ok { now.to_string() } else { updated.clone() },
            current_time: now.to_string(),
            node_eligible,
            healthy: services.healthy,
            status: families.into_iter().map(|name| (name, family())).collect(),
        };
        (ok, report)
    }

    fn readiness(&self) -> Readiness {
        let proxy = self.services.as_ref().map(|services| services.snapshot());
        let proxy = proxy.map(|services| services.healthy && services.updated.is_some());
        let overlay = self.overlay.as_ref().map(|overlay| overlay.borrow().ready);
        Readiness { ready: proxy != Some(false) && overlay != Some(false), proxy, overlay }
    }
}

/// An answer with the headers of Go's.
pub(crate) fn response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
