//! Turns the Nodes of the API server into snapshots.

use std::sync::Arc;

use kube::Api;
use tokio::{sync::watch, time::timeout};
use tracing::{info, warn};
use weft_kube_watch::{ListGuard, News, Selection, Verdict, Watch};

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
    let all = Selection { whole: true, ..Selection::default() };
    let mut nodes = Nodes::new(api, all, |node| node);
    let mut follower = Follower::new(config);
    let doing = || "list Nodes".to_owned();
    match timeout(ANSWER, nodes.next()).await {
        Ok(Ok(news)) => follower.follow(news, &mut nodes),
        Ok(Err(source)) => return Err(LeaseError::Backend { doing: doing(), source: source.into() }),
        Err(_) => return Err(LeaseError::NoAnswer { doing: doing(), waited: ANSWER }),
    };
    let (snapshots, receiver) = watch::channel(Some(Arc::new(follower.snapshot())));
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
    /// The last list had too few of the Nodes that an earlier process knew.
    incomplete: Option<String>,
}

impl Follower {
    fn new(config: KubeLeaseConfig) -> Self {
        Self {
            table: LeaseTable::default(),
            guard: ListGuard::new(config.trust_empty_lists, config.known_nodes),
            prefix: config.annotation_prefix,
            own: config.node_name,
            incomplete: None,
        }
    }

    fn snapshot(&self) -> LeaseSnapshot {
        LeaseSnapshot { incomplete: self.incomplete.clone(), ..self.table.snapshot() }
    }

    async fn run(&mut self, mut nodes: Nodes, snapshots: &Snapshots) {
        let mut failing = false;
        loop {
            match nodes.next().await {
                Ok(news) => {
                    failing = false;
                    if self.follow(news, &mut nodes) {
                        self.snapshot().publish(snapshots);
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

    /// True if there may be another snapshot.
    fn follow(&mut self, news: News<WatchedNode>, nodes: &mut Nodes) -> bool {
        let changed = self.take(news);
        if self.incomplete.is_some() {
            nodes.list_again();
        }
        changed
    }

    fn take(&mut self, news: News<WatchedNode>) -> bool {
        match news {
            News::List(nodes) => {
                self.take_list(&nodes);
                true
            }
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

    fn take_list(&mut self, nodes: &[WatchedNode]) {
        let verdict = self.guard.list(nodes.iter().map(WatchedNode::name));
        let trouble = verdict.explain("Nodes", nodes.len());
        if let Some(trouble) = trouble.as_ref().filter(|trouble| self.incomplete.as_ref() != Some(*trouble)) {
            warn!("{trouble}");
        }
        // What is held is in the table; what is refused is nowhere but in the kernel.
        self.incomplete = trouble.filter(|_| matches!(verdict, Verdict::Refused { .. }));
        if verdict != Verdict::Believed {
            for node in nodes {
                self.apply(node);
            }
            return;
        }
        let mut leases = Vec::new();
        for node in nodes {
            leases.extend(self.read(node).map(|read| (node.name().to_owned(), read)));
        }
        self.table.replace(leases);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(number: u8) -> WatchedNode {
        let annotations = json!({
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}"#,
            "flannel.alpha.coreos.com/public-ip": format!("172.30.0.{number}"),
        });
        let metadata = json!({"name": format!("n{number}"), "annotations": annotations});
        let spec = json!({"podCIDR": format!("10.244.{number}.0/24")});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn list(numbers: std::ops::Range<u8>) -> News<WatchedNode> {
        News::List(numbers.map(node).collect())
    }

    #[test]
    fn a_new_process_does_not_believe_that_most_nodes_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let follower = |trust_empty_lists| {
            Follower::new(KubeLeaseConfig {
                node_name: "n1".into(),
                annotation_prefix: AnnotationPrefix::default(),
                set_network_unavailable: true,
                trust_empty_lists,
                known_nodes: Some(directory.path().join("known-nodes")),
            })
        };
        let after = |follower: &mut Follower, news| {
            assert!(follower.take(news));
            (follower.snapshot().leases.len(), follower.snapshot().incomplete)
        };
        let mut first = follower(false);
        assert_eq!(after(&mut first, list(1..11)), (10, None));
        assert_eq!(after(&mut first, list(1..2)), (10, None), "this one knows them all and keeps them");

        let mut second = follower(false);
        let (served, told) = after(&mut second, list(1..3));
        let told = told.unwrap();
        assert!(told.starts_with("Nodes: the API server lists 2 where there were 10"), "{told}");
        assert!(served == 2 && told.contains("--trust-empty-lists"), "{served}, {told}");
        assert_eq!(after(&mut second, list(1..9)), (8, None));

        assert_eq!(after(&mut follower(true), list(1..2)), (1, None));
    }
}
