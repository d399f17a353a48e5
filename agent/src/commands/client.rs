//! Asks the agent over its socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::server::SOCKET;

/// The agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing answers at the socket.
    #[error("no agent answers at {}: {source}\nIs `weft agent` running on this node, with this --run-dir?", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("asking the agent for {request}: {source}")]
    Http {
        request: String,
        #[source]
        source: hyper::Error,
    },
    /// The agent said no.
    #[error("the agent answers {request} with {status}: {text}")]
    Refused { request: String, status: StatusCode, text: String },
    /// Agent and command are of different versions.
    #[error("the agent's answer to {request} is not understood: {source}; are agent and command of one version?")]
    Decode {
        request: String,
        #[source]
        source: serde_json::Error,
    },
}

/// `GET path` at the agent's socket, decoded.
pub(crate) fn get<T: DeserializeOwned>(run_dir: &Path, path: &str) -> Result<T, ClientError> {
    ask(run_dir, Method::GET, path, Bytes::new())
}

/// `POST path` with a body of JSON at the agent's socket, decoded.
pub(crate) fn post<T: DeserializeOwned>(run_dir: &Path, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
    ask(run_dir, Method::POST, path, body.into())
}

fn ask<T: DeserializeOwned>(run_dir: &Path, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
    let socket = run_dir.join(SOCKET);
    let connect_error = |source| ClientError::Connect { path: socket.clone(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(connect_error)?;
    runtime.block_on(async {
        let stream = UnixStream::connect(&socket).await.map_err(connect_error)?;
        let (status, body) = exchange(stream, method, path, body)
            .await
            .map_err(|source| ClientError::Http { request: path.to_owned(), source })?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(ClientError::Refused { request: path.to_owned(), status, text });
        }
        serde_json::from_slice(&body).map_err(|source| ClientError::Decode { request: path.to_owned(), source })
    })
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths are made of checked names");
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("weft"));
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}
