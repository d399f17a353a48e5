//! The Services thread: objects in, kernel up to date.
//!
//! Owns the planner and the data planes. Everything happens on one thread, in order: take what is ready, plan,
//! apply. Nothing is written before every kind was listed completely.

mod planes;
mod udp;
mod view;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};
use weft_proxy::{model::ObjectKind, plan::Planner};

use crate::{
    data_planes::Chosen,
    source::SourceEvent,
    status::{ProxyStatus, RejectedObject, ServiceStatus},
};
use planes::Planes;
use udp::UdpCleanUp;

/// Most inputs taken before the kernel is brought up to date: bounds the delay of the first change in a storm.
const BATCH: usize = 10_000;

/// How often the data planes are asked whether their kernel objects are still there.
const CHECK_EVERY: Duration = Duration::from_secs(1);

enum Input {
    Source(SourceEvent),
    NodePortAddresses(BTreeSet<IpAddr>),
    Report(oneshot::Sender<Report>),
    List { service: Option<String>, reply: oneshot::Sender<Vec<ServiceStatus>> },
}

/// Speaks to the Services thread, which ends with the last handle.
#[derive(Clone)]
pub(crate) struct Handle(Sender<Input>);

/// What the thread says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// For `weft status`.
    pub(crate) proxy: ProxyStatus,
    /// Whether every kind was listed completely.
    pub(crate) source_synced: bool,
    /// Objects that were skipped.
    pub(crate) rejected: Vec<RejectedObject>,
}

impl Handle {
    /// Passes on what a source says; `false` when the thread has ended.
    pub(crate) fn source_event(&self, event: SourceEvent) -> bool {
        self.0.send(Input::Source(event)).is_ok()
    }

    /// Sets the addresses NodePorts are accepted at; `false` when the thread has ended.
    pub(crate) fn node_port_addresses(&self, addresses: BTreeSet<IpAddr>) -> bool {
        self.0.send(Input::NodePortAddresses(addresses)).is_ok()
    }

    /// All Services, or one by `namespace/name`; `None` when the thread has ended.
    pub(crate) async fn list(&self, service: Option<String>) -> Option<Vec<ServiceStatus>> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::List { service, reply }).ok()?;
        answer.await.ok()
    }

    /// How things stand; `None` when the thread has ended.
    pub(crate) async fn report(&self) -> Option<Report> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::Report(reply)).ok()?;
        answer.await.ok()
    }
}

/// Starts the thread. It stays in the network namespace of its creator.
///
/// # Errors
/// The thread cannot be created.
pub(crate) fn start(planner: Planner, chosen: Chosen) -> std::io::Result<Handle> {
    let (sender, inputs) = mpsc::channel();
    let worker = Worker {
        planner,
        planes: Planes::new(chosen.planes),
        retire: Some(chosen.retire),
        udp: UdpCleanUp::new(chosen.cgroup_root),
        unlisted: BTreeSet::from([ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node]),
        addresses_known: false,
        unreadable: Vec::new(),
        last_check: Instant::now(),
        last_sync: None,
        repairs: 0,
    };
    thread::Builder::new().name("services".to_owned()).spawn(move || worker.run(&inputs))?;
    Ok(Handle(sender))
}

struct Worker {
    planner: Planner,
    planes: Planes,
    /// Removes what other modes left; to be done once, when ours carry everything.
    retire: Option<Box<dyn FnOnce() + Send>>,
    udp: UdpCleanUp,
    /// Kinds of which no full list came yet.
    unlisted: BTreeSet<ObjectKind>,
    addresses_known: bool,
    /// What the source could not read.
    unreadable: Vec<RejectedObject>,
    last_check: Instant,
    last_sync: Option<Timestamp>,
    repairs: u64,
}

impl Worker {
    fn run(mut self, inputs: &Receiver<Input>) {
        loop {
            let first = match inputs.recv_timeout(self.wait()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut questions = Vec::new();
            for input in first.into_iter().chain(inputs.try_iter().take(BATCH)) {
                match input {
                    Input::Source(event) => self.take(event),
                    Input::NodePortAddresses(addresses) => {
                        self.addresses_known = true;
                        if self.planner.set_node_port_addresses(addresses) {
                            self.planes.node_port_addresses_changed();
                        }
                    }
                    question => questions.push(question),
                }
            }
            if self.unlisted.is_empty() && self.addresses_known {
                self.bring_up_to_date();
            }
            for question in questions {
                self.answer(question);
            }
        }
    }

    /// Time to sleep when nothing comes in.
    fn wait(&self) -> Duration {
        let until_check = CHECK_EVERY.saturating_sub(self.last_check.elapsed());
        self.planes.next_retry().map_or(until_check, |retry| retry.min(until_check))
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Replace(kind, objects) => {
                debug!(%kind, count = objects.len(), "full list");
                let replaced = self.planner.replace(kind, objects);
                for warning in replaced.warnings {
                    warn!("{warning}");
                }
                for error in replaced.rejected {
                    warn!("{error}; its last good state stays");
                }
                self.unlisted.remove(&kind);
            }
            SourceEvent::Change(change) => match self.planner.apply(change) {
                Ok(warnings) => warnings.iter().for_each(|warning| warn!("{warning}")),
                Err(error) => warn!("{error}; its last good state stays"),
            },
            SourceEvent::Unreadable(list) => self.unreadable = list,
        }
    }

    fn bring_up_to_date(&mut self) {
        let changed = self.planner.take_changes();
        self.planes.ports_changed(&changed);
        if self.last_check.elapsed() >= CHECK_EVERY {
            self.last_check = Instant::now();
            self.repairs += self.planes.check();
        }
        if self.planes.apply(self.planner.desired()) {
            if self.last_sync.is_none() {
                info!(service_ports = self.planner.ports().len(), "Services are programmed");
            }
            self.last_sync = Some(Timestamp::now());
            if self.planes.error().is_none() {
                self.in_sync();
            }
        }
    }

    /// What may only follow once the kernel leads new connections to where they belong.
    fn in_sync(&mut self) {
        if let Some(retire) = self.retire.take() {
            retire();
        }
        self.udp.run(&mut self.planner);
    }

    fn answer(&self, question: Input) {
        match question {
            Input::Report(reply) => {
                let _ = reply.send(self.report());
            }
            Input::List { service, reply } => {
                let _ = reply.send(view::services(&self.planner, &self.planes, service.as_deref()));
            }
            Input::Source(_) | Input::NodePortAddresses(_) => {}
        }
    }

    fn report(&self) -> Report {
        let counts = self.planner.counts();
        let proxy = ProxyStatus {
            mode: self.planes.name().to_owned(),
            synced: self.last_sync.is_some() && self.planes.error().is_none(),
            services: counts.services,
            service_ports: counts.service_ports,
            endpoints: counts.endpoints,
            last_sync: self.last_sync.map(|time| format!("{time:.3}")),
            last_error: self.planes.error(),
            repairs: self.repairs,
        };
        let rejected = self.planner.rejected().map(|error| RejectedObject {
            object: error.object.to_string(),
            reason: format!("{}: {}", error.field, error.problem),
        });
        let left_out = self.planner.warnings().map(|warning| RejectedObject {
            object: warning.object.to_string(),
            reason: format!("{}: {}", warning.field, warning.problem),
        });
        let rejected = self.unreadable.iter().cloned().chain(rejected).chain(left_out).collect();
        Report { proxy, source_synced: self.unlisted.is_empty(), rejected }
    }
}
