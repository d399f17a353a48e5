//! One watch request, from its begin to its end.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use kube::api::WatchEvent;
use tokio::time::{Instant, timeout};

/// The server is asked to end a watch after so many seconds: then another server has its turn, where there are several.
pub(super) const SERVER_SECONDS: u32 = 290;
/// Without a word for so long the connection is dead.
const IDLE: Duration = Duration::from_secs(SERVER_SECONDS as u64 + 5);
/// A watch without news that ends sooner than this was none; client-go calls it a very short watch.
const SHORTEST: Duration = Duration::from_secs(1);

/// As the server sends them.
pub(super) type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

/// What a watch request brings.
pub(super) struct Changes<K> {
    events: Events<K>,
    began: Instant,
    silent: bool,
}

impl<K> Changes<K> {
    pub(super) fn new(events: Events<K>) -> Self {
        Self { events, began: Instant::now(), silent: true }
    }

    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<kube::Result<WatchEvent<K>>> {
        let event = timeout(IDLE, self.events.next()).await.ok().flatten();
        self.silent &= event.is_none();
        event
    }

    /// Whether it ended without news as soon as it had begun: to ask again at once would be a storm.
    pub(super) fn ended_at_once(&self) -> bool {
        self.silent && self.began.elapsed() < SHORTEST
    }
}
