//! Watches: one JSON line a change, for as long as the client listens.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};

use crate::{ListParameters, Server, failure, selector::Selector, store::Change};

struct Watch {
    server: Arc<Server>,
    api_version: String,
    resource: String,
    selector: Selector,
    /// The client has seen everything up to this version.
    seen: u64,
    /// What goes out before the first wait.
    first: Option<String>,
}

/// Answers a watch request.
pub(crate) fn stream(
    server: Arc<Server>,
    api_version: String,
    resource: String,
    selector: Selector,
    parameters: &ListParameters,
) -> Response {
    let mut watch = Watch { server, api_version, resource, selector, seen: 0, first: None };
    match parameters.resource_version.as_str() {
        "" | "0" => watch.begin_with_a_list(parameters.send_initial_events),
        _ if parameters.send_initial_events => watch.begin_with_a_list(true),
        version => match version.parse() {
            // Another server's version, as after a restored backup: the client has to list again.
            Ok(version) if version > watch.server.store().newest() => {
                return failure(StatusCode::GONE, &format!("resourceVersion {version} is of another time"));
            }
            Ok(version) => watch.seen = version,
            Err(_) => return failure(StatusCode::BAD_REQUEST, &format!("resourceVersion {version:?} is no version")),
        },
    }
    let lines = stream::unfold(watch, |mut watch| async move {
        let lines = watch.next_lines().await?;
        Some((Ok::<_, Infallible>(Bytes::from(lines)), watch))
    });
    ([("content-type", "application/json")], Body::from_stream(lines)).into_response()
}

impl Watch {
    /// The present state as ADDED events, closed by a bookmark when the client asked for a streaming list (KEP-3157).
    fn begin_with_a_list(&mut self, with_bookmark: bool) {
        let store = self.server.store();
        self.seen = store.newest();
        let matching = store.list(&self.resource).filter(|object| self.selector.matches(object));
        let mut lines: String = matching.map(|object| line("ADDED", object)).collect();
        drop(store);
        if with_bookmark {
            lines += &self.bookmark();
        }
        self.first = (!lines.is_empty()).then_some(lines);
    }

    fn bookmark(&self) -> String {
        line(
            "BOOKMARK",
            &json!({
                "apiVersion": self.api_version,
                "kind": "Bookmark",
                "metadata": {
                    "resourceVersion": self.seen.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"},
                },
            }),
        )
    }

    /// Waits for changes the client wants to see; `None` when the server ends.
    async fn next_lines(&mut self) -> Option<String> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let mut newest = self.server.newest.subscribe();
        loop {
            newest.wait_for(|version| *version > self.seen).await.ok()?;
            let store = self.server.store();
            let changes = store.since(self.seen).iter().filter(|change| change.resource == self.resource);
            let lines: String = changes.filter_map(|change| self.event(change)).collect();
            self.seen = store.newest();
            drop(store);
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }

    /// A change as this client sees it: an object that no longer matches its selector is deleted for it.
    fn event(&self, change: &Change) -> Option<String> {
        let seen = |object: &Option<Value>| object.as_ref().is_some_and(|object| self.selector.matches(object));
        match (seen(&change.before), seen(&change.after)) {
            (false, true) => change.after.as_ref().map(|object| line("ADDED", object)),
            (true, true) => change.after.as_ref().map(|object| line("MODIFIED", object)),
            (true, false) => change.before.as_ref().map(|object| {
                let mut last = object.clone();
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                line("DELETED", &last)
            }),
            (false, false) => None,
        }
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
