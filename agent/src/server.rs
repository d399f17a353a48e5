//! The agent's socket: HTTP on `<run-dir>/agent.sock`, for `weft status` and whoever wants to look inside.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use serde::Deserialize;
use tokio::{net::UnixListener, sync::watch};
use tokio_util::sync::CancellationToken;
use weft_overlay::OverlayStatus;

use crate::{
    config::Components,
    health::Servers,
    services,
    status::{ConfigStatus, ServiceStatus, SourceStatus, Status},
    trace::{
        self, TraceError,
        answer::{Answer, Asked},
    },
};

/// Name of the socket below `--run-dir`.
pub(crate) const SOCKET: &str = "agent.sock";

/// How often, and how far apart, another agent has to answer to count as one.
const LAST_BREATHS: u32 = 10;
const LAST_BREATH: Duration = Duration::from_millis(100);

/// What the socket answers from.
pub(crate) struct Sources {
    /// What does not change: node, version, components, source.
    pub(crate) identity: Identity,
    /// The pod network, when the component runs.
    pub(crate) overlay: Option<watch::Receiver<OverlayStatus>>,
    /// The Services thread, when the component runs.
    pub(crate) services: Option<services::Handle>,
    /// What a trace has to know beside the Services.
    pub(crate) trace: trace::Basis,
    /// Where health and metrics are told.
    pub(crate) servers: Servers,
    /// The configuration files.
    pub(crate) configuration: watch::Receiver<ConfigStatus>,
}

/// Who this agent is.
pub(crate) struct Identity {
    /// Name of the node.
    pub(crate) node: String,
    /// Parts that run.
    pub(crate) components: Components,
    /// `dir` or `kube`, and where.
    pub(crate) source: (&'static str, String),
    /// When the agent started.
    pub(crate) started: Instant,
}

/// The bound socket, before it serves.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// Whether another agent serves there. One that was just killed may seem to for a moment: a program that it was about to
/// run has its sockets until it is that program.
fn still_answers(path: &Path) -> bool {
    let answers = || std::os::unix::net::UnixStream::connect(path).is_ok();
    (0..LAST_BREATHS).all(|_| {
        let answered = answers();
        if answered {
            thread::sleep(LAST_BREATH);
        }
        answered
    })
}

impl Server {
    /// Binds the socket; readable by root only, since it shows every Service of the cluster.
    ///
    /// # Errors
    /// Another agent serves there already, or the directory cannot be written.
    pub(crate) fn bind(run_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(run_dir)?;
        let path = run_dir.join(SOCKET);
        if still_answers(&path) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another agent answers at {}; stop it or choose another --run-dir", path.display()),
            ));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until `shutdown`, then removes the socket.
    pub(crate) async fn serve(self, sources: Sources, shutdown: CancellationToken) -> io::Result<()> {
        let router = Router::new()
            .route("/status", get(status))
            .route("/services", get(list_services))
            .route("/trace", get(trace_one).post(trace_many))
            .with_state(Arc::new(sources));
        let served = axum::serve(self.listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        let _ = fs::remove_file(&self.path);
        served
    }
}

async fn status(State(sources): State<Arc<Sources>>) -> Json<Status> {
    let identity = &sources.identity;
    let overlay = sources.overlay.as_ref().map(|status| status.borrow().clone());
    let report = match &sources.services {
        Some(services) => services.report().await,
        None => None,
    };
    let overlay_ready = overlay.as_ref().is_none_or(|overlay| overlay.ready);
    let proxy_ready = sources.services.is_none() || report.as_ref().is_some_and(|report| report.proxy.synced);
    let source = report.as_ref().map(|report| SourceStatus {
        kind: identity.source.0.to_owned(),
        location: identity.source.1.clone(),
        synced: report.source_synced,
        rejected: report.rejected.clone(),
        warnings: report.source_warnings.clone(),
    });
    Json(Status {
        node: identity.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: overlay_ready && proxy_ready,
        uptime_seconds: identity.started.elapsed().as_secs(),
        components: identity.components.names(),
        servers: sources.servers.status(),
        overlay,
        proxy: report.map(|report| report.proxy),
        configuration: sources.configuration.borrow().clone(),
        source,
    })
}

/// `?service=namespace/name` asks for one Service.
#[derive(Deserialize)]
struct ServicesQuery {
    service: Option<String>,
}

async fn list_services(
    State(sources): State<Arc<Sources>>,
    Query(query): Query<ServicesQuery>,
) -> Result<Json<Vec<ServiceStatus>>, (StatusCode, String)> {
    let Some(services) = &sources.services else {
        return Err((StatusCode::NOT_FOUND, "the proxy component does not run on this node".to_owned()));
    };
    match services.list(query.service).await {
        Some(list) => Ok(Json(list)),
        None => Err((StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned())),
    }
}

/// `?from=...&to=...` asks for one connection.
async fn trace_one(
    State(sources): State<Arc<Sources>>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<Answer>>, (StatusCode, String)> {
    traced(&sources, vec![asked]).await
}

/// A list of questions as the body.
async fn trace_many(
    State(sources): State<Arc<Sources>>,
    Json(asked): Json<Vec<Asked>>,
) -> Result<Json<Vec<Answer>>, (StatusCode, String)> {
    traced(&sources, asked).await
}

async fn traced(sources: &Sources, asked: Vec<Asked>) -> Result<Json<Vec<Answer>>, (StatusCode, String)> {
    let Some(services) = &sources.services else {
        return Err((StatusCode::NOT_FOUND, "the proxy component does not run on this node".to_owned()));
    };
    let overlay = sources.overlay.as_ref().map(|status| status.borrow().clone());
    match trace::answer_all(services, &sources.trace, overlay, asked).await {
        Ok(answers) => Ok(Json(answers)),
        Err(error @ TraceError::Stopping) => Err((StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn one_agent_that_answers_is_enough_and_one_that_dies_is_waited_for() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let other = StdListener::bind(directory.path().join(SOCKET))?;
        let refused = Server::bind(directory.path()).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::AddrInUse));
        let dying = thread::spawn(move || {
            thread::sleep(LAST_BREATH * 2);
            drop(other);
        });
        Server::bind(directory.path())?;
        dying.join().map_err(|_| io::Error::other("the other agent panicked"))
    }
}
