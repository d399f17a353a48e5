//! `/metrics/slis`: how each part's health checks went, in the names that all of Kubernetes has for it.

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Counters, Labels};

/// The last result and the number of results of each check, as they were asked for.
#[derive(Debug)]
pub(super) struct HealthChecks {
    last: Family<Labels, Gauge>,
    all: Counters,
    registry: Registry,
}

impl HealthChecks {
    /// Nobody has asked yet.
    pub(super) fn new() -> Self {
        let (last, all) = (Family::default(), Counters::default());
        let mut registry = Registry::default();
        let kubernetes = registry.sub_registry_with_prefix("kubernetes");
        kubernetes.register("healthcheck", "Whether the last check of a part was good", Family::clone(&last));
        kubernetes.register("healthchecks", "Checks of a part, by how they went", Counters::clone(&all));
        Self { last, all, registry }
    }

    /// A part was checked for an answer of `endpoint`.
    pub(super) fn done(&self, endpoint: &str, part: &str, ok: bool) {
        let of_part = vec![("name", part.to_owned()), ("type", endpoint.to_owned())];
        self.last.get_or_create(&of_part).set(ok.into());
        let status = if ok { "success" } else { "error" };
        let counted = [of_part, vec![("status", status.to_owned())]].concat();
        self.all.get_or_create(&counted).inc();
    }

    /// Forgets everything, as a DELETE asks for.
    pub(super) fn reset(&self) {
        self.last.clear();
        self.all.clear();
    }

    /// In OpenMetrics text.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{super::text, *};

    #[test]
    fn section_11_2_checks_are_counted_by_part_and_forgotten_on_demand() {
        let checks = HealthChecks::new();
        checks.done("livez", "proxy", true);
        checks.done("livez", "proxy", false);
        let text = text::from_open_metrics(&checks.encode());
        for line in [
            "# TYPE kubernetes_healthcheck gauge",
            "kubernetes_healthcheck{name=\"proxy\",type=\"livez\"} 0",
            "# TYPE kubernetes_healthchecks_total counter",
            "kubernetes_healthchecks_total{name=\"proxy\",type=\"livez\",status=\"success\"} 1",
            "kubernetes_healthchecks_total{name=\"proxy\",type=\"livez\",status=\"error\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        checks.reset();
        assert!(!checks.encode().contains("proxy"));
    }
}
