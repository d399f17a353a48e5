//! Services, EndpointSlices and the Node, as far as Service balancing needs them.
//!
//! Owns the names everything else is keyed by. `api` has the wire shapes (serde), the other modules the checked ones.

pub mod api;
mod name;

pub use name::{IpFamily, ObjectKind, ObjectRef, Protocol, ServiceName, ServicePortName};
