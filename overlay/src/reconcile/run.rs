//! When passes happen: at start, on new leases, on kernel events, at retries, and regularly.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_netlink::{Event, Netlink};

use super::{
    Cause, Reconciler, Settings,
    notices::{Notice, Notices},
};
use crate::{
    family::Family,
    interface::Underlay,
    join::{Joined, Joiner},
    lease::{Lease, LeaseAttributes, LeaseError, LeaseManager, LeaseSnapshot},
    network_report,
    status::OverlayStatus,
};

/// Shortest time between two passes that events caused. Events that come meanwhile are taken together, and a program that
/// fights us over an object cannot keep the node busy.
const EVENT_SPACING: Duration = Duration::from_millis(20);

/// How often there is a glance at what may report no changes: parameters like `accept_ra`, tables of the old iptables interface,
/// a replaced directory of `subnet.env`. All else is told by the kernel.
const GLANCE: Duration = Duration::from_secs(5);

/// How soon a lease is looked at again that was published but is not in the snapshots yet.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
const ANNOUNCE_LONGEST: Duration = Duration::from_secs(30);

/// How soon joining is tried again.
const JOIN_FIRST: Duration = Duration::from_millis(250);
const JOIN_LONGEST: Duration = Duration::from_secs(10);

/// Everything the worker thread needs.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) netlink: Netlink,
    pub(crate) underlay: BTreeMap<Family, Underlay>,
    pub(crate) events: mpsc::Receiver<Vec<Event>>,
    pub(crate) leases: Arc<dyn LeaseManager>,
    pub(crate) status: watch::Sender<OverlayStatus>,
    pub(crate) check_interval: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// Runs the overlay until shutdown, and leaves everything in place then. Passes are never cut short.
pub(crate) async fn run(start: Start) {
    let shutdown = start.shutdown.clone();
    let reports =
        network_report::follow(start.status.subscribe(), Arc::clone(&start.leases), start.settings.node_name.clone());
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = serve(start) => {}
        () = reports => {}
    }
}

async fn serve(start: Start) {
    let Start { settings, netlink, underlay, events, leases, status, check_interval, .. } = start;
    let joiner = Joiner { settings: &settings, netlink: &netlink, underlay: &underlay, leases: &leases };
    let joined = join(&joiner, &status).await;
    let reconciler = Reconciler::new(settings, netlink, underlay, &joined);
    let (snapshots, announcement) = (joined.snapshots, Announcement::default());
    let notices = Notices::open(reconciler.subnet_file());
    let server = Server { reconciler, leases, snapshots, events, status, check_interval, announcement, notices };
    server.run().await;
}

/// Gets a lease, however long that takes.
async fn join(joiner: &Joiner<'_>, status: &watch::Sender<OverlayStatus>) -> Joined {
    let mut delay = JOIN_FIRST;
    loop {
        match joiner.join().await {
            Ok(joined) => return joined,
            Err(error) => {
                let error = error.to_string();
                warn!(error, "no lease yet");
                status.send_modify(|status| {
                    status.backend = joiner.settings.net_conf.backend.kind().to_owned();
                    status.subnet_manager = joiner.leases.describe();
                    status.error = Some(error);
                });
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(JOIN_LONGEST);
    }
}

struct Server {
    reconciler: Reconciler,
    leases: Arc<dyn LeaseManager>,
    snapshots: watch::Receiver<Option<Arc<LeaseSnapshot>>>,
    events: mpsc::Receiver<Vec<Event>>,
    status: watch::Sender<OverlayStatus>,
    check_interval: Duration,
    announcement: Announcement,
    notices: Notices,
}

/// The publishing of the own lease, beside the passes: it may wait for a server.
#[derive(Default)]
struct Announcement {
    running: Option<JoinHandle<Result<Published, LeaseError>>>,
    finished: Option<Instant>,
    not_before: Option<Instant>,
    delay: Duration,
    error: Option<String>,
}

/// The lease, and what it was asked for with.
type Published = (Lease, LeaseAttributes);

/// Why the server woke up.
enum Wake {
    Leases,
    Unwatched,
    Events(Vec<Event>),
    Announced(Result<Published, LeaseError>),
    Noticed(Notice),
    Glance,
    Timer,
}

impl Server {
    async fn run(mut self) {
        self.pass(Cause::NewDesired);
        let mut next_check = Instant::now() + self.check_interval;
        let mut last_event_pass = Instant::now();
        let mut glances = interval(GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.reconciler.packet_filter().watched = self.notices.has_rules();
            match self.wait(next_check, &mut glances).await {
                Wake::Leases => {
                    self.take_snapshot();
                    self.pass(Cause::NewDesired);
                }
                Wake::Unwatched => self.watch_again().await,
                Wake::Events(events) => {
                    if self.reconciler.deserve_a_glance(&events) {
                        self.glance();
                    }
                    if self.reconciler.notice(&events) {
                        sleep_until((last_event_pass + EVENT_SPACING).into()).await;
                        // The state is unknown now: what these say is about to be observed.
                        while self.events.try_recv().is_ok() {}
                        let moved = self.reconciler.refresh_underlay();
                        self.pass(if moved { Cause::NewDesired } else { Cause::Event });
                        last_event_pass = Instant::now();
                    }
                }
                Wake::Announced(result) => self.announced(result),
                Wake::Noticed(notice) => {
                    if notice == Notice::Rules {
                        self.reconciler.packet_filter().note_disturbance();
                    }
                    self.glance();
                }
                Wake::Glance => {
                    self.notices.watch_file();
                    self.glance();
                }
                Wake::Timer if Instant::now() >= next_check => {
                    next_check = Instant::now() + self.check_interval;
                    self.reconciler.forget_observed();
                    self.reconciler.refresh_underlay();
                    self.pass(Cause::Check);
                }
                Wake::Timer => self.pass(Cause::Event),
            }
        }
    }

    async fn wait(&mut self, next_check: Instant, glances: &mut Interval) -> Wake {
        let timers = [self.reconciler.next_time(), self.announcement.due()];
        let next = timers.into_iter().flatten().fold(next_check, Instant::min);
        let announced = async {
            match &mut self.announcement.running {
                Some(running) => running.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.snapshots.changed() => match changed {
                Ok(()) => Wake::Leases,
                Err(_) => Wake::Unwatched,
            },
            Some(events) = self.events.recv() => Wake::Events(events),
            announced = announced => Wake::Announced(announced.unwrap_or_else(|error| {
                Err(LeaseError::Backend { doing: "publish the lease".into(), source: error.into() })
            })),
            () = sleep_until(next.into()) => Wake::Timer,
            notice = self.notices.next() => Wake::Noticed(notice),
            _ = glances.tick() => Wake::Glance,
        }
    }

    fn glance(&mut self) {
        if self.reconciler.glance(Instant::now()) {
            self.report();
        }
    }

    fn pass(&mut self, cause: Cause) {
        let was_ready = self.reconciler.is_ready();
        self.reconciler.pass(cause, Instant::now());
        self.announce_if_needed();
        self.report();
        if !was_ready && self.reconciler.is_ready() {
            info!(subnets = %self.reconciler.lease().subnets, "overlay is up");
        }
    }

    fn report(&self) {
        let status = self.reconciler.status(self.leases.describe(), self.announcement.error.as_deref());
        self.status.send_if_modified(|current| {
            let modified = *current != status;
            *current = status;
            modified
        });
    }

    fn take_snapshot(&mut self) {
        let snapshot = self.snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot
            && self.reconciler.set_snapshot(snapshot)
        {
            self.announcement.hurry();
        }
    }

    /// A manager that stopped watching by itself has a bug or lost its thread; peers stay as they are meanwhile.
    async fn watch_again(&mut self) {
        tokio::time::sleep(ANNOUNCE_AGAIN).await;
        match self.leases.watch().await {
            Ok(snapshots) => {
                self.snapshots = snapshots;
                self.snapshots.mark_changed();
            }
            Err(error) => warn!(%error, "leases are not watched"),
        }
    }

    /// Publishes the own lease again if others cannot see it, or see something else.
    fn announce_if_needed(&mut self) {
        if self.reconciler.is_announced() {
            self.announcement.settle();
            return;
        }
        let now = Instant::now();
        if self.announcement.running.is_some() || self.announcement.not_before.is_some_and(|time| now < time) {
            return;
        }
        let request = self.reconciler.announcement();
        info!(subnets = %self.reconciler.lease().subnets, "publishing the lease again");
        let leases = Arc::clone(&self.leases);
        self.announcement.running = Some(tokio::spawn(async move {
            let lease = leases.acquire(&request).await?;
            Ok((lease, request.attributes))
        }));
    }

    fn announced(&mut self, result: Result<Published, LeaseError>) {
        self.announcement.finish(Instant::now());
        match result {
            Ok((lease, requested)) => {
                self.announcement.error = None;
                // The watch may have told before the manager answered.
                if self.reconciler.is_announced() {
                    self.announcement.settle();
                }
                if lease.subnets != self.reconciler.lease().subnets {
                    warn!(
                        old = %self.reconciler.lease().subnets,
                        new = %lease.subnets,
                        "the lease was lost and another taken; pods keep their old addresses"
                    );
                }
                self.reconciler.set_lease(lease, requested);
                self.pass(Cause::NewDesired);
            }
            Err(error) => {
                let error = error.to_string();
                warn!(error, "the lease could not be published");
                self.announcement.error = Some(error);
                self.report();
            }
        }
    }
}

impl Announcement {
    /// When to try again, if something is left to do.
    fn due(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.running.is_none())
    }

    /// What happens to the own lease is answered at once, though not faster than somebody else could keep changing it.
    fn hurry(&mut self) {
        self.delay = Duration::ZERO;
        self.not_before = self.finished.map(|time| time + ANNOUNCE_AGAIN);
    }

    fn settle(&mut self) {
        self.not_before = None;
        self.delay = Duration::ZERO;
        self.error = None;
    }

    fn finish(&mut self, now: Instant) {
        self.running = None;
        self.finished = Some(now);
        self.delay = (self.delay * 2).clamp(ANNOUNCE_AGAIN, ANNOUNCE_LONGEST);
        self.not_before = Some(now + self.delay);
    }
}
