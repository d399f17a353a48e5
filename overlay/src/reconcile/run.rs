//! When passes happen: at start, on new leases, on kernel events, at retries, and regularly.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::{Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weft_netlink::{Event, Netlink};

use super::{
    Cause, Reconciler, Settings,
    announcement::{self, Announcement, Published},
    notices::{Notice, Notices},
};
use crate::{
    family::Family,
    interface::Underlay,
    join::Joiner,
    lease::{LeaseError, LeaseManager, LeaseSnapshot},
    network_report,
    status::OverlayStatus,
};

/// Shortest time between two passes that events caused. Events that come meanwhile are taken together, and a program that
/// fights us over an object cannot keep the node busy.
const EVENT_SPACING: Duration = Duration::from_millis(20);

/// How often there is a glance at what may report no changes: parameters like `accept_ra`, tables of the old iptables interface,
/// a replaced directory of `subnet.env`. All else is told by the kernel.
const GLANCE: Duration = Duration::from_secs(5);

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
    let joined = joiner.join(&status).await;
    let reconciler = Reconciler::new(settings, netlink, underlay, &joined);
    let (snapshots, announcement) = (joined.snapshots, Announcement::default());
    let notices = Notices::open(reconciler.subnet_file());
    let next_check = Instant::now() + check_interval;
    let mut server = Server {
        reconciler,
        leases,
        snapshots,
        events,
        status,
        check_interval,
        next_check,
        looked: None,
        look: None,
        announcement,
        notices,
    };
    server.run().await;
}

struct Server {
    reconciler: Reconciler,
    leases: Arc<dyn LeaseManager>,
    snapshots: watch::Receiver<Option<Arc<LeaseSnapshot>>>,
    events: mpsc::Receiver<Vec<Event>>,
    status: watch::Sender<OverlayStatus>,
    check_interval: Duration,
    next_check: Instant,
    /// When events last caused a pass.
    looked: Option<Instant>,
    /// When those that came since cause the next one.
    look: Option<Instant>,
    announcement: Announcement,
    notices: Notices,
}

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
    async fn run(&mut self) {
        self.reconciler.prepare(Instant::now());
        // That made devices, and notices tell how these were in between, which is not how they are known to be. By now they have
        // come: the second look is better had before the node says that it is ready than when the first lease changes.
        self.take_in_events();
        self.pass(Cause::NewDesired);
        let mut glances = interval_at((Instant::now() + GLANCE).into(), GLANCE);
        glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.reconciler.set_rules_watched(self.notices.has_rules());
            match self.wait(&mut glances).await {
                Wake::Leases => {
                    self.take_snapshot();
                    self.pass(Cause::NewDesired);
                }
                Wake::Unwatched => self.watch_again().await,
                Wake::Events(events) => self.take_events(&events),
                Wake::Announced(result) => self.announced(result),
                Wake::Noticed(notice) => {
                    if notice == Notice::Rules {
                        self.reconciler.notice_rules();
                    }
                    self.glance();
                }
                Wake::Glance => {
                    self.notices.watch_file();
                    self.glance();
                }
                Wake::Timer => self.take_time(Instant::now()),
            }
        }
    }

    async fn wait(&mut self, glances: &mut Interval) -> Wake {
        let timers = [self.reconciler.next_time(), self.announcement.due(), self.look];
        let next = timers.into_iter().flatten().fold(self.next_check, Instant::min);
        tokio::select! {
            changed = self.snapshots.changed() => match changed {
                Ok(()) => Wake::Leases,
                Err(_) => Wake::Unwatched,
            },
            Some(events) = self.events.recv() => Wake::Events(events),
            announced = self.announcement.finished() => Wake::Announced(announced),
            () = sleep_until(next.into()) => Wake::Timer,
            notice = self.notices.next() => Wake::Noticed(notice),
            _ = glances.tick() => Wake::Glance,
        }
    }

    /// Changes of leases do not wait for the look that events may cause.
    fn take_events(&mut self, events: &[Event]) {
        if self.reconciler.deserve_a_glance(events) {
            self.glance();
        }
        if self.reconciler.notice(events) && self.look.is_none() {
            let now = Instant::now();
            self.look = Some(self.looked.map_or(now, |looked| (looked + EVENT_SPACING).max(now)));
        }
    }

    fn take_in_events(&mut self) {
        while let Ok(events) = self.events.try_recv() {
            self.reconciler.notice(&events);
        }
    }

    fn take_time(&mut self, now: Instant) {
        if now >= self.next_check {
            self.next_check = now + self.check_interval;
            self.reconciler.forget_observed();
            self.reconciler.refresh_underlay();
            self.pass(Cause::Check);
        } else if self.look.is_some_and(|look| now >= look) {
            // What has come meanwhile is about to be observed.
            self.take_in_events();
            let moved = self.reconciler.refresh_underlay();
            self.pass(if moved { Cause::NewDesired } else { Cause::Event });
            (self.look, self.looked) = (None, Some(Instant::now()));
        } else {
            self.pass(Cause::Event);
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
        tokio::time::sleep(announcement::AGAIN).await;
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
        if self.announcement.start(Instant::now(), &self.leases, self.reconciler.announcement()) {
            info!(subnets = %self.reconciler.lease().subnets, "publishing the lease again");
        }
    }

    fn announced(&mut self, result: Result<Published, LeaseError>) {
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
