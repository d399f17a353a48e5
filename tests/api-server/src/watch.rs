//! Watches: one JSON line a change, for as long as the client listens.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    Server, failure,
    faults::Fate,
    read::ReadParameters,
    selector::Selector,
    status,
    store::{Change, Store},
    target::Target,
};

/// How long a watch lasts for a client that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Silence after which a client that wants bookmarks gets one.
const BOOKMARK_AFTER: Duration = Duration::from_secs(10);

struct Watch {
    server: Arc<Server>,
    target: Target,
    selector: Selector,
    bookmarks: bool,
    ends: Instant,
    /// The client has seen everything up to this version.
    seen: u64,
    /// Events sent so far, for faults that hit the n-th.
    sent: u64,
    /// What goes out before the first wait.
    first: Vec<String>,
    /// Nothing follows any more.
    ended: bool,
}

/// Answers a watch request.
pub(crate) fn stream(server: Arc<Server>, target: Target, parameters: &ReadParameters) -> Response {
    let faults = server.faults();
    if parameters.send_initial_events && faults.no_streaming_lists {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                       feature gate is enabled";
        return failure(StatusCode::UNPROCESSABLE_ENTITY, message);
    }
    let mut watch = Watch {
        selector: parameters.selector(&target),
        server,
        target,
        bookmarks: parameters.allow_watch_bookmarks,
        ends: Instant::now() + parameters.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
        seen: 0,
        sent: 0,
        first: Vec::new(),
        ended: false,
    };
    let with_list = parameters.send_initial_events || matches!(parameters.resource_version.as_str(), "" | "0");
    if with_list {
        watch.begin_with_a_list(parameters.send_initial_events);
    } else if let Err(answer) = watch.begin_at(&parameters.resource_version, faults.expire) {
        return *answer;
    }
    let lines = stream::unfold(watch, |mut watch| async move {
        let events = watch.next().await?;
        let delay = watch.server.faults().delay();
        tokio::time::sleep(delay).await;
        Some((Ok::<_, Infallible>(Bytes::from(watch.spoil(events))), watch))
    });
    ([("content-type", "application/json")], Body::from_stream(lines)).into_response()
}

impl Watch {
    fn begin_at(&mut self, version: &str, expire: bool) -> Result<(), Box<Response>> {
        let Ok(version) = version.parse() else {
            let message = format!("resourceVersion {version:?} is no version");
            return Err(Box::new(failure(StatusCode::BAD_REQUEST, &message)));
        };
        // A forgotten version, or another server's as after a restored backup: the client has to list again.
        if expire || self.server.store().since(version).is_none() {
            return Err(Box::new(failure(StatusCode::GONE, &format!("too old resource version: {version}"))));
        }
        self.seen = version;
        Ok(())
    }

    /// The present state as ADDED events, closed by a bookmark when the client asked for a streaming list (KEP-3157).
    fn begin_with_a_list(&mut self, streaming: bool) {
        let store = self.server.store();
        self.seen = store.newest();
        let matching = store.list(&self.target.resource).filter(|object| self.selector.matches(object));
        self.first = matching.map(|object| line("ADDED", object)).collect();
        drop(store);
        if streaming {
            self.first.push(self.bookmark(true));
        }
    }

    fn bookmark(&self, end_of_list: bool) -> String {
        let kind = crate::kinds::by_plural(&self.target.resource).map_or("Bookmark", |kind| kind.kind);
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if end_of_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        line("BOOKMARK", &json!({"apiVersion": self.target.api_version, "kind": kind, "metadata": metadata}))
    }

    /// Waits for events that the client wants to see; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Vec<String>> {
        if self.ended {
            return None;
        }
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first));
        }
        let mut newest = self.server.newest.subscribe();
        loop {
            let wake = if self.bookmarks { self.ends.min(Instant::now() + BOOKMARK_AFTER) } else { self.ends };
            match timeout_at(wake, newest.wait_for(|version| *version > self.seen)).await {
                Ok(changed) => drop(changed.ok()?),
                Err(_) if Instant::now() >= self.ends => return None,
                Err(_) => return Some(vec![self.bookmark(false)]),
            }
            let server = Arc::clone(&self.server);
            let events = self.events(&server.store());
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    fn events(&mut self, store: &Store) -> Vec<String> {
        let Some(changes) = store.since(self.seen) else {
            self.ended = true;
            return vec![line("ERROR", &status(StatusCode::GONE, "too old resource version"))];
        };
        let changes = changes.filter(|change| change.resource == self.target.resource);
        let events = changes.filter_map(|change| self.event(change)).collect();
        self.seen = store.newest();
        events
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

    /// The events as they go out, with the faults that are asked for.
    fn spoil(&mut self, events: Vec<String>) -> String {
        let faults = self.server.faults();
        let mut out = String::new();
        for event in events {
            self.sent += 1;
            match faults.fate(self.sent) {
                Fate::Whole => out += &event,
                Fate::Twice => out += &event.repeat(2),
                Fate::Last => out += &event,
                Fate::Half => out += event.get(..event.len() / 2).unwrap_or_default(),
            }
            if matches!(faults.fate(self.sent), Fate::Last | Fate::Half) {
                self.ended = true;
                break;
            }
        }
        out
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
