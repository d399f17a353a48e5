//! Services, EndpointSlices and the Node, as far as Service balancing needs them.
//!
//! Owns the names everything else is keyed by. `api` has the wire shapes (serde), the other modules the checked ones:
//! what is in them can be planned without a further look. Decides nothing about traffic.

mod address;
pub mod api;
mod check;
mod endpoint_slice;
mod error;
mod name;
mod node;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use endpoint_slice::{EndpointSlice, NodeHint, SliceEndpoint};
pub(crate) use error::Check;
pub use error::{ObjectError, Problem, VALUE_LIMIT, Warning};
pub use name::{IpFamily, ObjectKind, ObjectRef, Protocol, ServiceName, ServicePortName};
pub(crate) use node::NodeTopology;
pub use node::{NodeIps, PodCidrs};
pub(crate) use service::{Service, ServicePort};
