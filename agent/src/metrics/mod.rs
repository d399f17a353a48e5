//! Metrics: kube-proxy's names as far as they mean something here (kube-proxy.md 17), and `weft_*` for what is new.
//!
//! What happens is counted where it happens; what only is, is looked at when somebody asks.

mod api_requests;
pub(crate) mod cni;
mod pages;
mod process;
mod scrape;
mod server;
mod slis;
mod text;

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::sync::atomic::AtomicU64;
use weft_proxy::model::{IpFamily, ObjectKind};

pub(crate) use api_requests::ApiRequests;
pub(crate) use pages::About;
pub(crate) use scrape::Scraped;
pub(crate) use server::{Exposed, router};
use slis::HealthChecks;

/// Labels of one series.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

/// All metrics, with the registry that knows their names.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    sync: Histograms,
    full_sync: Histograms,
    partial_sync: Histograms,
    last_sync: Seconds,
    last_queued: Seconds,
    service_changes: Counter,
    endpoint_changes: Counter,
    programming: Histograms,
    healthz: Counters,
    livez: Counters,
    conntrack: Histograms,
    conntrack_deleted: Counters,
    cni_add: Histograms,
    api_requests: Counters,
    api_request_times: Histograms,
    scraped: scrape::Families,
    /// Those of `/metrics/slis`, with a registry of their own.
    health_checks: HealthChecks,
}

/// kube-proxy's buckets: from 1 ms, doubling.
fn seconds() -> Histogram {
    Histogram::new((0..15).map(|power| 0.001 * f64::from(1 << power)))
}

/// kube-proxy's buckets of the network programming latency: finer where its service level is.
fn long_seconds() -> Histogram {
    let steps = |from: u16, to: u16, step| (from..=to).step_by(step).map(f64::from);
    Histogram::new([0.25, 0.5].into_iter().chain(steps(1, 59, 1)).chain(steps(60, 115, 5)).chain(steps(120, 300, 30)))
}

/// Kubernetes' buckets for requests to the API server.
fn api_seconds() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let histograms = || Histograms::new_with_constructor(seconds);
        let metrics = Self {
            sync: histograms(),
            full_sync: histograms(),
            partial_sync: histograms(),
            last_sync: Seconds::default(),
            last_queued: Seconds::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            programming: Histograms::new_with_constructor(long_seconds),
            healthz: Counters::default(),
            livez: Counters::default(),
            conntrack: histograms(),
            conntrack_deleted: Counters::default(),
            cni_add: histograms(),
            api_requests: Counters::default(),
            api_request_times: Histograms::new_with_constructor(api_seconds),
            scraped: scrape::Families::register(&mut registry),
            registry: Registry::default(),
            health_checks: HealthChecks::new(),
        };
        metrics.register(registry)
    }

    /// Counters get `_total` at the end of their names when they are written.
    fn register(mut self, mut registry: Registry) -> Self {
        let kube_proxy = registry.sub_registry_with_prefix("kubeproxy");
        let name = "sync_proxy_rules_duration_seconds";
        kube_proxy.register(name, "Time a sync took", self.sync.clone());
        let name = "sync_full_proxy_rules_duration_seconds";
        kube_proxy.register(name, "Time a sync of everything took", self.full_sync.clone());
        let name = "sync_partial_proxy_rules_duration_seconds";
        kube_proxy.register(name, "Time a sync of what changed took", self.partial_sync.clone());
        let name = "sync_proxy_rules_last_timestamp_seconds";
        kube_proxy.register(name, "When the last sync succeeded", self.last_sync.clone());
        let name = "sync_proxy_rules_last_queued_timestamp_seconds";
        kube_proxy.register(name, "When a sync was last needed", self.last_queued.clone());
        let name = "sync_proxy_rules_service_changes";
        kube_proxy.register(name, "Changes of Services", self.service_changes.clone());
        let name = "sync_proxy_rules_endpoint_changes";
        kube_proxy.register(name, "Changes of EndpointSlices", self.endpoint_changes.clone());
        let name = "network_programming_duration_seconds";
        kube_proxy.register(
            name,
            "Time from a change in the cluster until the kernel has it",
            self.programming.clone(),
        );
        kube_proxy.register("proxy_healthz", "Answers of /healthz, by code", self.healthz.clone());
        kube_proxy.register("proxy_livez", "Answers of /livez, by code", self.livez.clone());
        let name = "conntrack_reconciler_sync_duration_seconds";
        kube_proxy.register(name, "Time it took to look for stale UDP flows", self.conntrack.clone());
        let name = "conntrack_reconciler_deleted_entries";
        kube_proxy.register(name, "Stale UDP flows deleted", self.conntrack_deleted.clone());
        let client = registry.sub_registry_with_prefix("rest_client");
        client.register("requests", "Requests to the API server, by the code of the answer", self.api_requests.clone());
        let name = "request_duration_seconds";
        client.register(name, "Time until the API server began to answer", self.api_request_times.clone());
        let weft = registry.sub_registry_with_prefix("weft");
        weft.register("cni_add_duration_seconds", "Time weft-cni took for ADD", self.cni_add.clone());
        self.registry = registry;
        self
    }

    /// Something has to be written to the kernel.
    pub(crate) fn queued(&self) {
        for family in [IpFamily::V4, IpFamily::V6] {
            self.last_queued.get_or_create(&by_family(family)).set(now());
        }
    }

    /// The data planes were brought up to date, all of them or only what changed; both families go in one step.
    pub(crate) fn synced(&self, took: Duration, full: bool, succeeded: bool) {
        let kind = if full { &self.full_sync } else { &self.partial_sync };
        for labels in [IpFamily::V4, IpFamily::V6].map(by_family) {
            self.sync.get_or_create(&labels).observe(took.as_secs_f64());
            kind.get_or_create(&labels).observe(took.as_secs_f64());
            if succeeded {
                self.last_sync.get_or_create(&labels).set(now());
            }
        }
    }

    /// A source told of objects.
    pub(crate) fn changed(&self, kind: ObjectKind, count: usize) {
        let counter = match kind {
            ObjectKind::Service => &self.service_changes,
            ObjectKind::EndpointSlice => &self.endpoint_changes,
            ObjectKind::Node => return,
        };
        counter.inc_by(count as u64);
    }

    /// A change of endpoints is in force, so long after it happened in the cluster.
    pub(crate) fn programmed(&self, family: IpFamily, after: Duration) {
        self.programming.get_or_create(&by_family(family)).observe(after.as_secs_f64());
    }

    /// Stale UDP flows were looked for.
    pub(crate) fn conntrack_cleaned(&self, family: IpFamily, took: Duration, deleted: u64) {
        self.conntrack.get_or_create(&by_family(family)).observe(took.as_secs_f64());
        self.conntrack_deleted.get_or_create(&by_family(family)).inc_by(deleted);
    }

    /// `weft-cni` made a pod's interface, or failed to.
    pub(crate) fn pod_added(&self, took: Duration, succeeded: bool) {
        let result = if succeeded { "success" } else { "error" };
        self.cni_add.get_or_create(&vec![("result", result.to_owned())]).observe(took.as_secs_f64());
    }

    /// The API server answered a request, or `None`: it did not.
    pub(crate) fn api_answered(&self, host: &str, method: &str, code: Option<u16>, took: Duration) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let (host, method) = (("host", host.to_owned()), method.to_owned());
        let times = self.api_request_times.get_or_create(&vec![host.clone(), ("verb", method.clone())]);
        times.observe(took.as_secs_f64());
        self.api_requests.get_or_create(&vec![("code", code), host, ("method", method)]).inc();
    }

    /// `/healthz` was answered.
    pub(crate) fn healthz_answered(&self, ok: bool) {
        self.healthz.get_or_create(&by_code(ok)).inc();
    }

    /// `/livez` was answered.
    pub(crate) fn livez_answered(&self, ok: bool) {
        self.livez.get_or_create(&by_code(ok)).inc();
    }

    /// For `/metrics/slis`: a part was looked at for an answer of `endpoint`, which is `healthz`, `livez` or `readyz`.
    pub(crate) fn checked(&self, endpoint: &str, part: &str, ok: bool) {
        self.health_checks.done(endpoint, part, ok);
    }

    /// All metrics in OpenMetrics text.
    pub(crate) fn encode(&self, scraped: &Scraped) -> String {
        let mut text = String::new();
        self.scraped.set(scraped);
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        // A series without labels is written without braces everywhere else.
        text.replace("{} ", " ")
    }
}

fn by_family(family: IpFamily) -> Labels {
    let name = match family {
        IpFamily::V4 => "IPv4",
        IpFamily::V6 => "IPv6",
    };
    vec![("ip_family", name.to_owned())]
}

fn by_code(ok: bool) -> Labels {
    vec![("code", if ok { "200" } else { "503" }.to_owned())]
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = jiff::Timestamp::now();
    now.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests;
