//! A small Kubernetes API server for tests: in memory, plain HTTP, as much of the API as Weft's clients use.
//!
//! Lists, watches (with label and field selectors, bookmarks and streaming lists), server-side apply, strategic merge of
//! a status, delete.
//! Every resource path is served, so that it needs no list of kinds.

mod merge;
mod selector;
mod store;
mod watch;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch as notice;

use selector::Selector;
use store::{Address, Store};

/// In-memory Kubernetes API server for tests.
#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one. The address in use is printed on standard output.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Directory of manifests that are there from the start.
    #[arg(long, value_name = "DIR")]
    load: Option<PathBuf>,
}

/// Shared by all requests.
pub(crate) struct Server {
    store: Mutex<Store>,
    /// The newest resource version, for watches that wait.
    newest: notice::Sender<u64>,
}

impl Server {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no request panics while it holds the store")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut store = Store::default();
    if let Some(directory) = &args.load {
        load(&mut store, directory).with_context(|| format!("load {}", directory.display()))?;
    }
    let newest = notice::Sender::new(store.newest());
    let server = Arc::new(Server { store: Mutex::new(store), newest });
    let router = Router::new()
        .route("/readyz", get(async || "ok"))
        .route("/api/v1/{resource}", get(list_core))
        .route("/apis/{group}/{version}/{resource}", get(list_group))
        .route("/api/v1/{resource}/{name}", get(get_core).patch(apply_core).delete(delete_core))
        .route("/api/v1/{resource}/{name}/status", axum::routing::patch(patch_status_core))
        .route(
            "/api/v1/namespaces/{namespace}/{resource}/{name}",
            get(get_core_namespaced).patch(apply_core_namespaced).delete(delete_core_namespaced),
        )
        .route(
            "/apis/{group}/{version}/namespaces/{namespace}/{resource}/{name}",
            get(get_group).patch(apply_group).delete(delete_group),
        )
        .with_state(server);
    let listener =
        tokio::net::TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    std::io::Write::write_all(&mut std::io::stdout(), format!("listening on {address}\n").as_bytes())?;
    axum::serve(listener, router).await?;
    Ok(())
}

fn load(store: &mut Store, directory: &std::path::Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let text = std::fs::read_to_string(entry?.path())?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        for object in objects.into_iter().filter(Value::is_object) {
            store.put(Address::of(&object).with_context(|| format!("no kind or name: {object}"))?, object);
        }
    }
    Ok(())
}

/// Query parameters of a list or watch (Kubernetes API concepts, "Efficient detection of changes").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListParameters {
    #[serde(default)]
    watch: Option<String>,
    #[serde(default)]
    label_selector: String,
    #[serde(default)]
    field_selector: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    send_initial_events: bool,
}

type Shared = State<Arc<Server>>;

async fn list_core(server: Shared, Path(resource): Path<String>, query: Query<ListParameters>) -> Response {
    list(server, "v1".to_owned(), resource, query)
}

async fn list_group(
    server: Shared,
    Path((group, version, resource)): Path<(String, String, String)>,
    query: Query<ListParameters>,
) -> Response {
    list(server, format!("{group}/{version}"), resource, query)
}

fn list(
    State(server): Shared,
    api_version: String,
    resource: String,
    Query(parameters): Query<ListParameters>,
) -> Response {
    let selector = Selector::parse(&parameters.label_selector, &parameters.field_selector);
    if parameters.watch.as_deref().is_some_and(|watch| watch == "true" || watch == "1") {
        return watch::stream(server, api_version, resource, selector, &parameters);
    }
    let store = server.store();
    let items: Vec<&Value> = store.list(&resource).filter(|object| selector.matches(object)).collect();
    axum::Json(json!({
        "kind": "List",
        "apiVersion": api_version,
        "metadata": {"resourceVersion": store.newest().to_string()},
        "items": items,
    }))
    .into_response()
}

async fn get_core(server: Shared, Path((resource, name)): Path<(String, String)>) -> Response {
    get_one(&server, &Address::cluster(&resource, &name))
}

async fn get_core_namespaced(
    server: Shared,
    Path((namespace, resource, name)): Path<(String, String, String)>,
) -> Response {
    get_one(&server, &Address::namespaced(&resource, &namespace, &name))
}

async fn get_group(
    server: Shared,
    Path((_, _, namespace, resource, name)): Path<(String, String, String, String, String)>,
) -> Response {
    get_one(&server, &Address::namespaced(&resource, &namespace, &name))
}

async fn apply_core(server: Shared, Path((resource, name)): Path<(String, String)>, body: Bytes) -> Response {
    apply(&server, Address::cluster(&resource, &name), &body)
}

async fn apply_core_namespaced(
    server: Shared,
    Path((namespace, resource, name)): Path<(String, String, String)>,
    body: Bytes,
) -> Response {
    apply(&server, Address::namespaced(&resource, &namespace, &name), &body)
}

async fn apply_group(
    server: Shared,
    Path((_, _, namespace, resource, name)): Path<(String, String, String, String, String)>,
    body: Bytes,
) -> Response {
    apply(&server, Address::namespaced(&resource, &namespace, &name), &body)
}

async fn delete_core(server: Shared, Path((resource, name)): Path<(String, String)>) -> Response {
    delete(&server, &Address::cluster(&resource, &name))
}

async fn delete_core_namespaced(
    server: Shared,
    Path((namespace, resource, name)): Path<(String, String, String)>,
) -> Response {
    delete(&server, &Address::namespaced(&resource, &namespace, &name))
}

async fn delete_group(
    server: Shared,
    Path((_, _, namespace, resource, name)): Path<(String, String, String, String, String)>,
) -> Response {
    delete(&server, &Address::namespaced(&resource, &namespace, &name))
}

/// Strategic merge of the status subresource. The real one takes annotations there too, which flannel relies on.
async fn patch_status_core(
    State(server): Shared,
    Path((resource, name)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let address = Address::cluster(&resource, &name);
    let patch: Value = match serde_json::from_slice(&body) {
        Ok(patch) => patch,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let mut store = server.store();
    let Some(mut object) = store.get(&address).cloned() else {
        return failure(StatusCode::NOT_FOUND, &format!("{address} not found"));
    };
    merge::strategic(&mut object, &patch);
    let stored = store.put(address, object).clone();
    server.newest.send_replace(store.newest());
    axum::Json(stored).into_response()
}

fn get_one(server: &Server, address: &Address) -> Response {
    match server.store().get(address) {
        Some(object) => axum::Json(object.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND, &format!("{address} not found")),
    }
}

/// Server-side apply, as far as tests need it: the applied object replaces the stored one.
fn apply(server: &Server, address: Address, body: &[u8]) -> Response {
    match std::str::from_utf8(body)
        .map_err(|error| error.to_string())
        .and_then(|text| serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string()))
    {
        Ok(object) if object.is_object() => {
            let mut store = server.store();
            let stored = store.put(address, object).clone();
            server.newest.send_replace(store.newest());
            axum::Json(stored).into_response()
        }
        Ok(_) => failure(StatusCode::BAD_REQUEST, "the body is no object"),
        Err(error) => failure(StatusCode::BAD_REQUEST, &error),
    }
}

fn delete(server: &Server, address: &Address) -> Response {
    let mut store = server.store();
    match store.delete(address) {
        Some(object) => {
            server.newest.send_replace(store.newest());
            axum::Json(object).into_response()
        }
        None => failure(StatusCode::NOT_FOUND, &format!("{address} not found")),
    }
}

/// The API's Status object.
pub(crate) fn failure(code: StatusCode, message: &str) -> Response {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""),
        "code": code.as_u16(),
    });
    (code, axum::Json(status)).into_response()
}
