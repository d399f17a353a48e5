//! Who serves UDP, for those who clean up after endpoints that went: kube-proxy.md section 10.
//!
//! A UDP client has no connection to lose, so it would go on with an endpoint that is gone for as long as conntrack, or its
//! own connected socket, remembers. Kept for UDP ports only: nothing is ever cleaned up for others (10.7).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{Frontend, PlanKey, desired::first_key};
use crate::model::ServiceName;

/// Where the flows of one UDP Service port may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpFlows<'a> {
    /// Which one.
    pub key: &'a PlanKey,
    /// Where clients send to.
    pub frontends: &'a [Frontend],
    /// Endpoints with the condition `serving`, whatever else holds for them: a flow keeps its endpoint as long as that
    /// serves (10.3). Sorted.
    pub serving: &'a [SocketAddr],
}

/// Endpoints of every UDP Service port.
#[derive(Debug, Default)]
pub(super) struct UdpEndpoints {
    ports: BTreeMap<PlanKey, Endpoints>,
    /// Ports of Services whose EndpointSlices changed, or were there before the port, since somebody looked.
    slices_changed: BTreeSet<PlanKey>,
    /// Endpoints that others took over from, since somebody looked.
    gone: BTreeSet<SocketAddr>,
}

/// Endpoints of one UDP Service port. Both lists are sorted.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pub(super) serving: Box<[SocketAddr]>,
    /// Those that serve, and those that are used although they do not (publishNotReadyAddresses, 10.8). Kept from before
    /// while there are none.
    pub(super) usable: Box<[SocketAddr]>,
}

impl Endpoints {
    /// Returns which are no longer usable while others are. Without others none is returned: a client that can go nowhere
    /// else may as well stay (10.6), until there is somebody again.
    fn replace(&mut self, new: Self) -> Vec<SocketAddr> {
        self.serving = new.serving;
        if new.usable.is_empty() {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.usable, new.usable);
        before.into_iter().filter(|endpoint| self.usable.binary_search(endpoint).is_err()).collect()
    }
}

impl UdpEndpoints {
    /// Replaces the endpoints of all UDP ports of a Service; `slices_changed`: because its EndpointSlices differ.
    pub(super) fn replace(&mut self, service: &ServiceName, ports: Vec<(PlanKey, Endpoints)>, slices_changed: bool) {
        let now = self.ports.range(first_key(service)..).map(|(key, _)| key);
        let now: Vec<_> = now.take_while(|key| key.port.service == *service).cloned().collect();
        if slices_changed {
            self.slices_changed.extend(now.iter().cloned());
            self.slices_changed.extend(ports.iter().map(|(key, _)| key.clone()));
        }
        for key in now.iter().filter(|key| ports.iter().all(|(kept, _)| kept != *key)) {
            self.ports.remove(key);
        }
        for (key, endpoints) in ports {
            // Slices may come before their Service, when there was nothing to look for yet. kube-proxy collects changes for a
            // second, and so sees both.
            if !self.ports.contains_key(&key) && !endpoints.serving.is_empty() {
                self.slices_changed.insert(key.clone());
            }
            self.gone.extend(self.ports.entry(key).or_default().replace(endpoints));
        }
    }

    /// Serving endpoints by port.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PlanKey, &[SocketAddr])> {
        self.ports.iter().map(|(key, endpoints)| (key, &*endpoints.serving))
    }

    pub(super) fn take_slices_changed(&mut self) -> BTreeSet<PlanKey> {
        std::mem::take(&mut self.slices_changed)
    }

    /// Endpoints that went, without those that some UDP port still has: who uses them through that one may go on. Walks over
    /// all UDP ports if there are any.
    pub(super) fn take_gone(&mut self) -> BTreeSet<SocketAddr> {
        let mut gone = std::mem::take(&mut self.gone);
        if !gone.is_empty() {
            for usable in self.ports.values().flat_map(|endpoints| &endpoints.usable) {
                gone.remove(usable);
            }
        }
        gone
    }
}
