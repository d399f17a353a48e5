//! Desired state of the Services on this node. Pure: same input, same ordered output; no clock, no I/O.
//!
//! All of kube-proxy's semantics live here (`shared/reference/kube-proxy.md` sections 1 to 9); the data planes decide nothing.

mod types;

pub use types::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan};
