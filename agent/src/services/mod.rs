//! The Services thread: objects in, kernel up to date.
//!
//! Owns the planner and the data planes. Everything happens on one thread, in order: take what is ready, plan,
//! apply. Nothing is written before every kind was listed completely.

mod answers;
mod handle;
mod health;
pub(crate) mod health_checks;
mod measure;
mod node;
mod planes;
mod programming;
pub(crate) mod removals;
mod takeover;
mod udp;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use tracing::{debug, info, warn};
use weft_proxy::{
    model::{IpFamily, ObjectKind},
    plan::{Change, PacketSettings, Planner},
};

use crate::{
    allocator,
    config::ProxyConfig,
    data_planes::Chosen,
    events::MOMENT,
    metrics::Metrics,
    source::SourceEvent,
    status::{ParameterStatus, RejectedObject},
};
use handle::Input;
pub(crate) use handle::{Handle, Report};
pub(crate) use health::Health;
use health::UntilEnd;
use health_checks::{Publisher, Served};
pub(crate) use measure::Measured;
use node::NodeSettings;
use planes::Planes;
use programming::Programming;
use takeover::Takeover;
use udp::UdpCleanUp;

/// Most inputs taken before the kernel is brought up to date: bounds the delay of the first change in a storm.
const BATCH: usize = 10_000;

/// How often the data planes are asked whether their kernel objects are still there, if nobody says that some are gone.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// What the thread works with.
pub(crate) struct Parts {
    /// Knows no object yet.
    pub(crate) planner: Planner,
    /// Not applied yet.
    pub(crate) data_planes: Chosen,
    /// Where health checks are answered.
    pub(crate) health_checks: Publisher,
    /// Whether the data planes keep up; kept up to date.
    pub(crate) health: Arc<Health>,
    /// Where it is counted what happens.
    pub(crate) metrics: Arc<Metrics>,
    /// Is told when an update had to wait for more than a moment, and for how long.
    pub(crate) late: Box<dyn Fn(Duration) + Send>,
    /// What was written at start; for the report.
    pub(crate) conntrack: Vec<ParameterStatus>,
}

/// Starts the thread. It stays in the network namespace of its creator.
///
/// # Errors
/// The thread cannot be created.
pub(crate) fn start(config: &ProxyConfig, parts: Parts) -> std::io::Result<Handle> {
    let Parts { planner, data_planes: chosen, health_checks, health, metrics, late, conntrack } = parts;
    let (sender, inputs) = mpsc::channel();
    let worker = Worker {
        planner,
        planes: Planes::new(chosen.planes),
        retire: Some(chosen.retire),
        udp: UdpCleanUp::new(chosen.cgroup_root),
        node: NodeSettings::new(config, chosen.packets),
        packets: config.packets.clone(),
        second_line: config.second_line,
        takeover: Takeover::new(config.take_over_kube_proxy),
        health_checks,
        _until_end: UntilEnd(Arc::clone(&health)),
        health,
        metrics,
        programming: Programming::new(SystemTime::now()),
        late,
        conntrack,
        unlisted: BTreeSet::from([ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node]),
        listening: BTreeMap::new(),
        may_catch_up: false,
        may_shrink: false,
        unreadable: Vec::new(),
        source_trouble: BTreeMap::new(),
        last_check: Instant::now(),
        check_now: false,
        has_written: false,
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
    node: NodeSettings,
    /// Settings of the packet path, but for what depends on the Node.
    packets: PacketSettings,
    second_line: bool,
    takeover: Takeover,
    health_checks: Publisher,
    health: Arc<Health>,
    _until_end: UntilEnd,
    metrics: Arc<Metrics>,
    programming: Programming,
    late: Box<dyn Fn(Duration) + Send>,
    conntrack: Vec<ParameterStatus>,
    /// Kinds of which no full list came yet.
    unlisted: BTreeSet<ObjectKind>,
    /// Where health checks were answered last, by family.
    listening: BTreeMap<IpFamily, Vec<IpAddr>>,
    /// A data plane may have work left that can wait until nothing else is to do.
    may_catch_up: bool,
    /// A full list was taken, whose memory is to be given back when nothing else is to do.
    may_shrink: bool,
    /// What the source could not read.
    unreadable: Vec<RejectedObject>,
    /// What keeps the objects of a kind from being up to date.
    source_trouble: BTreeMap<ObjectKind, String>,
    last_check: Instant,
    /// Before it is time.
    check_now: bool,
    /// The data planes were tried once: what they have may be looked at.
    has_written: bool,
    /// When all of them had everything.
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
            let idle = first.is_none();
            let mut questions = Vec::new();
            for input in first.into_iter().chain(inputs.try_iter().take(BATCH)) {
                match input {
                    Input::Source(event) => self.take(event),
                    Input::NodeAddresses(addresses) => self.node.addresses_are(addresses),
                    Input::NodePortAddresses(allowed) => self.node.allow(allowed),
                    Input::RulesRemoved => self.check_now = true,
                    question => questions.push(question),
                }
            }
            if self.unlisted.is_empty() && self.node.is_known(&self.planner) {
                self.bring_up_to_date();
                if idle && self.may_catch_up {
                    self.may_catch_up = self.planes.catch_up(self.planner.desired());
                } else if idle && std::mem::take(&mut self.may_shrink) {
                    allocator::give_back();
                }
            }
            for question in questions {
                self.answer(question);
            }
        }
    }

    /// Time to sleep when nothing comes in.
    fn wait(&self) -> Duration {
        if self.may_catch_up {
            return Duration::ZERO;
        }
        // Without a first list nothing is checked; to look at the time again is soon enough.
        let until_check = match self.has_written {
            true => CHECK_EVERY.saturating_sub(self.last_check.elapsed()),
            false => CHECK_EVERY,
        };
        self.planes.next_retry().map_or(until_check, |retry| retry.min(until_check))
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Replace(kind, objects) => {
                debug!(%kind, count = objects.len(), "full list");
                self.metrics.changed(kind, objects.len());
                self.may_shrink = true;
                let replaced = self.planner.replace(kind, objects);
                for warning in replaced.warnings {
                    warn!("{warning}");
                }
                for error in replaced.rejected {
                    warn!("{error}; its last good state stays");
                }
                self.unlisted.remove(&kind);
            }
            SourceEvent::Change(change) => {
                self.metrics.changed(kind_of(&change), 1);
                match self.planner.apply(change) {
                    Ok(warnings) => warnings.iter().for_each(|warning| warn!("{warning}")),
                    Err(error) => warn!("{error}; its last good state stays"),
                }
            }
            SourceEvent::Unreadable(list) => self.unreadable = list,
            SourceEvent::Trouble(kind, Some(trouble)) => {
                self.source_trouble.insert(kind, trouble);
            }
            SourceEvent::Trouble(kind, None) => {
                self.source_trouble.remove(&kind);
            }
        }
    }

    fn bring_up_to_date(&mut self) {
        let changed = self.planner.take_changes();
        self.programming.begun(self.planner.take_endpoints_changes());
        self.node.follow(&mut self.planner, &mut self.planes);
        self.planes.ports_changed(&changed);
        let is_time = std::mem::take(&mut self.check_now) || self.last_check.elapsed() >= CHECK_EVERY;
        // What was not written yet was not removed by anybody.
        if is_time && self.has_written {
            self.last_check = Instant::now();
            self.repairs += self.planes.check();
        }
        if self.planes.is_pending() {
            self.health.pending();
            self.metrics.queued();
        }
        let (started, full) = (Instant::now(), self.planes.is_everything_pending());
        if self.planes.apply(self.planner.desired()) {
            let succeeded = self.planes.error().is_none();
            self.metrics.synced(started.elapsed(), full, succeeded);
            (self.has_written, self.may_catch_up) = (true, true);
            if succeeded && self.last_sync.replace(Timestamp::now()).is_none() {
                info!(service_ports = self.planner.ports().len(), "Services are programmed");
            }
        }
        // Not only after a change: what is told of endpoints may be other though no rule is.
        if self.planes.error().is_none() {
            self.in_sync();
        }
    }

    /// What may only follow once the kernel leads new connections to where they belong.
    fn in_sync(&mut self) {
        self.programming.done(&self.metrics);
        if let Some(waited) = self.health.updated().filter(|waited| *waited >= MOMENT) {
            (self.late)(waited);
        }
        if let Some(retire) = self.retire.take() {
            retire();
            self.takeover.start();
        }
        let addresses = self.node.listening(self.planner.node_ips());
        let differ = !self.planner.take_health_check_changes().is_empty() || self.listening != addresses;
        if differ {
            self.listening.clone_from(&addresses);
            self.health_checks.publish(Served { checks: self.planner.health_checks().clone(), addresses });
        }
        self.udp.run(&mut self.planner, &self.metrics);
    }
}

fn kind_of(change: &Change) -> ObjectKind {
    match change {
        Change::Apply(object) => object.reference().kind,
        Change::Delete(reference) => reference.kind,
    }
}

#[cfg(test)]
mod tests;
