//! Listens where kube-proxy does, and as it does: a wildcard takes both families, a port in use is tried again.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::Router;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a port that is in use is left alone.
const RETRY: Duration = Duration::from_secs(5);

const BACKLOG: i32 = 128;

/// A server to be: what it is called, and where it answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listening {
    /// For the log.
    pub(crate) name: &'static str,
    /// Where.
    pub(crate) at: SocketAddr,
    /// Whether an address that cannot be had is an error.
    pub(crate) hard_fail: bool,
}

/// Serves as a task of the runtime until `shutdown`.
///
/// # Errors
/// With `hard_fail` only: the address cannot be had.
pub(crate) fn serve(listening: Listening, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let Listening { name, at, hard_fail } = listening;
    let first = match listen(at) {
        Err(error) if hard_fail => return Err(error),
        first => first,
    };
    tokio::spawn(async move {
        let listener = tokio::select! {
            () = shutdown.cancelled() => return,
            listener = until_listening(listening, first) => listener,
        };
        info!(%at, "{name} is served");
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await {
            warn!(%error, "{name} is served no longer");
        }
    });
    Ok(())
}

async fn until_listening(Listening { name, at, .. }: Listening, mut result: io::Result<TcpListener>) -> TcpListener {
    let mut told = false;
    loop {
        match result {
            Ok(listener) => return listener,
            Err(error) if told => tracing::debug!(%at, %error, "{name} is still not served"),
            Err(error) => {
                warn!(%at, %error, retry_in = ?RETRY, "{name} cannot be served");
                told = true;
            }
        }
        tokio::time::sleep(RETRY).await;
        result = listen(at);
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
