//! The way to the API server: kubeconfig, `--master`, or a pod's service account.

use std::{sync::Arc, time::Duration};

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    config::KubeAccess,
    metrics::{ApiRequests, Metrics},
};

/// The server sends something on a watch about once a minute, a bookmark if nothing else. Silent for longer, it is gone and nobody
/// has told us, as when its machine lost power: the watch goes on at another.
const SILENCE: Duration = Duration::from_secs(100);

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

/// A client for the configured API server, and its URL. What it asks is counted in `metrics`.
///
/// # Errors
/// The access is not usable; see [`AccessError`].
pub(crate) async fn connect(
    access: &KubeAccess,
    metrics: Option<&Arc<Metrics>>,
) -> Result<(Client, String), AccessError> {
    let config = configuration(access).await?;
    let url = config.cluster_url.to_string();
    let host = config.cluster_url.authority().map_or("", |authority| authority.as_str()).into();
    let client = ClientBuilder::try_from(config).map_err(AccessError::Client)?;
    let client = match metrics {
        Some(metrics) => client.with_layer(&ApiRequests { metrics: Arc::clone(metrics), host }).build(),
        None => client.build(),
    };
    Ok((client, url))
}

async fn configuration(access: &KubeAccess) -> Result<Config, AccessError> {
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
    config.read_timeout = Some(SILENCE);
    // Else the time that a connection has waited for its next request would count.
    config.reset_reader_on_write = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_server_that_is_gone_without_a_word_is_noticed() {
        // The kernel takes the connection, and nobody ever answers.
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let master = Some(format!("http://{}", server.local_addr().unwrap()));
        let mut config = configuration(&KubeAccess { master, ..KubeAccess::default() }).await.unwrap();
        assert_eq!(config.read_timeout, Some(SILENCE));
        config.read_timeout = Some(Duration::from_millis(20));
        let client = Client::try_from(config).unwrap();
        let request = axum::http::Request::get("/api/v1/services?watch=true").body(Vec::new()).unwrap();
        let answer = timeout(Duration::from_secs(30), client.request_text(request)).await;
        assert!(matches!(answer, Ok(Err(_))), "{answer:?}");
    }
}
