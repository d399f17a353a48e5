//! The API's shapes of Service, EndpointSlice and Node: only the fields the planner reads, so that 100,000 endpoints stay small.
//!
//! Lenient on purpose: unknown fields are ignored, absent ones get the API's defaults. Checking is the planner's work.

use serde::{Deserialize, Serialize};

/// One object, as a source delivers it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind")]
pub enum Object {
    /// `v1` Service.
    Service(Service),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// `v1` Node.
    Node(Node),
}

/// Placeholder until the planner's author fills it in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Service {}
/// Placeholder.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct EndpointSlice {}
/// Placeholder.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Node {}
