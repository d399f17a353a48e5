//! Health-check node ports: tells load balancers whether this node has endpoints of a Service (kube-proxy.md 11.3).
//!
//! The Services thread publishes what to answer; the listeners are tasks of the runtime. A port that cannot be had is logged,
//! told to whoever wants to know, and tried again; the others are served.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    http::{Response, StatusCode},
    response::IntoResponse,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{sync::watch, time};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};
use weft_proxy::{
    health_check::respond,
    model::{IpFamily, ServiceName},
    plan::HealthCheck,
};

use super::health::Health;
use crate::status::HealthCheckStatus;

/// How long a port that is in use is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// Until the tasks of closed listeners have closed their sockets, which they do when they run next.
const CLOSING: Duration = Duration::from_millis(10);

/// What to answer, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// By Service.
    pub(crate) checks: BTreeMap<ServiceName, HealthCheck>,
    /// Addresses of each family to listen at.
    pub(crate) addresses: BTreeMap<IpFamily, Vec<IpAddr>>,
}

/// A port could not be had: worth an event on the Service (11.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenFailure {
    /// The Service.
    pub(crate) service: ServiceName,
    /// kube-proxy's words.
    pub(crate) message: String,
}

impl ListenFailure {
    /// Reason of the event.
    pub(crate) const REASON: &str = "FailedToStartServiceHealthcheck";
    /// Action of the event.
    pub(crate) const ACTION: &str = "Listen";
}

/// Is told of each failure once.
pub(crate) type OnFailure = Box<dyn Fn(&ListenFailure) + Send>;

/// The Services thread's end.
#[derive(Debug)]
pub(crate) struct Publisher {
    served: watch::Sender<Arc<Served>>,
    status: watch::Receiver<Vec<HealthCheckStatus>>,
}

impl Publisher {
    /// Answers like this from now on.
    pub(crate) fn publish(&self, served: Served) {
        self.served.send_if_modified(|now| {
            let differs = **now != served;
            if differs {
                *now = Arc::new(served);
            }
            differs
        });
    }

    /// Where it listens.
    pub(crate) fn status(&self) -> Vec<HealthCheckStatus> {
        self.status.borrow().clone()
    }
}

/// Starts to serve what will be published, as tasks of the runtime this is called in, until the publisher is gone.
pub(crate) fn start(node: String, health: Arc<Health>, on_failure: OnFailure) -> Publisher {
    let (served, receiver) = watch::channel(Arc::new(Served::default()));
    let (report, status) = watch::channel(Vec::new());
    let listeners = Listeners { node, health, on_failure, served: receiver.clone(), open: BTreeMap::new() };
    tokio::spawn(listeners.run(receiver, report));
    Publisher { served, status }
}

/// A Service is asked at its own listener, so that two with one port do not answer for each other.
type Place = (ServiceName, SocketAddr);

struct Listeners {
    node: String,
    health: Arc<Health>,
    on_failure: OnFailure,
    served: watch::Receiver<Arc<Served>>,
    /// A listener ends with its guard.
    open: BTreeMap<Place, Result<DropGuard, String>>,
}

impl Listeners {
    async fn run(mut self, mut changes: watch::Receiver<Arc<Served>>, report: watch::Sender<Vec<HealthCheckStatus>>) {
        loop {
            let served = Arc::clone(&changes.borrow_and_update());
            if self.close(&served) {
                time::sleep(CLOSING).await;
            }
            self.open_wanted(&served);
            report.send_replace(self.status(&served));
            let failed = self.open.values().any(Result::is_err);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = time::sleep(RETRY), if failed => {}
            }
        }
    }

    /// Closes what is not wanted any more, before anything is opened: a port may go from one Service to another. True if there
    /// was any.
    fn close(&mut self, served: &Served) -> bool {
        let (wanted, before) = (places(served), self.open.len());
        self.open.retain(|place, _| wanted.contains(place));
        self.open.len() < before
    }

    fn open_wanted(&mut self, served: &Served) {
        for place in places(served) {
            let before = match self.open.entry(place.clone()) {
                Entry::Occupied(entry) if entry.get().is_ok() => continue,
                Entry::Occupied(entry) => entry.remove().err(),
                Entry::Vacant(_) => None,
            };
            let opened = self.open(&place).map_err(|error| error.to_string());
            match &opened {
                Ok(_) => info!(service = %place.0, at = %place.1, "answering health checks"),
                Err(error) if before.as_ref() == Some(error) => {}
                Err(error) => self.failed(&place, error),
            }
            self.open.insert(place, opened);
        }
    }

    fn failed(&self, (service, at): &Place, error: &str) {
        warn!(%service, %at, error, retry_in = ?RETRY, "cannot answer health checks");
        let message =
            format!("node {} failed to start healthcheck \"{service}\" on port {}: {error}", self.node, at.port());
        (self.on_failure)(&ListenFailure { service: service.clone(), message });
    }

    fn open(&self, (service, at): &Place) -> io::Result<DropGuard> {
        let listener = tokio::net::TcpListener::from_std(listen(*at)?)?;
        let (service, family) = (service.clone(), IpFamily::of(at.ip()));
        let (served, health) = (self.served.clone(), Arc::clone(&self.health));
        // Any path, any method.
        let answer = move || std::future::ready(answer(&served.borrow(), &service, family, health.is_healthy()));
        let closed = CancellationToken::new();
        let serving = axum::serve(listener, Router::new().fallback(answer))
            .with_graceful_shutdown(closed.clone().cancelled_owned());
        tokio::spawn(serving.into_future());
        Ok(closed.drop_guard())
    }

    fn status(&self, served: &Served) -> Vec<HealthCheckStatus> {
        let status = |check: &HealthCheck| {
            let places = self.open.iter().filter(|((service, _), _)| *service == check.service);
            let mut status = HealthCheckStatus {
                service: check.service.to_string(),
                port: check.port,
                listening: Vec::new(),
                error: None,
            };
            for ((_, at), opened) in places {
                match opened {
                    Ok(_) => status.listening.push(at.ip()),
                    Err(error) => status.error = Some(format!("{at}: {error}")),
                }
            }
            status
        };
        served.checks.values().map(status).collect()
    }
}

/// Each Service at each address of its families.
fn places(served: &Served) -> Vec<Place> {
    let mut places = Vec::new();
    for check in served.checks.values() {
        for family in check.local_ready_endpoints.keys() {
            let addresses = served.addresses.get(family).into_iter().flatten();
            places.extend(addresses.map(|ip| (check.service.clone(), SocketAddr::new(*ip, check.port))));
        }
    }
    places
}

/// A socket of its own for each family, for each counts its own endpoints.
fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A new agent must get the port while connections of the old one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(at))?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn answer(served: &Served, service: &ServiceName, family: IpFamily, healthy: bool) -> axum::response::Response {
    let check = served.checks.get(service);
    let count = check.and_then(|check| check.local_ready_endpoints.get(&family)).copied().unwrap_or(0);
    let answer = respond(service, count, healthy);
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    match response.body(answer.body.into()) {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
