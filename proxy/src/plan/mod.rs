//! Desired state of the Services on this node. Pure: same input, same ordered output; no clock, no I/O.
//!
//! All of kube-proxy's semantics live here (`shared/reference/kube-proxy.md` sections 1 to 9); the data planes decide nothing.
//! Numbers in comments are rules of that file. `planner` keeps the objects and finds out which Services to plan again;
//! `service` plans one, from `frontends`, `endpoints`, `topology`, `policy` and `source_ranges`; `claims` settles who gets a
//! shared address. `health_checks` and `udp` keep what others than the data planes need to know.

mod claims;
mod config;
mod desired;
mod endpoints;
mod frontends;
mod health_checks;
mod no_local;
mod packets;
mod planner;
mod policy;
mod service;
mod slices;
mod source_ranges;
#[cfg(test)]
mod tests;
mod topology;
mod types;
mod udp;

pub use config::PlannerConfig;
pub use health_checks::HealthCheck;
pub use no_local::NoLocalEndpoints;
pub use packets::{LocalTraffic, PacketSettings};
pub use planner::{Change, Counts, EndpointsChange, Planner, Replaced};
pub use types::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan};
pub use udp::UdpFlows;
