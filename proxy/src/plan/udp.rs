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
    /// Ports of Services whose EndpointSlices changed, since somebody looked.
    slices_changed: BTreeSet<PlanKey>,
    /// Endpoints that others took over from, since somebody looked.
    gone: BTreeSet<SocketAddr>,
}

#[derive(Debug, Default)]
struct Endpoints {
    /// Who serves, or while nobody does, who did last. Sorted.
    last: Box<[SocketAddr]>,
    nobody: bool,
}

impl Endpoints {
    fn serving(&self) -> &[SocketAddr] {
        if self.nobody { &[] } else { &self.last }
    }

    /// Returns who no longer serves while others do. Without others nobody is returned: a flow that can go nowhere else may
    /// as well stay (10.6), until somebody serves again.
    fn set(&mut self, serving: Box<[SocketAddr]>) -> Vec<SocketAddr> {
        self.nobody = serving.is_empty();
        if self.nobody {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.last, serving);
        before.into_iter().filter(|endpoint| self.last.binary_search(endpoint).is_err()).collect()
    }
}

impl UdpEndpoints {
    /// Replaces the serving endpoints of all UDP ports of a Service; `slices_changed`: because its EndpointSlices differ.
    pub(super) fn replace(
        &mut self,
        service: &ServiceName,
        ports: Vec<(PlanKey, Box<[SocketAddr]>)>,
        slices_changed: bool,
    ) {
        let now = self.ports.range(first_key(service)..).map(|(key, _)| key);
        let now: Vec<_> = now.take_while(|key| key.port.service == *service).cloned().collect();
        if slices_changed {
            self.slices_changed.extend(now.iter().cloned());
            self.slices_changed.extend(ports.iter().map(|(key, _)| key.clone()));
        }
        for key in now.iter().filter(|key| ports.iter().all(|(kept, _)| kept != *key)) {
            self.ports.remove(key);
        }
        for (key, serving) in ports {
            self.gone.extend(self.ports.entry(key).or_default().set(serving));
        }
    }

    /// Serving endpoints by port.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PlanKey, &[SocketAddr])> {
        self.ports.iter().map(|(key, endpoints)| (key, endpoints.serving()))
    }

    pub(super) fn take_slices_changed(&mut self) -> BTreeSet<PlanKey> {
        std::mem::take(&mut self.slices_changed)
    }

    /// Endpoints that went, without those that still serve some UDP port: who uses them through that one may go on. Walks
    /// over all UDP ports if there are any.
    pub(super) fn take_gone(&mut self) -> BTreeSet<SocketAddr> {
        let mut gone = std::mem::take(&mut self.gone);
        if !gone.is_empty() {
            for serving in self.ports.values().flat_map(Endpoints::serving) {
                gone.remove(serving);
            }
        }
        gone
    }
}
