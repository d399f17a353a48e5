//! Desired state of the Services on this node. Pure: same input, same ordered output; no clock, no I/O.
//!
//! All of kube-proxy's semantics live here (`shared/reference/kube-proxy.md` sections 1 to 9); the data planes decide nothing.
//! Numbers in comments are rules of that file. `planner` keeps the objects and finds out which Services to plan again;
//! `service` plans one, from `frontends`, `endpoints`, `topology` and `policy`; `claims` settles who gets a shared address.

mod claims;
mod desired;
mod endpoints;
mod frontends;
mod packets;
mod planner;
mod policy;
mod service;
mod slices;
#[cfg(test)]
mod tests;
mod topology;
mod types;

pub use packets::{LocalTraffic, PacketSettings};
pub use planner::{Change, Counts, Planner, PlannerConfig, Replaced};
pub use types::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan};
