//! Which endpoints a Service port has and which of them may be used: kube-proxy.md section 4.

use std::{cmp::Reverse, net::IpAddr};

use super::{Endpoint, topology::Preference};
use crate::model::{EndpointSlice, IpFamily, NodeTopology, ServicePort, SliceEndpoint};

/// An endpoint of one Service port, with what decides about its use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) entry: &'a SliceEndpoint,
    pub(super) port: u16,
}

impl<'a> Candidate<'a> {
    /// Ready is used as given, also while terminating: that is how publishNotReadyAddresses works (4.1).
    pub(super) fn is_ready(self) -> bool {
        self.entry.ready
    }

    /// The second choice, where nothing is ready (4.3).
    fn is_last_resort(self) -> bool {
        self.entry.serving && self.entry.terminating
    }

    fn key(self) -> (IpAddr, u16) {
        (self.entry.address, self.port)
    }

    /// Of several entries with one address and port the running pod's wins over one that goes away (4.11).
    /// kube-proxy leaves the rest to chance; here all fields take part, so that the order of events does not.
    fn precedence(self) -> impl Ord + use<'a> {
        let entry = self.entry;
        let zones = entry.zone_hints.as_deref();
        Reverse((!entry.terminating, entry.ready, entry.serving, entry.local, entry.node_hint, zones))
    }
}

/// All endpoints of a port: the slices' entries united, matched by port name and protocol (1.13, 4.10), each
/// address and port once, sorted by them.
pub(super) fn candidates<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, family: IpFamily) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in matching.map(|p| p.port) {
            candidates.extend(slice.endpoints.iter().map(|entry| Candidate { entry, port: number }));
        }
    }
    candidates.sort_unstable_by_key(|candidate| (candidate.key(), candidate.precedence()));
    candidates.dedup_by_key(|candidate| candidate.key());
    candidates
}

/// The endpoints of one Service port, per traffic policy.
pub(super) struct Usable {
    /// For policy Cluster: near ones, if topology hints say so.
    pub(super) cluster: Vec<Endpoint>,
    /// For policy Local: those of this node.
    pub(super) local: Vec<Endpoint>,
}

/// Ready endpoints, or where there are none those that still serve while they terminate; decided for each list
/// on its own (4.2 to 4.4). `cluster` is empty only if no endpoint anywhere can be used (2.9).
pub(super) fn usable(candidates: &[Candidate<'_>], topology: &NodeTopology) -> Usable {
    let preference = Preference::of(candidates, topology);
    Usable {
        cluster: ready_or_last_resort(candidates, |_| true, |candidate| preference.admits(candidate)),
        // Hints never filter the local list (5.5).
        local: ready_or_last_resort(candidates, |candidate| candidate.entry.local, |_| true),
    }
}

fn ready_or_last_resort(
    candidates: &[Candidate<'_>],
    in_scope: impl Fn(Candidate<'_>) -> bool,
    near: impl Fn(Candidate<'_>) -> bool,
) -> Vec<Endpoint> {
    let scope = || candidates.iter().copied().filter(|candidate| in_scope(*candidate));
    let ready: Vec<_> = scope().filter(|c| c.is_ready() && near(*c)).map(endpoint).collect();
    if ready.is_empty() { scope().filter(|c| c.is_last_resort()).map(endpoint).collect() } else { ready }
}

fn endpoint(candidate: Candidate<'_>) -> Endpoint {
    let Candidate { entry, port } = candidate;
    Endpoint { address: entry.address, port, local: entry.local }
}
