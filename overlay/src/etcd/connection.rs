//! One connection to etcd, made when it is needed and made anew when it fails.

use std::{
    fs,
    future::Future,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::time::timeout;
use tracing::debug;

use super::EtcdConfig;
use crate::lease::LeaseError;

/// How long an answer is waited for. A cluster that elects a leader answers within two seconds.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a member may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// HTTP/2 pings, also on an idle connection: a frozen member or a dead path is noticed without traffic.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    config: EtcdConfig,
    client: Mutex<Option<Client>>,
}

impl Connection {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, client: Mutex::default() }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Asks etcd. What fails on the connection there was is tried once more on a new one: the members, the certificates or
    /// the token may have changed. So `ask` may happen twice although only one answer arrives.
    pub(super) async fn ask<T, F>(&self, doing: &str, ask: impl Fn(Client) -> F) -> Result<T, LeaseError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let last = self.client().clone();
        if let Some(client) = last {
            match answer(doing, ask(client)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    debug!(%error, "connecting to etcd again");
                    self.client().take();
                }
            }
        }
        let options = self.options()?;
        let connect = Client::connect(&self.config.endpoints, Some(options));
        let client = answer(&format!("connect to {}", self.endpoints()), connect).await?;
        let result = answer(doing, ask(client.clone())).await;
        if result.is_ok() {
            self.client().replace(client);
        }
        result.map_err(|error| match error {
            // A member that refuses connections is waited for as well.
            LeaseError::NoAnswer { doing, waited } => {
                LeaseError::NoAnswer { doing: format!("{doing} at {}", self.endpoints()), waited }
            }
            other => other,
        })
    }

    fn client(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        // A client is whole at any time.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> String {
        self.config.endpoints.join(",")
    }

    fn options(&self) -> Result<ConnectOptions, LeaseError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING_EVERY, PING_ANSWER)
            .with_keep_alive_while_idle(true)
            // A member that is cut off from the others says so instead of keeping quiet (flannel does the same).
            .with_require_leader(true);
        if let Some(user) = &self.config.user {
            options = options.with_user(&user.name, &user.password);
        }
        if self.config.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            options = options.with_tls(self.tls()?);
        }
        Ok(options)
    }

    fn tls(&self) -> Result<TlsOptions, LeaseError> {
        let mut tls = TlsOptions::new();
        tls = match &self.config.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        };
        if let Some(client) = &self.config.client_certificate {
            tls = tls.identity(Identity::from_pem(read(&client.certificate_file)?, read(&client.key_file)?));
        }
        Ok(tls)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LeaseError> {
    let failed = |source: io::Error| LeaseError::File { doing: "read", path: path.to_owned(), source };
    fs::read(path).map_err(failed)
}

async fn answer<T>(doing: &str, asked: impl Future<Output = Result<T, Error>>) -> Result<T, LeaseError> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(LeaseError::Backend { doing: format!("{doing} in etcd"), source: source.into() }),
        Err(_) => Err(LeaseError::NoAnswer { doing: format!("{doing} in etcd"), waited: ANSWER }),
    }
}
