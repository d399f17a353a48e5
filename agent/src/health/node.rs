//! Whether load balancers may send traffic to this node (kube-proxy.md 11.1): not while it is being deleted.

use std::sync::atomic::{AtomicBool, Ordering};

use weft_proxy::{
    model::api::{Node, Object},
    plan::Change,
};

use crate::source::SourceEvent;

/// Set by the cluster autoscaler on a node that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Follows this node's Node. One that was never seen is not eligible; one that is removed keeps its last state.
#[derive(Debug)]
pub(crate) struct NodeEligibility {
    node_name: String,
    eligible: AtomicBool,
}

impl NodeEligibility {
    /// No Node was seen yet.
    pub(crate) fn new(node_name: &str) -> Self {
        Self { node_name: node_name.to_owned(), eligible: AtomicBool::new(false) }
    }

    /// Whether the Node was seen, and is not about to go.
    pub(crate) fn is_eligible(&self) -> bool {
        self.eligible.load(Ordering::Relaxed)
    }

    /// Looks for the Node in what a source says.
    pub(crate) fn see(&self, event: &SourceEvent) {
        match event {
            SourceEvent::Replace(_, objects) => objects.iter().for_each(|object| self.look_at(object)),
            SourceEvent::Change(Change::Apply(object)) => self.look_at(object),
            _ => {}
        }
    }

    fn look_at(&self, object: &Object) {
        let Object::Node(Node { metadata, spec, .. }) = object else { return };
        if metadata.name == self.node_name {
            let leaving = metadata.deletion_timestamp.is_some() || spec.taints.iter().any(|t| t.key == TO_BE_DELETED);
            self.eligible.store(!leaving, Ordering::Relaxed);
        }
    }
}
