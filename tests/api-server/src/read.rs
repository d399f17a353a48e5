//! GET of one object and of collections, in pages if the client asks for pages.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use crate::{Server, failure, kinds, selector::Selector, store::Stored, target::Target};

/// Query parameters of a list or watch (Kubernetes API concepts, "Efficient detection of changes").
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReadParameters {
    watch: String,
    label_selector: String,
    field_selector: String,
    /// The version that a list or watch starts from.
    pub(crate) resource_version: String,
    /// A streaming list (KEP-3157).
    pub(crate) send_initial_events: bool,
    /// Whether the client wants to hear of versions that brought it no object.
    pub(crate) allow_watch_bookmarks: bool,
    /// After so many seconds the watch ends.
    pub(crate) timeout_seconds: Option<u64>,
    limit: usize,
    #[serde(rename = "continue")]
    token: String,
}

impl ReadParameters {
    /// Whether changes are to follow.
    pub(crate) fn is_watch(&self) -> bool {
        matches!(self.watch.as_str(), "true" | "1")
    }

    /// What the client wants to see.
    pub(crate) fn selector(&self, target: &Target) -> Selector {
        Selector::parse(&target.namespace, &self.label_selector, &self.field_selector)
    }
}

/// One object.
pub(crate) fn one(server: &Server, target: &Target) -> Response {
    match server.store().get(&target.address()) {
        Some(object) => crate::json(StatusCode::OK, object.text().to_owned()),
        None => failure(StatusCode::NOT_FOUND, &format!("{} not found", target.address())),
    }
}

/// A collection, or a page of it. A page's token is the position of the next object and the version of the first page:
/// when something changed in between it has expired, which real servers do after minutes only.
pub(crate) fn list(server: &Server, target: &Target, parameters: &ReadParameters) -> Response {
    let selector = parameters.selector(target);
    let store = server.store();
    let newest = store.newest();
    let first: usize = match parameters.token.split_once(':') {
        None => 0,
        Some((position, version)) if version == newest.to_string() => position.parse().unwrap_or(0),
        Some(_) => return failure(StatusCode::GONE, "the provided continue parameter is too old"),
    };
    let mut matching = store.list(&target.resource).filter(|object| selector.matches(object)).skip(first);
    let limit = if parameters.limit == 0 { usize::MAX } else { parameters.limit };
    let items: Vec<&str> = matching.by_ref().take(limit).map(|object| Stored::text(object)).collect();
    let remaining = matching.count();
    let mut metadata = json!({"resourceVersion": newest.to_string()});
    if remaining > 0 {
        metadata["continue"] = format!("{}:{newest}", first + items.len()).into();
        metadata["remainingItemCount"] = remaining.into();
    }
    let cut = server.faults().truncate_lists_after;
    let kind = kinds::by_plural(&target.resource).map_or("List".to_owned(), |kind| format!("{}List", kind.kind));
    let (api_version, count) = (&target.api_version, items.len());
    let items = items.join(",");
    let answer = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":[{items}]}}"#);
    if cut != 0 && count > cut { broken(&answer) } else { crate::json(StatusCode::OK, answer) }
}

/// The first half of an answer that announced its whole length: the client sees the connection break.
fn broken(answer: &str) -> Response {
    let half = Bytes::copy_from_slice(&answer.as_bytes()[..answer.len() / 2]);
    let body = stream::once(async move { Ok::<_, Infallible>(half) }).chain(stream::once(async { Ok(Bytes::new()) }));
    let length = [("content-type", "application/json".to_owned()), ("content-length", answer.len().to_string())];
    (length, Body::from_stream(body)).into_response()
}
