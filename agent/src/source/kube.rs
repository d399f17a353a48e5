//! `--source kube`: Services, EndpointSlices and this Node, listed and watched at the API server.
//!
//! Back-off, bookmarks and re-lists are the `kube` crate's work; a list reaches the planner only when it is complete,
//! so that an API server that fails half-way never looks like a deletion.

mod types;

use std::fmt::Debug;

use futures::StreamExt;
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};
use weft_proxy::{
    model::{ObjectKind, api::Object},
    plan::Change,
};

use super::SourceEvent;
use crate::config::KubeAccess;
use types::{WatchedEndpointSlice, WatchedNode, WatchedService};

/// kube-proxy.md 1.1: Services of other proxies and headless ones never reach us.
const SERVICE_LABELS: &str = "!service.kubernetes.io/service-proxy-name";
const SERVICE_FIELDS: &str = "spec.clusterIP!=None";
/// kube-proxy.md 1.2.
const SLICE_LABELS: &str = "!service.kubernetes.io/headless";

/// The API server cannot be named. Not about whether it answers: that is waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// The kubeconfig file is unusable.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        path: String,
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// There is no kubeconfig, and this is no pod.
    #[error("no --kubeconfig is given, and this is no pod with a service account: {0}")]
    InCluster(#[source] kube::config::InClusterError),
    /// `--master` is no URL.
    #[error("--master: {value:?}: must be a URL such as https://192.0.2.1:6443: {source}")]
    Master {
        value: String,
        #[source]
        source: axum::http::uri::InvalidUri,
    },
    /// TLS set-up failed.
    #[error("API client: {0}")]
    Client(#[source] kube::Error),
}

/// A client for the configured API server, and its URL.
///
/// # Errors
/// The access is not usable; see [`AccessError`].
pub(crate) async fn connect(access: &KubeAccess) -> Result<(Client, String), AccessError> {
    let mut config = match &access.kubeconfig {
        Some(path) => {
            let wrong = |source| AccessError::Kubeconfig { path: path.display().to_string(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)?
        }
        None if access.master.is_some() => Config::new(axum::http::Uri::from_static("http://localhost")),
        None => Config::incluster().map_err(AccessError::InCluster)?,
    };
    if let Some(master) = &access.master {
        config.cluster_url = master.parse().map_err(|source| AccessError::Master { value: master.clone(), source })?;
    }
    let url = config.cluster_url.to_string();
    Ok((Client::try_from(config).map_err(AccessError::Client)?, url))
}

/// Follows all three kinds for as long as `deliver` takes what comes.
pub(crate) async fn watch(client: Client, node: &str, deliver: impl Fn(SourceEvent) -> bool) {
    let services = watcher::Config::default().labels(SERVICE_LABELS).fields(SERVICE_FIELDS);
    let slices = watcher::Config::default().labels(SLICE_LABELS);
    let nodes = watcher::Config::default().fields(&format!("metadata.name={node}"));
    futures::join!(
        follow::<WatchedService>(Api::all(client.clone()), services, ObjectKind::Service, &deliver),
        follow::<WatchedEndpointSlice>(Api::all(client.clone()), slices, ObjectKind::EndpointSlice, &deliver),
        follow::<WatchedNode>(Api::all(client), nodes, ObjectKind::Node, &deliver),
    );
}

async fn follow<K>(api: Api<K>, config: watcher::Config, kind: ObjectKind, deliver: &impl Fn(SourceEvent) -> bool)
where
    K: Resource + Clone + Debug + DeserializeOwned + Into<Object> + Send + 'static,
{
    let start = || watcher(api.clone(), config.clone()).default_backoff().boxed();
    let mut events = start();
    let mut listing: Vec<Object> = Vec::new();
    let mut failing = false;
    while let Some(event) = events.next().await {
        failing &= event.is_err();
        let taken = match event {
            Ok(Event::Init) => {
                listing.clear();
                true
            }
            Ok(Event::InitApply(object)) => {
                listing.push(object.into());
                true
            }
            Ok(Event::InitDone) => {
                debug!(%kind, count = listing.len(), "listed");
                deliver(SourceEvent::Replace(kind, std::mem::take(&mut listing)))
            }
            Ok(Event::Apply(object)) => deliver(SourceEvent::Change(Change::Apply(object.into()))),
            Ok(Event::Delete(object)) => deliver(SourceEvent::Change(Change::Delete(object.into().reference()))),
            Err(error) if is_stuck(&error) => {
                events = start();
                true
            }
            Err(error) => {
                // Once an outage: the back-off tries for as long as it takes.
                if !failing {
                    warn!(%kind, %error, "watching the API server; the data plane stays as it is");
                }
                failing = true;
                true
            }
        };
        if !taken {
            return;
        }
    }
}

/// Whether the server does not know the version any more that the watcher goes on asking for, as after a restored backup:
/// the watcher lists again by itself only if a stream says so, not if the request is refused (`kube` 5.0).
fn is_stuck(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
