//! What a client may meet, by the plainest reading of the rules (kube-proxy.md 3 and 4), written apart from the planner
//! so that the two check each other.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    addresses::{Client, Frontend, backend, is_dual_stack},
    objects::{Condition, Endpoint, Kind, Objects, Slice, Spec},
};

/// What happens to a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no such frontend.
    Absent,
    /// Nobody serves it: refused.
    Reject,
    /// Policy Local, and nobody serves it here: silence.
    Drop,
    /// It reaches one of these.
    Endpoints(BTreeSet<SocketAddr>),
}

/// The verdicts about one Service, in one state of its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    spec: Option<Spec>,
    /// IPv4, IPv6.
    families: [Option<Lists>; 2],
}

/// By what policy a list is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lists {
    cluster: BTreeSet<SocketAddr>,
    local: BTreeSet<SocketAddr>,
}

impl Truth {
    pub(crate) fn of(number: u32, objects: &Objects) -> Self {
        let lists = |v6: bool| {
            let slices = objects.slices.iter().flatten().filter(move |slice| slice.v6 == v6);
            Lists { cluster: usable(slices.clone(), false), local: usable(slices, true) }
        };
        let families = [Some(lists(false)), is_dual_stack(number).then(|| lists(true))];
        Self { spec: objects.spec.clone(), families }
    }

    pub(crate) fn verdict(&self, client: Client, frontend: Frontend, v6: bool) -> Verdict {
        let (Some(spec), Some(lists)) = (&self.spec, &self.families[usize::from(v6)]) else { return Verdict::Absent };
        let exists = match frontend {
            Frontend::ClusterIp => true,
            Frontend::NodePort => spec.kind != Kind::ClusterIp,
            Frontend::LoadBalancer => spec.kind == Kind::LoadBalancer,
            Frontend::ExternalIp => spec.external_ip,
        };
        if !exists {
            return Verdict::Absent;
        }
        let local_only = match frontend {
            Frontend::ClusterIp => spec.internal_local,
            // 3.5, 3.6: the policy Local does not bind clients of the node.
            _ => spec.external_local && client == Client::Outside,
        };
        let list = if local_only { &lists.local } else { &lists.cluster };
        match (list.is_empty(), lists.cluster.is_empty() && lists.local.is_empty()) {
            (false, _) => Verdict::Endpoints(list.clone()),
            (true, true) => Verdict::Reject,
            (true, false) => Verdict::Drop,
        }
    }
}

/// Ready ones, or if there are none those that serve while they terminate (4.3), apart for each list.
fn usable<'a>(slices: impl Iterator<Item = &'a Slice> + Clone, local: bool) -> BTreeSet<SocketAddr> {
    let with = |condition: Condition| -> BTreeSet<SocketAddr> {
        let wanted = |endpoint: &&Endpoint| endpoint.condition == condition && (endpoint.local || !local);
        let address =
            |slice: &Slice, endpoint: &Endpoint| SocketAddr::new(backend(endpoint.host, slice.v6), slice.port);
        slices.clone().flat_map(|s| s.endpoints.iter().filter(wanted).map(move |e| address(s, e))).collect()
    };
    let ready = with(Condition::Ready);
    if ready.is_empty() { with(Condition::Terminating) } else { ready }
}
