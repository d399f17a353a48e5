//! `--audit FILE`: what was asked for, one line a request, in the words of RBAC: verb, API group (`core` for the one
//! without name) and resource with subresource.

use std::{fs::File, io::Write, path::Path};

use axum::http::Method;

use crate::target::Target;

/// The file.
pub(crate) struct Audit(File);

impl Audit {
    /// An empty one.
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        File::create(path).map(Self)
    }

    /// Notes a request; `watch` tells a watch from a list.
    pub(crate) fn note(&self, method: &Method, target: &Target, watch: bool) {
        let verb = match (method.as_str(), target.name.is_empty()) {
            ("GET", true) if watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            (other, _) => other,
        };
        let group = target.api_version.split_once('/').map_or("core", |(group, _)| group);
        let slash = if target.subresource.is_empty() { "" } else { "/" };
        let line = format!("{verb} {group} {}{slash}{}\n", target.resource, target.subresource);
        // One write a line: readers never see half a line. A full disk fails the test that reads the file.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
