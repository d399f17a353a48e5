//! Listens where kube-proxy does, and as it does: a wildcard takes both families, a port in use is tried again.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{port_owners, status::ServerStatus};

/// How long a port that is in use is left alone.
const RETRY: Duration = Duration::from_secs(5);

const BACKLOG: i32 = 128;

/// The servers of this agent, by name, and why one of them does not answer. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers(Arc<Mutex<BTreeMap<&'static str, ServerStatus>>>);

/// A server to be: what it is called, and where it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    /// For log and status.
    pub(crate) name: &'static str,
    /// Where.
    pub(crate) at: SocketAddr,
    /// Whether an address that cannot be had is an error.
    pub(crate) hard_fail: bool,
    /// What moves it to another address.
    pub(crate) flag: &'static str,
}

impl Servers {
    /// How they are.
    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Serves as a task of the runtime until `shutdown`. `failed` is told, once, why it has to be tried again.
    ///
    /// # Errors
    /// With `hard_fail` only: why the address cannot be had.
    pub(crate) fn serve(
        &self,
        listening: Listening,
        router: Router,
        shutdown: CancellationToken,
        failed: impl Fn(&str),
    ) -> Result<(), String> {
        let Listening { name, at, hard_fail, .. } = listening;
        let first = listen(at).map_err(|error| explained(&listening, &error));
        self.note(&listening, first.as_ref().err());
        if let Err(why) = &first {
            if hard_fail {
                return Err(why.clone());
            }
            warn!(retry_in = ?RETRY, "{why}");
            failed(why);
        }
        let servers = self.clone();
        tokio::spawn(async move {
            let listener = tokio::select! {
                () = shutdown.cancelled() => return,
                listener = servers.until_listening(&listening, first.ok()) => listener,
            };
            info!(%at, "{name} is served");
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await {
                warn!(%error, "{name} is served no longer");
            }
        });
        Ok(())
    }

    async fn until_listening(&self, listening: &Listening, mut listener: Option<TcpListener>) -> TcpListener {
        loop {
            if let Some(listener) = listener {
                return listener;
            }
            tokio::time::sleep(RETRY).await;
            let tried = listen(listening.at).map_err(|error| explained(listening, &error));
            self.note(listening, tried.as_ref().err());
            if let Err(why) = &tried {
                debug!("{why}");
            }
            listener = tried.ok();
        }
    }

    fn note(&self, Listening { name, at, .. }: &Listening, error: Option<&String>) {
        let status = ServerStatus { name: (*name).to_owned(), address: at.to_string(), error: error.cloned() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, status);
    }
}

/// What is wrong, and what to do about it.
fn explained(Listening { name, at, flag, .. }: &Listening, error: &io::Error) -> String {
    let wrong = format!("cannot serve {name} at {at}: {error}");
    if error.kind() != io::ErrorKind::AddrInUse {
        return wrong;
    }
    let owner = port_owners::tcp(at.port()).into_iter().find_map(|owner| owner.process);
    match owner.as_deref() {
        Some("kube-proxy") => format!("{wrong}; kube-proxy has it: take kube-proxy off this node"),
        Some(owner) => format!("{wrong}; {owner} has it: end that, or choose another address by {flag}"),
        None => format!("{wrong}; end who has it, or choose another address by {flag}"),
    }
}

/// Go's listen: 0.0.0.0 is both families where the kernel has both.
fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), at.port());
    let socket = if at.ip().is_unspecified() {
        match open(both) {
            Err(error) if at.is_ipv4() && error.kind() != io::ErrorKind::AddrInUse => open(at),
            result => result,
        }
    } else {
        open(at)
    }?;
    TcpListener::from_std(socket.into())
}

fn open(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_who_has_it_and_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        let listening = Listening { name: "health", at, hard_fail: false, flag: "--healthz-bind-address" };
        let (servers, told) = (Servers::default(), Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let failed = |why: &str| told.lock().unwrap().push(why.to_owned());
        servers.serve(listening, Router::new(), stop.clone(), failed).unwrap();
        let why = told.into_inner().unwrap().concat();
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(why.starts_with(&format!("cannot serve health at {at}: ")), "{why}");
        assert!(why.contains(own.trim()) && why.ends_with("by --healthz-bind-address"), "{why}");
        assert_eq!(servers.status()[0].error.as_ref(), Some(&why));
        let hard = Listening { hard_fail: true, name: "metrics", ..listening };
        assert!(servers.serve(hard, Router::new(), stop.clone(), |_| {}).is_err());
        drop(taken);
        servers.serve(hard, Router::new(), stop.clone(), |_| {}).unwrap();
        assert_eq!(servers.status()[1].error, None);
        stop.cancel();
    }
}
