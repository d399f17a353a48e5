//! Where Services, EndpointSlices and the Node come from: a directory of manifests, or the Kubernetes API.
//!
//! A source delivers full lists and changes into one channel; it never decides what they mean.

pub(crate) mod dir;
pub(crate) mod kube;
pub(crate) mod manifest;

use weft_proxy::{
    model::{ObjectKind, api::Object},
    plan::Change,
};

use crate::status::RejectedObject;

/// One message of a source.
#[derive(Debug)]
pub(crate) enum SourceEvent {
    /// A full list of one kind: what is not in it does not exist.
    Replace(ObjectKind, Vec<Object>),
    /// One object appeared, changed or went.
    Change(Change),
    /// What the source itself could not read, as a full list; empty when all is well again.
    Unreadable(Vec<RejectedObject>),
    /// What keeps the objects of one kind from being up to date; `None` when they are again.
    Trouble(ObjectKind, Option<String>),
}
