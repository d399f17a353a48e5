//! The data planes of this node, each with what it still has to do.
//!
//! One that fails does not hold up the others: it starts over from what the kernel has, with growing pauses.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired, EndpointConnections, MapFill},
    plan::PlanKey,
};

use crate::causes;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// All data planes, in the order they are applied.
pub(crate) struct Planes(Vec<Plane>);

struct Plane {
    plane: Box<dyn DataPlane>,
    pending: Pending,
    failure: Option<Failure>,
    /// How often it could not be brought up to date.
    failures: u64,
}

/// What changed since the last successful apply.
#[derive(Default)]
struct Pending {
    everything: bool,
    addresses: bool,
    ports: BTreeSet<PlanKey>,
}

struct Failure {
    message: String,
    delay: Duration,
    retry_at: Instant,
}

impl Planes {
    /// Data planes whose kernel state is unknown.
    pub(crate) fn new(planes: Vec<Box<dyn DataPlane>>) -> Self {
        Self(planes.into_iter().map(Plane::unknown).collect())
    }

    /// Puts another data plane in the place of the last one; it has to bring the kernel state of that one up to date.
    pub(crate) fn replace_last(&mut self, plane: Box<dyn DataPlane>) {
        if let Some(last) = self.0.last_mut() {
            *last = Plane::unknown(plane);
        }
    }

    /// Name of the first, which is the mode.
    pub(crate) fn name(&self) -> &'static str {
        self.0.first().map_or("none", |plane| plane.plane.name())
    }

    /// Notes Service ports to bring up to date.
    pub(crate) fn ports_changed(&mut self, keys: &[PlanKey]) {
        for plane in &mut self.0 {
            if !plane.pending.everything {
                plane.pending.ports.extend(keys.iter().cloned());
            }
        }
    }

    /// Notes that the NodePort addresses are others now.
    pub(crate) fn node_port_addresses_changed(&mut self) {
        for plane in &mut self.0 {
            plane.pending.addresses = true;
        }
    }

    /// Asks each data plane whether its kernel objects are still there; returns how many have to be put back.
    pub(crate) fn check(&mut self) -> u64 {
        let mut lost = 0;
        for plane in self.0.iter_mut().filter(|plane| plane.failure.is_none()) {
            match plane.plane.is_intact() {
                Ok(true) => {}
                Ok(false) => {
                    warn!(plane = plane.plane.name(), "kernel objects were removed by someone else; putting them back");
                    plane.pending.everything = true;
                    lost += 1;
                }
                Err(error) => warn!(plane = plane.plane.name(), %error, "cannot check the kernel objects"),
            }
        }
        lost
    }

    /// Brings every data plane that has something to do up to date; returns whether anything was written.
    pub(crate) fn apply(&mut self, desired: &Desired) -> bool {
        let mut wrote = false;
        for plane in &mut self.0 {
            wrote |= plane.apply(desired);
        }
        wrote
    }

    /// Whether a data plane is to be brought up to date from what the kernel has, and not only by what changed.
    pub(crate) fn is_everything_pending(&self) -> bool {
        self.0.iter().any(|plane| plane.pending.everything)
    }

    /// How often each data plane could not be brought up to date.
    pub(crate) fn failures(&self) -> Vec<(&'static str, u64)> {
        self.0.iter().map(|plane| (plane.plane.name(), plane.failures)).collect()
    }

    /// Whether anything is to be applied, now or after a pause.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.iter().any(|plane| plane.pending.is_anything())
    }

    /// Does some of what may wait; returns whether there may be more of it.
    pub(crate) fn catch_up(&mut self, desired: &Desired) -> bool {
        let mut more = false;
        for plane in self.0.iter_mut().filter(|plane| plane.failure.is_none() && !plane.pending.is_anything()) {
            match plane.plane.catch_up(desired) {
                Ok(did) => more |= did,
                Err(error) => plane.failed(causes::explained(&error)),
            }
        }
        more
    }

    /// How full the maps of all data planes are.
    pub(crate) fn fill(&self) -> Vec<MapFill> {
        let fill = |plane: &Plane| {
            plane.plane.fill().unwrap_or_else(|error| {
                warn!(plane = plane.plane.name(), %error, "cannot tell how full the maps are");
                Vec::new()
            })
        };
        self.0.iter().flat_map(fill).collect()
    }

    /// When the earliest failed data plane wants another try.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        let failures = self.0.iter().filter_map(|plane| plane.failure.as_ref());
        failures.map(|failure| failure.retry_at.saturating_duration_since(Instant::now())).min()
    }

    /// What keeps a data plane from being in sync.
    pub(crate) fn error(&self) -> Option<String> {
        let failures = self.0.iter().filter_map(|plane| plane.failure.as_ref());
        let messages: Vec<_> = failures.map(|failure| failure.message.as_str()).collect();
        (!messages.is_empty()).then(|| messages.join("; "))
    }

    /// Connections per endpoint of one Service port, added up over the data planes.
    pub(crate) fn connections(&self, key: &PlanKey) -> Vec<EndpointConnections> {
        let mut total: Vec<EndpointConnections> = Vec::new();
        for plane in &self.0 {
            let counted = plane.plane.connections(key).unwrap_or_else(|error| {
                warn!(%key, %error, "cannot read the connection counters");
                Vec::new()
            });
            for one in counted {
                match total.iter_mut().find(|known| known.endpoint == one.endpoint) {
                    Some(known) => known.connections += one.connections,
                    None => total.push(one),
                }
            }
        }
        total
    }
}

impl Plane {
    fn unknown(plane: Box<dyn DataPlane>) -> Self {
        Self { plane, pending: Pending { everything: true, ..Pending::default() }, failure: None, failures: 0 }
    }

    fn apply(&mut self, desired: &Desired) -> bool {
        if self.failure.as_ref().is_some_and(|failure| Instant::now() < failure.retry_at) {
            return false;
        }
        let mut wrote = false;
        for changed in self.pending.take() {
            wrote = true;
            if let Err(error) = self.plane.apply(desired, &changed) {
                self.failed(causes::explained(&error));
                return true;
            }
        }
        if wrote && self.failure.take().is_some() {
            info!(plane = self.plane.name(), "in sync again");
        }
        wrote
    }

    fn failed(&mut self, message: String) {
        let delay = self.failure.as_ref().map_or(FIRST_RETRY, |failure| (failure.delay * 2).min(LAST_RETRY));
        error!(plane = self.plane.name(), error = message, retry_in = ?delay, "cannot bring the kernel up to date");
        self.failures += 1;
        self.pending = Pending { everything: true, ..Pending::default() };
        self.failure = Some(Failure { message, delay, retry_at: Instant::now() + delay });
    }
}

impl Pending {
    fn is_anything(&self) -> bool {
        self.everything || self.addresses || !self.ports.is_empty()
    }

    /// What to apply, and nothing pending afterwards.
    fn take(&mut self) -> Vec<Changed> {
        let Self { everything, addresses, ports } = std::mem::take(self);
        if everything {
            return vec![Changed::Everything];
        }
        let mut changes = Vec::new();
        if addresses {
            changes.push(Changed::NodePortAddresses);
        }
        if !ports.is_empty() {
            changes.push(Changed::Ports(ports.into_iter().collect()));
        }
        changes
    }
}

#[cfg(test)]
mod tests;
