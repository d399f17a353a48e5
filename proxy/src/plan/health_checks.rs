//! What external load balancers are told about this node: kube-proxy.md 11.3.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{IpFamily, ServiceName};

/// A health-check node port: of a Service of type LoadBalancer with externalTrafficPolicy Local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The Service.
    pub service: ServiceName,
    /// `spec.healthCheckNodePort`, where this node answers.
    pub port: u16,
    /// Distinct addresses of ready endpoints on this node, over all ports of the Service. By family: those it is not served
    /// in are absent, and need no answer.
    pub local_ready_endpoints: BTreeMap<IpFamily, usize>,
}

/// All of them, and which differ since somebody looked.
#[derive(Debug, Default)]
pub(super) struct HealthChecks {
    pub(super) by_service: BTreeMap<ServiceName, HealthCheck>,
    pub(super) changed: BTreeSet<ServiceName>,
}

impl HealthChecks {
    /// Replaces the health check of a Service.
    pub(super) fn set(&mut self, service: &ServiceName, check: Option<HealthCheck>) {
        if self.by_service.get(service) == check.as_ref() {
            return;
        }
        match check {
            Some(check) => self.by_service.insert(service.clone(), check),
            None => self.by_service.remove(service),
        };
        self.changed.insert(service.clone());
    }
}
