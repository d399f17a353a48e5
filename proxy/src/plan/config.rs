//! What is told to the planner once.

use std::{net::IpAddr, sync::Arc};

/// What the planner has to know besides objects. Fixed while it lives.
#[derive(Clone, Debug)]
pub struct PlannerConfig {
    /// Name of this node, trimmed and lower-case (14.1).
    pub node_name: Arc<str>,
    /// Whether `spec.externalIPs` are served: feature gate `AllowServiceExternalIPs` (2.4).
    pub external_ips_allowed: bool,
    /// kube-proxy's `bindAddress`: takes the place of this node's own address of its family, unless unspecified (14.2).
    pub bind_address: Option<IpAddr>,
}

impl PlannerConfig {
    /// kube-proxy's defaults for the node `node_name`.
    pub fn new(node_name: impl Into<Arc<str>>) -> Self {
        Self { node_name: node_name.into(), external_ips_allowed: true, bind_address: None }
    }
}
