//! One node's overlay: desired state from leases, observed state from the kernel, and the passes that bring them together.
//!
//! Synchronous; `run` decides when a pass is due.

mod announcement;
mod desired;
mod kernel;
mod notices;
mod reach;
mod report;
mod run;
mod tasks;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use tracing::{debug, info};
use weft_netlink::{Event, Netlink};

pub(crate) use self::run::{Start, run};
use crate::{
    bridge_answers,
    events::Known,
    family::Family,
    forwarding::Sysctls,
    interface::{self, InterfaceChoice, Underlay},
    join::Joined,
    lease::{Lease, LeaseAttributes, LeaseSnapshot},
    netconf::NetConf,
    observe::Devices,
    offload::ChecksumOffload,
    packet_filter::{ConntrackBypass, PacketFilter},
    plan::{Desired, ObjectKind, Observed, PeerProblem, Reach, Subject},
    retry::Retries,
    subnet_env::SubnetEnv,
};

/// What a pass is for: only deviations that somebody else caused are repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Leases or the underlay changed, or it is the first pass.
    NewDesired,
    /// The kernel reported a change of ours, or a retry is due.
    Event,
    /// The regular look at everything, also at what reports no changes.
    Check,
}

/// What can fail on its own and is tried again on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Observe,
    Kernel(Family, Subject),
    Forwarding,
    PacketFilter,
    Offload,
    BridgeAnswers,
    SubnetFile,
}

/// Fixed for the life of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) node_name: String,
    pub(crate) net_conf: NetConf,
    pub(crate) interface: InterfaceChoice,
    pub(crate) ip_masq: bool,
    pub(crate) forward_rules: bool,
    pub(crate) conntrack_bypass: ConntrackBypass,
    pub(crate) checksum_offload: ChecksumOffload,
    pub(crate) subnet_file: PathBuf,
}

pub(crate) struct Reconciler {
    settings: Settings,
    netlink: Netlink,
    underlay: BTreeMap<Family, Underlay>,
    /// Empty for backends that do not ask.
    reach: Reach,
    /// The pod networks of the configuration this node ran with before.
    former: BTreeMap<Family, IpNetwork>,
    lease: Lease,
    /// What the lease was asked for with; its manager may publish something else (an administrator's address).
    requested: LeaseAttributes,
    snapshot: Arc<LeaseSnapshot>,
    desired: Desired,
    problems: Vec<PeerProblem>,
    /// `None`: unknown, because something failed or somebody interfered.
    observed: Option<Observed>,
    devices: Devices,
    packet_filter: PacketFilter,
    sysctls: Sysctls,
    retries: Retries<Task>,
    repairs: BTreeMap<ObjectKind, u64>,
    /// When the first notice came that was not followed yet: from then on the time of a repair counts.
    noticed: Option<Instant>,
    /// Pods may have come or gone since it was last seen to that those on flannel's bridge find them.
    pods_changed: bool,
    /// The underlay that was chosen is gone: any new address or route may bring another.
    adrift: bool,
    /// Everything this node needs was in place once.
    complete: bool,
}

impl Reconciler {
    pub(crate) fn new(
        settings: Settings,
        netlink: Netlink,
        underlay: BTreeMap<Family, Underlay>,
        joined: &Joined,
    ) -> Self {
        let former = former_networks(&settings.subnet_file);
        let mut new = Self {
            settings,
            netlink,
            underlay,
            reach: Reach::new(),
            former,
            lease: joined.lease.clone(),
            requested: joined.requested.clone(),
            snapshot: Arc::clone(&joined.snapshot),
            desired: Desired::default(),
            problems: Vec::new(),
            observed: None,
            devices: Devices::new(),
            packet_filter: PacketFilter::default(),
            sysctls: Sysctls::new(),
            retries: Retries::default(),
            repairs: BTreeMap::new(),
            noticed: None,
            pods_changed: true,
            adrift: false,
            complete: false,
        };
        new.derive();
        new
    }

    /// Looks at the underlay again: its address, MTU or index may have changed. True if so.
    pub(crate) fn refresh_underlay(&mut self) -> bool {
        let families: Vec<Family> = self.underlay.keys().copied().collect();
        let found = interface::inventory(&self.netlink, &self.settings.interface).map_err(|error| error.to_string());
        let chosen = found.and_then(|inventory| {
            interface::refresh(&self.settings.interface, &self.underlay, &inventory).map_err(|error| error.to_string())
        });
        let rerouted = self.look_up_again();
        if rerouted {
            self.derive();
        }
        self.adrift = chosen.is_err();
        match chosen {
            Ok(chosen) if chosen != self.underlay => {
                info!(?families, "the underlay changed");
                self.underlay = chosen;
                self.derive();
                true
            }
            Ok(_) => rerouted,
            Err(error) => {
                // Usual while an interface is being reconfigured. The tunnel stays as it was.
                debug!(error, "the underlay cannot be determined");
                rerouted
            }
        }
    }

    /// Whether one of `events` says that our objects are not as they were left. Forgets what was known then.
    pub(crate) fn notice(&mut self, events: &[Event]) -> bool {
        // What an interface blocked, by its name, its port or its being down, may succeed now.
        let unblocks = events.iter().any(|event| match event {
            Event::LinkRemoved(_) => true,
            Event::LinkChanged(link) => self.underlay.values().any(|underlay| underlay.link == link.index),
            _ => false,
        });
        if unblocks {
            self.retries.retain(|task| !matches!(task, Task::Kernel(..)));
        }
        let contradicted = match &self.observed {
            None => return true,
            Some(observed) => {
                let known = Known {
                    desired: &self.desired,
                    observed,
                    devices: &self.devices,
                    underlay: &self.underlay,
                    reach: &self.reach,
                    adrift: self.adrift,
                };
                events.iter().any(|event| known.contradicts(event))
            }
        };
        if contradicted {
            self.observed = None;
            self.noticed.get_or_insert_with(Instant::now);
        }
        contradicted
    }

    /// Whether one of `events` tells of what is not observed: a parameter, also of a new device; a feature of a device of ours;
    /// a pod.
    pub(crate) fn deserve_a_glance(&mut self, events: &[Event]) -> bool {
        let subnet = self.desired.families.get(&Family::V6).map(|state| state.subnet);
        let is_about_pods = |event: &Event| match event {
            Event::ParameterChanged => true,
            Event::RouteChanged(route) | Event::RouteRemoved(route) => {
                subnet.is_some_and(|subnet| bridge_answers::is_of_pod(route, subnet))
            }
            _ => false,
        };
        let is_about_device = |event: &Event| matches!(event, Event::LinkChanged(link) if self.devices.values().any(|device| *device == link.index));
        let pods = events.iter().any(is_about_pods);
        self.pods_changed |= pods;
        pods || events.iter().any(is_about_device)
    }

    /// Forgets what is known of the kernel, so that the next pass looks at all of it.
    pub(crate) fn forget_observed(&mut self) {
        self.observed = None;
    }

    /// When something that failed is to be tried again, or packet rules are to be looked at.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.retries.next().into_iter().chain(self.packet_filter.next_look()).min()
    }

    /// Somebody changed what packet rules are in, or this node did.
    pub(crate) fn notice_rules(&mut self) {
        self.packet_filter.note_disturbance();
        self.noticed.get_or_insert_with(Instant::now);
    }

    /// Whether changes of packet rules are told by notices.
    pub(crate) fn set_rules_watched(&mut self, watched: bool) {
        self.packet_filter.watched = watched;
    }

    /// Where `subnet.env` is.
    pub(crate) fn subnet_file(&self) -> &Path {
        &self.settings.subnet_file
    }

    /// Whether this node's own part is complete.
    pub(crate) fn is_ready(&self) -> bool {
        let is_own =
            |task: &Task| !matches!(task, Task::Kernel(_, Subject::Peer(_) | Subject::Stale) | Task::BridgeAnswers);
        let own_failures = self.retries.errors().any(|(task, _)| is_own(task));
        self.complete && !own_failures
    }

    /// One pass: everything that is not as desired, and whose time has come, is put right.
    pub(crate) fn pass(&mut self, cause: Cause, now: Instant) {
        let kernel = self.kernel_pass(cause, now);
        self.rest(cause, now, kernel);
        self.forget_notice();
    }

    /// The first pass, which does not yet say in `subnet.env` that the network is up.
    pub(crate) fn prepare(&mut self, now: Instant) {
        self.kernel_pass(Cause::NewDesired, now);
        self.rest(Cause::NewDesired, now, false);
    }

    /// A glance at what rtnetlink does not show: parameters, packet rules, `subnet.env`. Costs some microseconds while all is
    /// well. True if something is to be reported.
    pub(crate) fn glance(&mut self, now: Instant) -> bool {
        let state = |node: &Self| (node.repairs.values().sum::<u64>(), node.complete, node.retries.next());
        let before = state(self);
        let kernel = self.kernel_is_well();
        self.rest(Cause::Event, now, kernel);
        self.forget_notice();
        state(self) != before
    }

    fn forget_notice(&mut self) {
        if self.observed.is_some() && self.packet_filter.next_look().is_none() {
            self.noticed = None;
        }
    }

    /// How long ago the change was noticed that has been put right now; `None` if nothing told of it.
    fn since_notice(&self) -> Option<Duration> {
        self.noticed.map(|noticed| noticed.elapsed())
    }
}

/// What `subnet.env` says before it is written anew. An unreadable one tells nothing.
fn former_networks(subnet_file: &Path) -> BTreeMap<Family, IpNetwork> {
    let Ok(Some(env)) = SubnetEnv::read(subnet_file) else { return BTreeMap::new() };
    let families = [(Family::V4, env.ipv4), (Family::V6, env.ipv6)];
    families.into_iter().filter_map(|(family, of)| Some((family, of?.network))).collect()
}
