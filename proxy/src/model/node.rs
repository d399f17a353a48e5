//! This Node as the planner uses it.

use std::sync::Arc;

use super::{ObjectError, api, check::object_name, error::Check};

/// The only label of a Node that is looked at (5.7).
const ZONE: &str = "topology.kubernetes.io/zone";

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeTopology {
    /// `None` until the Node is known, and while its label is absent or empty (5.4).
    pub(crate) zone: Option<Arc<str>>,
}

impl NodeTopology {
    /// Checks a Node.
    pub(crate) fn check(object: &api::Node, check: &Check) -> Result<Self, ObjectError> {
        object_name(check)?;
        let zone = object.metadata.labels.get(ZONE).filter(|zone| !zone.is_empty());
        Ok(Self { zone: zone.map(|zone| zone.as_str().into()) })
    }
}
