//! One kind, listed and watched.

mod changes;
mod news;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, warn};

pub use self::news::{News, Selection, WatchError};

use self::changes::{Changes, Events, SERVER_SECONDS};
use crate::backoff::Backoff;

/// Objects in a page: as many as `kubectl` and client-go ask for.
const PAGE: u32 = 500;
/// Marks the bookmark at the end of a streaming list (KEP-3157).
const END_OF_LIST: &str = "k8s.io/initial-events-end";
/// A server sends a bookmark every minute or so, if nothing else. One that was restored from a backup says nothing at all
/// until its versions are as high as those it is asked for.
const SILENCE: Duration = Duration::from_secs(600);

/// Follows the objects of one kind that a selector picks. Each is turned into `T` as it arrives, so that a long list never
/// lies in memory in the API's own shape.
pub struct Watch<K, T> {
    api: Api<K>,
    selection: Selection,
    read: fn(K) -> T,
    /// Whether lists come in pages: the server has no streaming lists.
    in_pages: bool,
    /// Of what was told last; empty if there is none that the server would know.
    version: String,
    /// Whether all objects were told of, as of `version`.
    listed: bool,
    /// Since then.
    changes: Option<Changes<K>>,
    /// When the server said anything last.
    heard: Instant,
    backoff: Backoff,
    /// Apart, for a server that has forgotten a version is there again: after an outage nobody must wait twice.
    relisting: Backoff,
    /// Before the server is asked again.
    pause: Option<Duration>,
}

impl<K, T> Watch<K, T>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Asks for nothing yet.
    pub fn new(api: Api<K>, selection: Selection, read: fn(K) -> T) -> Self {
        Self {
            api,
            selection,
            read,
            in_pages: false,
            version: String::new(),
            listed: false,
            changes: None,
            heard: Instant::now(),
            backoff: Backoff::default(),
            relisting: Backoff::default(),
            pause: None,
        }
    }

    /// Waits for the next news. After an error it waits a while, then goes on: it never ends.
    ///
    /// # Errors
    /// The server does not answer, or refuses; what was delivered before still holds.
    pub async fn next(&mut self) -> Result<News<T>, WatchError> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        let news = self.news().await;
        if let Err(error) = &news {
            let backoff = if is_forgotten(error) {
                self.forget();
                &mut self.relisting
            } else {
                &mut self.backoff
            };
            self.pause = Some(backoff.failed());
        }
        news
    }

    /// Makes the next news a full list, after a pause as after a failure: the other agents do not like their lists either.
    pub fn list_again(&mut self) {
        self.pause = Some(self.relisting.failed());
        (self.listed, self.changes) = (false, None);
    }

    /// Goes on with a full list of whatever version the server has.
    fn forget(&mut self) {
        self.version.clear();
        (self.listed, self.changes) = (false, None);
    }

    async fn news(&mut self) -> Result<News<T>, WatchError> {
        loop {
            if !self.listed {
                let list = self.list().await?;
                (self.listed, self.heard) = (true, Instant::now());
                return Ok(News::List(list));
            }
            let changes = match &mut self.changes {
                Some(changes) => changes,
                None => {
                    let events = self.watch(false).await?;
                    self.changes.insert(Changes::new(events))
                }
            };
            match changes.next().await {
                Some(Ok(event)) => {
                    self.heard = Instant::now();
                    if let Some(news) = self.take(event)? {
                        return Ok(news);
                    }
                }
                Some(Err(error)) if is_unreadable(&error) => return Err(WatchError::Unreadable),
                // What else goes wrong is the end.
                Some(Err(error)) => return Err(error.into()),
                None => self.end()?,
            }
        }
    }

    /// What an event means; nothing new if it is a bookmark.
    fn take(&mut self, event: WatchEvent<K>) -> Result<Option<News<T>>, WatchError> {
        let (object, news): (K, fn(T) -> News<T>) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, News::Applied),
            WatchEvent::Deleted(object) => (object, News::Deleted),
            WatchEvent::Bookmark(bookmark) => {
                self.version = bookmark.metadata.resource_version;
                return Ok(None);
            }
            WatchEvent::Error(status) => {
                self.changes = None;
                return Err(WatchError::Ended(status));
            }
        };
        if let Some(version) = object.resource_version() {
            self.version = version;
        }
        Ok(Some(news((self.read)(object))))
    }

    /// The watch has come to its end, as each does after some minutes: another goes on from where it was.
    fn end(&mut self) -> Result<(), WatchError> {
        if self.changes.take().is_some_and(|changes| changes.ended_at_once()) {
            return Err(WatchError::EndedAtOnce);
        }
        if self.heard.elapsed() >= SILENCE {
            debug!("the API server has not said anything for long; listing again");
            self.forget();
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<Vec<T>, WatchError> {
        if !self.in_pages {
            match self.watch(true).await {
                Ok(events) => return self.stream_list(events).await,
                // The server knows the parameter and the feature is off (422), or it does not know it (400).
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
                    debug!(%status, "no streaming lists at this API server; listing in pages");
                    self.in_pages = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.list_in_pages().await
    }

    async fn stream_list(&mut self, events: Events<K>) -> Result<Vec<T>, WatchError> {
        let mut changes = Changes::new(events);
        let (mut list, mut unreadable) = (Vec::new(), 0);
        loop {
            match changes.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => list.push((self.read)(object)),
                Some(Ok(WatchEvent::Bookmark(bookmark))) if bookmark.metadata.annotations.contains_key(END_OF_LIST) => {
                    // A few cost only themselves; without most of them it would be no list.
                    if unreadable > list.len() {
                        return Err(WatchError::Unreadable);
                    }
                    if unreadable > 0 {
                        warn!(unreadable, "not all objects of the API server's list can be read");
                    }
                    self.version = bookmark.metadata.resource_version;
                    self.changes = Some(changes);
                    return Ok(list);
                }
                Some(Ok(WatchEvent::Bookmark(_) | WatchEvent::Deleted(_))) => {}
                Some(Ok(WatchEvent::Error(status))) => return Err(WatchError::Ended(status)),
                Some(Err(error)) if is_unreadable(&error) => unreadable += 1,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(WatchError::ListBrokeOff),
            }
        }
    }

    async fn list_in_pages(&mut self) -> Result<Vec<T>, WatchError> {
        let Selection { labels, fields, whole } = self.selection.clone();
        let mut parameters =
            ListParams { label_selector: labels, field_selector: fields, limit: Some(PAGE), ..ListParams::default() };
        if whole {
            let version = if self.version.is_empty() { "0" } else { &self.version };
            parameters = ListParams { limit: None, ..parameters.at(version).matching(VersionMatch::NotOlderThan) };
        }
        let mut list = Vec::new();
        loop {
            let page = self.api.list(&parameters).await?;
            list.extend(page.items.into_iter().map(self.read));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                // The token stands for the version too.
                Some(token) => {
                    parameters.continue_token = Some(token);
                    (parameters.resource_version, parameters.version_match) = (None, None);
                }
                None => {
                    self.version = page.metadata.resource_version.unwrap_or_default();
                    return Ok(list);
                }
            }
        }
    }

    /// Changes since `version`; with `list` after all that is there now, in that version or a newer one.
    async fn watch(&mut self, list: bool) -> kube::Result<Events<K>> {
        let parameters = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(SERVER_SECONDS),
            bookmarks: true,
            send_initial_events: list,
        };
        Ok(Box::pin(self.api.watch(&parameters, &self.version).await?))
    }
}

/// Whether it is about one object only. Any JSON that is no event counts as a status without a code (`kube` 5.0).
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0,
        _ => false,
    }
}

/// Whether the server does not know the version any more that we go on from, or does not know it yet: it has another history,
/// as after a restored backup.
fn is_forgotten(error: &WatchError) -> bool {
    let (WatchError::Ended(status) | WatchError::Request(kube::Error::Api(status))) = error else { return false };
    // client-go looks for these words too.
    status.code == 410 || status.message.contains("Too large resource version")
}
