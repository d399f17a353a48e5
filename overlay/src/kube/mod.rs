//! Leases in the Kubernetes API, as flannel keeps them: the subnet is the Node's pod CIDR, everything else its annotations
//! (flannel.md 5.1). Nothing is allocated here.

mod annotations;
mod node;
mod watch;

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{sync::watch as channel, time::timeout};
use tracing::info;

pub use self::annotations::{AnnotationPrefix, AnnotationPrefixError};
use self::node::WatchedNode;
use crate::lease::{
    Lease, LeaseError, LeaseFuture, LeaseHolder, LeaseManager, LeaseRequest, LeaseSnapshot, NetworkState,
    StoredSettings,
};

/// How long an answer of the API server is waited for.
const ANSWER: Duration = Duration::from_secs(15);
/// Name under which the API server notes who changed a field.
const FIELD_MANAGER: &str = "weft";
/// Condition of a Node that keeps pods away from it.
const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// Configuration of [`KubeLeases`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeLeaseConfig {
    /// Name of this node's Node.
    pub node_name: String,
    /// `--kube-annotation-prefix`.
    pub annotation_prefix: AnnotationPrefix,
    /// `--set-node-network-unavailable`: keep the condition NetworkUnavailable of the Node true to the facts.
    pub set_network_unavailable: bool,
    /// Believe a list of Nodes that has lost more than half of them at once, as after a restored backup.
    pub trust_empty_lists: bool,
    /// File that holds how many Nodes there are, for the next process to see a list that has lost most of them. On a file
    /// system that a reboot empties, as the kernel's entries go with it too; none: each process starts without that knowledge.
    pub known_nodes: Option<PathBuf>,
}

/// The `kube` lease manager.
pub struct KubeLeases {
    nodes: Api<WatchedNode>,
    config: KubeLeaseConfig,
    /// Reported last; a re-created Node has to be told again.
    reported: Mutex<Option<NetworkState>>,
}

impl KubeLeases {
    /// Leases at the API server of `client`.
    pub fn new(client: Client, config: KubeLeaseConfig) -> Self {
        Self { nodes: Api::all(client), config, reported: Mutex::default() }
    }

    async fn node(&self, name: &str) -> Result<WatchedNode, LeaseError> {
        let found = answer(format!("read Node {name}"), self.nodes.get_opt(name)).await?;
        found.ok_or_else(|| LeaseError::NoNode { node: name.to_owned() })
    }

    /// A strategic merge of the Node's status subresource, which is all an agent is allowed to change (flannel's RBAC).
    async fn patch(&self, name: &str, patch: Value) -> Result<WatchedNode, LeaseError> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Strategic(patch);
        let patched = self.nodes.patch_status(name, &parameters, &patch);
        answer(format!("patch the status of Node {name}"), patched).await
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        let name = &request.node_name;
        let prefix = &self.config.annotation_prefix;
        let mut node = self.node(name).await?;
        let subnets = annotations::own_subnets(name, &node, &request.net_conf)?;
        let attributes = prefix.overwrite(&node, subnets, &request.attributes)?;
        let wrong = prefix.corrections(&node, &attributes);
        if !wrong.is_empty() {
            info!(keys = ?wrong.keys().collect::<Vec<_>>(), "annotating the Node");
            node = self.patch(name, json!({"metadata": {"annotations": wrong}})).await?;
        }
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(network) = reported {
            self.set_condition(name, &node, &network).await?;
        }
        Ok(Lease { subnets, attributes })
    }

    /// Writes the condition unless it says so already, whoever wrote it.
    async fn set_condition(&self, name: &str, node: &WatchedNode, network: &NetworkState) -> Result<(), LeaseError> {
        let (status, reason, message) = match network {
            NetworkState::Up => ("False", "WeftIsUp", "Weft is running on this node"),
            NetworkState::Down { reason } => ("True", "WeftIsDown", reason.as_str()),
        };
        let old = node.condition(NETWORK_UNAVAILABLE);
        let is_known = old.is_some_and(|old| old.status == status);
        if is_known && (*network == NetworkState::Up || old.is_some_and(|old| old.message == message)) {
            return Ok(());
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut condition = json!({
            "type": NETWORK_UNAVAILABLE,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
        });
        if !is_known {
            condition["lastTransitionTime"] = now.into();
        }
        self.patch(name, json!({"status": {"conditions": [condition]}})).await.map(|_| ())
    }
}

impl LeaseManager for KubeLeases {
    fn describe(&self) -> String {
        "kube".into()
    }

    fn settings<'a>(&'a self, node_name: &'a str) -> LeaseFuture<'a, StoredSettings> {
        Box::pin(async move {
            let node = self.node(node_name).await?;
            self.config.annotation_prefix.settings(&node)
        })
    }

    fn own<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Option<Lease>> {
        Box::pin(async {
            let node = self.node(&request.node_name).await?;
            Ok(self.config.annotation_prefix.read(&node).and_then(Result::ok))
        })
    }

    fn acquire<'a>(&'a self, request: &'a LeaseRequest) -> LeaseFuture<'a, Lease> {
        Box::pin(self.acquire(request))
    }

    fn watch(&self) -> LeaseFuture<'_, channel::Receiver<Option<Arc<LeaseSnapshot>>>> {
        Box::pin(watch::start(self.nodes.clone(), self.config.clone()))
    }

    fn report_network<'a>(&'a self, node_name: &'a str, network: &'a NetworkState) -> LeaseFuture<'a, ()> {
        Box::pin(async move {
            if !self.config.set_network_unavailable {
                return Ok(());
            }
            *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(network.clone());
            let node = self.node(node_name).await?;
            self.set_condition(node_name, &node, network).await
        })
    }

    /// Takes the annotations off, so that no peer sends to this node any more. The pod CIDR is not ours to give back.
    fn release<'a>(&'a self, holder: &'a LeaseHolder) -> LeaseFuture<'a, ()> {
        Box::pin(async move {
            let node_name = holder.node_name.as_str();
            let node = match self.node(node_name).await {
                Ok(node) => node,
                Err(LeaseError::NoNode { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            let keys = self.config.annotation_prefix.published_keys();
            let present: BTreeMap<_, _> = keys
                .into_iter()
                .filter(|key| node.annotations().contains_key(key))
                .map(|key| (key, Value::Null))
                .collect();
            if present.is_empty() {
                return Ok(());
            }
            self.patch(node_name, json!({"metadata": {"annotations": present}})).await.map(|_| ())
        })
    }
}

async fn answer<T>(doing: String, asked: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(LeaseError::Backend { doing, source: source.into() }),
        Err(_) => Err(LeaseError::NoAnswer { doing, waited: ANSWER }),
    }
}
