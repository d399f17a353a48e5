//! Counts what is asked of the API server, as all of Kubernetes' clients do: `rest_client_*`.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::http::{Request, Response};
use futures::future::BoxFuture;
use kube::client::Body;
use tower::{Layer, Service};

use super::Metrics;

/// Looks at each request of a client.
#[derive(Clone, Debug)]
pub(crate) struct ApiRequests {
    /// Where they are counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Host and port of the API server.
    pub(crate) host: Arc<str>,
}

/// The client below, looked at.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    requests: ApiRequests,
    client: S,
}

impl<S> Layer<S> for ApiRequests {
    type Service = Counted<S>;

    fn layer(&self, client: S) -> Counted<S> {
        Counted { requests: self.clone(), client }
    }
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (ApiRequests { metrics, host }, method) = (self.requests.clone(), request.method().clone());
        let started = Instant::now();
        let answer = self.client.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            metrics.api_answered(&host, method.as_str(), code, started.elapsed());
            answer
        })
    }
}
