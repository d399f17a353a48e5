//! One connection to etcd, made when it is needed and made anew when it fails.

use std::{
    fs,
    future::Future,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
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
    current: Mutex<Current>,
}

#[derive(Clone, Default)]
struct Current {
    client: Option<Client>,
    /// Index of the member that answered last; it is tried first.
    member: usize,
}

impl Connection {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, current: Mutex::default() }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// Asks the member that answered last, and if it fails each member once on a new connection: members, certificates or
    /// the token may have changed. So `ask` may be carried out twice although only one answer arrives.
    ///
    /// Each client has one member only: given several, the crate's balancer hands out one that refuses connections too.
    pub(super) async fn ask<T, F>(&self, doing: &str, ask: impl Fn(Client) -> F) -> Result<T, LeaseError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let members = self.config.endpoints.len();
        let Current { client, member } = self.current().clone();
        let first = if client.is_some() { member + 1 } else { member };
        let connected = client.map(|client| (member, Some(client)));
        let anew = (first..first + members).map(|member| (member % members, None));
        let mut failure = None;
        for (member, client) in connected.into_iter().chain(anew) {
            match self.ask_member(member, client, doing, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    debug!(%error, "trying again or elsewhere");
                    self.current().client = None;
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| LeaseError::NoAnswer { doing: doing.to_owned(), waited: Duration::ZERO }))
    }

    async fn ask_member<T, F>(
        &self,
        member: usize,
        client: Option<Client>,
        doing: &str,
        ask: impl Fn(Client) -> F,
    ) -> Result<T, LeaseError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let name = &self.config.endpoints[member];
        let doing = format!("{doing} in etcd at {name}");
        let client = match client {
            Some(client) => client,
            None => answer(&doing, Client::connect([name], Some(self.options()?))).await?,
        };
        let answer = answer(&doing, ask(client.clone())).await?;
        *self.current() = Current { client: Some(client), member };
        Ok(answer)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // It is whole at any time.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(Err(source)) => Err(LeaseError::Backend { doing: doing.to_owned(), source: source.into() }),
        Err(_) => Err(LeaseError::NoAnswer { doing: doing.to_owned(), waited: ANSWER }),
    }
}
