//! A small Kubernetes API server for tests: in memory, plain HTTP, as much of the API as Weft, its tests and `kubectl` use.
//!
//! Lists (paged), watches (with label and field selectors, bookmarks and streaming lists), create, replace, server-side
//! apply, strategic and JSON merge patches, delete, discovery. On demand it misbehaves: see [`faults`].

mod audit;
mod discovery;
mod faults;
mod kinds;
mod load;
mod merge;
mod read;
mod selector;
mod store;
mod target;
mod watch;
mod write;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use clap::Parser;
use serde_json::json;
use tokio::sync::watch as notice;

use audit::Audit;
use faults::Faults;
use read::ReadParameters;
use store::Store;
use target::Target;

/// In-memory Kubernetes API server for tests.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one. The address in use is printed on standard output.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Directory of manifests (YAML, or JSON also with `kind: List`) that are there from the start.
    #[arg(long, value_name = "DIR")]
    load: Option<PathBuf>,

    /// The first resource version, as of a server that has lived longer than its clients remember.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_version: u64,

    /// Only requests with the bearer token that this file holds at that moment are answered.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// What is asked for is written to this file, a line a request: verb, API group, resource.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

/// Shared by all requests.
pub(crate) struct Server {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// The newest resource version, for watches that wait.
    newest: notice::Sender<u64>,
    token_file: Option<PathBuf>,
    audit: Option<Audit>,
}

impl Server {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no request panics while it holds the store")
    }

    pub(crate) fn faults(&self) -> Faults {
        self.faults.lock().expect("no request panics while it holds the faults").clone()
    }

    /// Wakes the watches; to be called after every change.
    fn changed(&self) {
        self.newest.send_replace(self.store().newest());
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let Some(file) = &self.token_file else { return true };
        let token = fs::read_to_string(file).unwrap_or_default();
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given == Some(format!("Bearer {}", token.trim()).as_str())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut store = Store::starting_at(args.first_version);
    if let Some(directory) = &args.load {
        load::directory(&mut store, directory).with_context(|| format!("load {}", directory.display()))?;
    }
    let newest = notice::Sender::new(store.newest());
    let audit = args.audit.map(|path| Audit::create(&path).with_context(|| format!("create {}", path.display())));
    let server = Arc::new(Server {
        store: Mutex::new(store),
        faults: Mutex::default(),
        newest,
        token_file: args.token_file,
        audit: audit.transpose()?,
    });
    let router = Router::new().route("/faults", get(show_faults).put(set_faults)).fallback(answer).with_state(server);
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    std::io::Write::write_all(&mut std::io::stdout(), format!("listening on {address}\n").as_bytes())?;
    axum::serve(listener, router).await?;
    Ok(())
}

async fn show_faults(State(server): State<Arc<Server>>) -> Response {
    axum::Json(server.faults()).into_response()
}

async fn set_faults(State(server): State<Arc<Server>>, axum::Json(faults): axum::Json<Faults>) -> StatusCode {
    *server.faults.lock().expect("no request panics while it holds the faults") = faults;
    StatusCode::NO_CONTENT
}

/// Every request but those for faults.
async fn answer(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    parameters: Query<ReadParameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let faults = server.faults();
    faults.wait().await;
    if faults.refuse {
        return failure(StatusCode::SERVICE_UNAVAILABLE, "refused on demand");
    }
    if !server.accepts(&headers) {
        return failure(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let Some(target) = Target::parse(uri.path()) else { return discovery::answer(uri.path()) };
    if let Some(audit) = &server.audit {
        audit.note(&method, &target, parameters.is_watch());
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type == "application/vnd.kubernetes.protobuf" {
        return failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this server reads JSON and YAML");
    }
    match (method, target.name.is_empty()) {
        (Method::GET, true) if parameters.is_watch() => watch::stream(server, target, &parameters),
        (Method::GET, true) => read::list(&server, &target, &parameters),
        (Method::GET, false) => read::one(&server, &target),
        (Method::POST, true) => write::create(&server, target, &body),
        (Method::PUT, false) => write::replace(&server, &target, &body),
        (Method::PATCH, false) => write::patch(&server, &target, media_type, &body),
        (Method::DELETE, false) => write::delete(&server, &target),
        (method, _) => failure(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} of {}", uri.path())),
    }
}

/// An answer of JSON that is text already.
pub(crate) fn json(code: StatusCode, text: String) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The API's Status object.
pub(crate) fn failure(code: StatusCode, message: &str) -> Response {
    (code, axum::Json(status(code, message))).into_response()
}

/// As an answer, or as the object of an ERROR event.
pub(crate) fn status(code: StatusCode, message: &str) -> serde_json::Value {
    let reason = match code {
        StatusCode::GONE => "Expired".to_owned(),
        StatusCode::CONFLICT => "AlreadyExists".to_owned(),
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid".to_owned(),
        code => code.canonical_reason().unwrap_or_default().replace(' ', ""),
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    })
}
