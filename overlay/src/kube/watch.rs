//! Turns the Nodes of the API server into snapshots.

use std::{collections::BTreeSet, sync::Arc};

use kube::{Api, runtime::watcher};
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};
use weft_kube_watch::{ListGuard, News, Verdict, Watch};

use super::{ANSWER, AnnotationPrefix, KubeLeaseConfig, node::WatchedNode};
use crate::lease::{Lease, LeaseError, LeaseSnapshot, LeaseTable, Rejection};

type Nodes = Watch<WatchedNode, WatchedNode>;
type Snapshots = watch::Sender<Option<Arc<LeaseSnapshot>>>;

/// Waits for the first full list, then follows until the last receiver is dropped.
pub(super) async fn start(
    api: Api<WatchedNode>,
    config: KubeLeaseConfig,
) -> Result<watch::Receiver<Option<Arc<LeaseSnapshot>>>, LeaseError> {
    // From the server's cache, as every informer does: thousands of agents must not all read through to etcd.
    let mut nodes = Nodes::new(api, watcher::Config::default().any_semantic(), |node| node);
    let mut follower = Follower {
        table: LeaseTable::default(),
        guard: ListGuard::new(config.trust_empty_lists, None),
        prefix: config.annotation_prefix,
        own: config.node_name,
    };
    let doing = || "list Nodes".to_owned();
    match timeout(ANSWER, nodes.next()).await {
        Ok(Ok(news)) => follower.take(news),
        Ok(Err(source)) => return Err(LeaseError::Backend { doing: doing(), source: source.into() }),
        Err(_) => return Err(LeaseError::NoAnswer { doing: doing(), waited: ANSWER }),
    };
    let (snapshots, receiver) = watch::channel(Some(Arc::new(follower.table.snapshot())));
    tokio::spawn(async move {
        tokio::select! {
            () = snapshots.closed() => {}
            () = follower.run(nodes, &snapshots) => {}
        }
    });
    Ok(receiver)
}

struct Follower {
    table: LeaseTable,
    guard: ListGuard,
    prefix: AnnotationPrefix,
    own: String,
}

impl Follower {
    async fn run(&mut self, mut nodes: Nodes, snapshots: &Snapshots) {
        let mut failing = false;
        loop {
            match nodes.next().await {
                Ok(news) => {
                    failing = false;
                    if self.take(news) {
                        publish(&self.table, snapshots);
                    }
                }
                Err(error) if !failing => {
                    warn!(%error, "Nodes cannot be watched; the last leases stay");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    /// True if the table changed, or may have.
    fn take(&mut self, news: News<WatchedNode>) -> bool {
        match news {
            News::List(nodes) => self.take_list(&nodes),
            News::Applied(node) => {
                if self.guard.applied(node.name()) {
                    info!("the API server has all Nodes again");
                }
                self.apply(&node)
            }
            News::Deleted(node) => {
                self.guard.deleted(node.name());
                self.table.remove(node.name())
            }
        }
    }

    fn take_list(&mut self, nodes: &[WatchedNode]) -> bool {
        let present: BTreeSet<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
        let count = present.len();
        if let Verdict::Held { missing, known } = self.guard.list(present) {
            warn!(
                "the API server lists {count} Nodes where there were {known}, as after a restored backup: the {} it does not \
                 have are kept. If they are really gone, restart the agent with --trust-empty-lists",
                missing.len()
            );
            for node in nodes {
                self.apply(node);
            }
        } else {
            let mut leases = Vec::new();
            for node in nodes {
                leases.extend(self.read(node).map(|read| (node.name().to_owned(), read)));
            }
            self.table.replace(leases);
        }
        true
    }

    fn apply(&mut self, node: &WatchedNode) -> bool {
        match self.read(node) {
            Some(read) => self.table.set(node.name(), read),
            None => self.table.remove(node.name()),
        }
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
