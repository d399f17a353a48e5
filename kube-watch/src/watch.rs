//! One kind, listed and watched.

use std::{fmt::Debug, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::{watcher, watcher::Event},
};
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::backoff::Backoff;

/// Why the API server cannot be followed at the moment.
pub type WatchError = watcher::Error;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<T> {
    /// All there are. A list that broke off is never delivered.
    List(Vec<T>),
    /// One is new, or changed.
    Applied(T),
    /// One is gone; as it was last.
    Deleted(T),
}

/// Follows the objects of one kind that a selector picks. Each is turned into `T` as it arrives, so that a long list never
/// lies in memory in the API's own shape.
pub struct Watch<K, T> {
    api: Api<K>,
    config: watcher::Config,
    read: fn(K) -> T,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    /// A list that is not complete yet.
    listing: Vec<T>,
    backoff: Backoff,
    /// Before the server is asked again.
    pause: Option<Duration>,
}

impl<K, T> Watch<K, T>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Asks for nothing yet. `config` holds the selectors; how the list is fetched is decided here.
    pub fn new(api: Api<K>, config: watcher::Config, read: fn(K) -> T) -> Self {
        let config = config.streaming_lists();
        let events = watcher(api.clone(), config.clone()).boxed();
        Self { api, config, read, events, listing: Vec::new(), backoff: Backoff::default(), pause: None }
    }

    /// Waits for the next news. After an error it waits a while, then goes on: it never ends.
    ///
    /// # Errors
    /// The server does not answer, or refuses; what was delivered before still holds.
    pub async fn next(&mut self) -> Result<News<T>, WatchError> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        loop {
            match self.events.next().await {
                Some(Ok(Event::Init)) => self.listing.clear(),
                Some(Ok(Event::InitApply(object))) => self.listing.push((self.read)(object)),
                Some(Ok(Event::InitDone)) => return Ok(News::List(std::mem::take(&mut self.listing))),
                Some(Ok(Event::Apply(object))) => return Ok(News::Applied((self.read)(object))),
                Some(Ok(Event::Delete(object))) => return Ok(News::Deleted((self.read)(object))),
                Some(Err(error)) if self.pages_only(&error) => {
                    debug!(%error, "no streaming lists at this API server; listing in pages");
                    self.config.initial_list_strategy = watcher::InitialListStrategy::ListWatch;
                    self.start_over();
                }
                Some(Err(error)) => {
                    self.pause = Some(self.backoff.failed());
                    if is_stuck(&error) {
                        self.start_over();
                    }
                    return Err(error);
                }
                None => self.start_over(),
            }
        }
    }

    /// Makes the next news a full list, after a pause.
    pub fn list_again(&mut self, pause: Duration) {
        self.pause = Some(pause);
        self.start_over();
    }

    fn start_over(&mut self) {
        self.listing.clear();
        self.events = watcher(self.api.clone(), self.config.clone()).boxed();
    }

    /// Whether the server has no streaming lists: it knows the parameter and the feature is off (422), or it does not know
    /// it (400).
    fn pages_only(&self, error: &WatchError) -> bool {
        let streaming = self.config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
        let refused = |status: &kube::core::Status| matches!(status.code, 400 | 422);
        let start = matches!(error, WatchError::WatchStartFailed(kube::Error::Api(status)) if refused(status));
        streaming && start
    }
}

/// Whether the server does not know the version any more that the watcher goes on asking for, as after a restored backup:
/// the watcher lists again by itself only if a stream says so, not if the request is refused (`kube` 5.0).
fn is_stuck(error: &WatchError) -> bool {
    matches!(error, WatchError::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
