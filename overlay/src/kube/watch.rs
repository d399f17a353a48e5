//! Turns the Nodes of the API server into snapshots.
//!
//! Back-off, bookmarks and lists after a gap are the `kube` crate's work. A list becomes a snapshot only when it is complete,
//! so that an API server that fails half-way, or is away, never looks like nodes that went.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use super::{ANSWER, AnnotationPrefix, node::WatchedNode};
use crate::lease::{Lease, LeaseError, LeaseSnapshot, LeaseTable, Rejection};

type Events = BoxStream<'static, watcher::Result<Event<WatchedNode>>>;
type Snapshots = watch::Sender<Option<Arc<LeaseSnapshot>>>;

/// Waits for the first full list, then follows until the last receiver is dropped.
pub(super) async fn start(
    nodes: Api<WatchedNode>,
    prefix: AnnotationPrefix,
    own: String,
) -> Result<watch::Receiver<Option<Arc<LeaseSnapshot>>>, LeaseError> {
    let mut events = events(&nodes);
    let mut follower = Follower { table: LeaseTable::default(), listing: Vec::new(), prefix, own };
    let doing = || "list Nodes".to_owned();
    match timeout(ANSWER, follower.first_list(&mut events)).await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(LeaseError::Backend { doing: doing(), source: source.into() }),
        Err(_) => return Err(LeaseError::NoAnswer { doing: doing(), waited: ANSWER }),
    }
    let (snapshots, receiver) = watch::channel(Some(Arc::new(follower.table.snapshot())));
    tokio::spawn(async move {
        tokio::select! {
            () = snapshots.closed() => {}
            () = follower.run(&nodes, events, &snapshots) => {}
        }
    });
    Ok(receiver)
}

fn events(nodes: &Api<WatchedNode>) -> Events {
    // From the server's cache, as every informer does: thousands of agents must not all read through to etcd.
    let config = watcher::Config::default().any_semantic();
    watcher(nodes.clone(), config).default_backoff().boxed()
}

/// Whether the server does not know the version any more that the watcher goes on asking for: it starts over by itself only
/// if a stream says so, not if the request is refused (`kube` 5.0).
fn is_stuck(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

struct Follower {
    table: LeaseTable,
    /// A list that is not complete yet.
    listing: Vec<(String, Result<Lease, Rejection>)>,
    prefix: AnnotationPrefix,
    own: String,
}

impl Follower {
    async fn first_list(&mut self, events: &mut Events) -> watcher::Result<()> {
        while let Some(event) = events.next().await {
            let event = event?;
            let complete = matches!(event, Event::InitDone);
            self.take(event);
            if complete {
                break;
            }
        }
        Ok(())
    }

    async fn run(&mut self, nodes: &Api<WatchedNode>, mut stream: Events, snapshots: &Snapshots) {
        let mut failing = false;
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    failing = false;
                    if self.take(event) {
                        publish(&self.table, snapshots);
                    }
                }
                Err(error) if is_stuck(&error) => stream = events(nodes),
                Err(error) if !failing => {
                    warn!(%error, "Nodes cannot be watched; the last leases stay");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// True if the table changed, or may have.
    fn take(&mut self, event: Event<WatchedNode>) -> bool {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(node) => {
                let read = self.read(&node);
                self.listing.extend(read.map(|read| (node.name().to_owned(), read)));
            }
            Event::InitDone => {
                self.table.replace(std::mem::take(&mut self.listing));
                return true;
            }
            Event::Apply(node) => {
                return match self.read(&node) {
                    Some(read) => self.table.set(node.name(), read),
                    None => self.table.remove(node.name()),
                };
            }
            Event::Delete(node) => return self.table.remove(node.name()),
        }
        false
    }

    /// The own Node without annotations was re-created (flannel-defects.md C.4): that is news even though it is no lease,
    /// for the reconciler to announce it again at once.
    fn read(&mut self, node: &WatchedNode) -> Option<Result<Lease, Rejection>> {
        let read = self.prefix.read(node);
        if read.is_some() || node.name() != self.own {
            return read;
        }
        // What it published before it was deleted does not count any more.
        self.table.remove(&self.own);
        Some(Err(Rejection { reason: "this node is not announced".into(), subnets: None }))
    }
}

fn publish(table: &LeaseTable, snapshots: &Snapshots) {
    let new = table.snapshot();
    snapshots.send_if_modified(|current| {
        let modified = current.as_deref() != Some(&new);
        if modified {
            *current = Some(Arc::new(new));
        }
        modified
    });
}
