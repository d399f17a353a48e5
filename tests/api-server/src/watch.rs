//! Watches: one JSON line a change, for as long as the client listens.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

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
    store::{Change, Store, Stored},
    target::Target,
};

/// How long a watch lasts for a client that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Silence after which a client that wants bookmarks gets one.
const BOOKMARK_AFTER: Duration = Duration::from_secs(10);

/// Objects of a list that are sent at once, so that the client can begin with them.
const LIST_PART: usize = 100;

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
    /// What goes out as ADDED before the first wait.
    list: VecDeque<Arc<Stored>>,
    /// Whether the client waits for a bookmark at the end of the list.
    closing: bool,
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
        list: VecDeque::new(),
        closing: false,
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
        watch.server.faults().wait().await;
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
        self.list = matching.cloned().collect();
        self.closing = streaming;
    }

    /// The next part of that list; empty when it is over.
    fn part_of_list(&mut self) -> Vec<String> {
        let part = self.list.drain(..self.list.len().min(LIST_PART));
        let mut events: Vec<String> = part.map(|object| event("ADDED", object.text())).collect();
        if self.list.is_empty() && std::mem::take(&mut self.closing) {
            events.push(self.bookmark(true));
        }
        events
    }

    fn bookmark(&self, end_of_list: bool) -> String {
        let kind = crate::kinds::by_plural(&self.target.resource).map_or("Bookmark", |kind| kind.kind);
        let mut metadata = json!({"resourceVersion": self.seen.to_string()});
        if end_of_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let bookmark = json!({"apiVersion": self.target.api_version, "kind": kind, "metadata": metadata});
        event("BOOKMARK", &bookmark.to_string())
    }

    /// Waits for events that the client wants to see; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Vec<String>> {
        if self.ended {
            return None;
        }
        let part = self.part_of_list();
        if !part.is_empty() {
            return Some(part);
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
            return vec![event("ERROR", &status(StatusCode::GONE, "too old resource version").to_string())];
        };
        let changes = changes.filter(|change| change.resource == self.target.resource);
        let events = changes.filter_map(|change| self.event(change)).collect();
        self.seen = store.newest();
        events
    }

    /// A change as this client sees it: an object that no longer matches its selector is deleted for it.
    fn event(&self, change: &Change) -> Option<String> {
        let seen = |object: &Option<Arc<Stored>>| object.clone().filter(|object| self.selector.matches(object));
        match (seen(&change.before), seen(&change.after)) {
            (None, Some(object)) => Some(event("ADDED", object.text())),
            (Some(_), Some(object)) => Some(event("MODIFIED", object.text())),
            (Some(object), None) => {
                let mut last = Value::clone(&object);
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                Some(event("DELETED", &last.to_string()))
            }
            (None, None) => None,
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

/// A line, in the order in which Kubernetes writes it: the type before the object.
fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}
