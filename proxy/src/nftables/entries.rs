//! Which targets of a planned Service port the packet path serves, and how.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;

use super::{
    element::Element,
    pool::{List, Masquerade, Pool},
    target::Target,
};
use crate::{
    model::Protocol,
    plan::{Endpoint, Frontend, Outcome, PacketSettings, ServicePortPlan},
};

/// Which frontends the packet path serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketScope {
    /// Beside a socket plane: what comes from outside (NodePort, externalIP, LoadBalancer), and what a socket cannot decide
    /// (SCTP, source ranges, DROP).
    External {
        /// Also ClusterIPs of TCP and UDP, for packets that no socket of this node made (VMs, gVisor). They may wait: an apply of
        /// everything leaves out those that are not in the table yet, and [`DataPlane::catch_up`](crate::dataplane::DataPlane::catch_up)
        /// adds them.
        second_line: bool,
    },
    /// Everything: the packet path is the only data plane.
    All,
}

impl PacketScope {
    /// What of it cannot wait.
    pub(crate) const fn without_second_line(self) -> Self {
        match self {
            Self::External { .. } => Self::External { second_line: false },
            Self::All => Self::All,
        }
    }

    fn serves_cluster_ip(self, plan: &ServicePortPlan) -> bool {
        match self {
            Self::All | Self::External { second_line: true } => true,
            // The socket plane leaves SCTP and DROP alone.
            Self::External { second_line: false } => {
                plan.key.port.protocol == Protocol::Sctp || plan.internal == Outcome::Drop
            }
        }
    }
}

/// One target of a Service port and what happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    /// For clients outside, or for everybody.
    pub(crate) outcome: Outcome,
    /// For pods and processes of this node, if externalTrafficPolicy is Local (3.5, 3.6).
    pub(crate) from_node: Option<Outcome>,
    /// Whether source ranges apply.
    pub(crate) guarded: bool,
    masquerade: Masquerade,
    affinity: Option<u32>,
}

impl Entry {
    /// The list `list` of endpoints with the chains that could balance it; `None` if there is none.
    pub(crate) fn balanced(&self, list: List) -> Option<(Pool, &[Endpoint])> {
        let endpoints = match list {
            List::Main => self.outcome.endpoints(),
            // Pods and processes of this node share the chain of all others, if they are given the same.
            List::Node => self.from_node.as_ref().filter(|o| **o != self.outcome).map_or(&[][..], Outcome::endpoints),
        };
        let count = u32::try_from(endpoints.len()).expect("endpoints fit in memory");
        let (class, family, protocol) = (self.target.class(), self.target.family(), self.target.protocol());
        let Self { masquerade, affinity, .. } = *self;
        (count > 0).then_some((Pool { list, class, family, protocol, count, masquerade, affinity }, endpoints))
    }

    /// The chains that could balance it.
    pub(crate) fn pools(&self) -> impl Iterator<Item = Pool> {
        [List::Main, List::Node].into_iter().filter_map(|list| self.balanced(list)).map(|(pool, _)| pool)
    }

    pub(crate) fn forget_affinity(&mut self) {
        self.affinity = None;
    }

    /// Elements that other entries may need too.
    pub(crate) fn shared_elements(&self) -> impl Iterator<Item = Element> {
        let lists = [List::Main, List::Node].into_iter().filter_map(|list| self.balanced(list));
        let local: BTreeSet<IpAddr> = lists.flat_map(|(_, list)| list).filter(|e| e.local).map(|e| e.address).collect();
        local.into_iter().map(Element::Hairpin)
    }
}

/// The entries of one plan, sorted by target, one for each.
pub(crate) fn entries(plan: &ServicePortPlan, scope: PacketScope, settings: &PacketSettings) -> Vec<Entry> {
    let entry = |frontend: &Frontend| entry(plan, *frontend, scope, settings);
    let mut entries: Vec<Entry> = plan.frontends.iter().filter_map(entry).collect();
    // Stable: of two frontends at one address, the first in the order of `Frontend` counts; but what is a LoadBalancer
    // address in any way is guarded.
    entries.sort_by_key(|entry| entry.target);
    entries.dedup_by(|later, first| {
        let same = later.target == first.target;
        first.guarded |= same && later.guarded;
        same
    });
    entries
}

fn entry(plan: &ServicePortPlan, frontend: Frontend, scope: PacketScope, settings: &PacketSettings) -> Option<Entry> {
    let (protocol, affinity) = (plan.key.port.protocol, affinity_seconds(plan));
    let vip = |at: SocketAddr| Target::Vip { address: at.ip(), protocol, port: at.port() };
    let external = |target| Entry {
        target,
        outcome: plan.external.clone(),
        from_node: (!plan.masquerade_external).then(|| plan.external_from_node.clone()),
        guarded: false,
        // With policy Local, those of this node that need it are marked on their way here (8.6).
        masquerade: if plan.masquerade_external { Masquerade::Always } else { Masquerade::Never },
        affinity,
    };
    match frontend {
        Frontend::ClusterIp(at) => scope.serves_cluster_ip(plan).then(|| Entry {
            target: vip(at),
            outcome: plan.internal.clone(),
            from_node: None,
            guarded: false,
            masquerade: if settings.masquerade_all { Masquerade::Always } else { Masquerade::UnlessLocal },
            affinity,
        }),
        Frontend::LoadBalancer(at) => Some(Entry { guarded: !plan.source_ranges.is_empty(), ..external(vip(at)) }),
        Frontend::ExternalIp(at) => Some(external(vip(at))),
        Frontend::NodePort(port) => Some(external(Target::NodePort { family: plan.key.family, protocol, port })),
    }
}

/// A part of a second is rounded up.
fn affinity_seconds(plan: &ServicePortPlan) -> Option<u32> {
    let seconds = plan.affinity?.as_millis().div_ceil(1000);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}

/// The ranges without those that lie in another: the kernel refuses overlapping ones. They are sorted, so what one holds
/// comes after it.
pub(crate) fn disjoint(ranges: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut disjoint: Vec<IpNetwork> = Vec::new();
    for range in ranges {
        if disjoint.last().is_none_or(|last| !last.contains(range.network())) {
            disjoint.push(*range);
        }
    }
    disjoint
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nftables::testing::{endpoints, key, plan};

    const EXTERNAL: PacketScope = PacketScope::External { second_line: false };

    fn of(plan: &ServicePortPlan, scope: PacketScope) -> Vec<Entry> {
        entries(plan, scope, &PacketSettings::default())
    }

    fn targets(plan: &ServicePortPlan, scope: PacketScope) -> Vec<String> {
        of(plan, scope).iter().map(|e| e.target.to_string()).collect()
    }

    fn all_kinds() -> ServicePortPlan {
        let mut plan = plan(key("web"), endpoints(&["10.1.0.1:80"]));
        plan.frontends = vec![
            Frontend::ClusterIp("10.96.0.1:80".parse().unwrap()),
            Frontend::ExternalIp("192.0.2.1:80".parse().unwrap()),
            Frontend::LoadBalancer("192.0.2.2:80".parse().unwrap()),
            Frontend::NodePort(30080),
        ];
        plan
    }

    #[test]
    fn scope_decides_about_cluster_ips_only() {
        let external = ["192.0.2.1 . 6 . 80", "192.0.2.2 . 6 . 80", "6 . 30080"];
        assert_eq!(targets(&all_kinds(), EXTERNAL), external);
        let all = [&["10.96.0.1 . 6 . 80"], external.as_slice()].concat();
        assert_eq!(targets(&all_kinds(), PacketScope::All), all);
        assert_eq!(targets(&all_kinds(), PacketScope::External { second_line: true }), all);
    }

    #[test]
    fn what_a_socket_cannot_decide_is_the_packet_paths_in_every_scope() {
        let mut plan = all_kinds();
        plan.internal = Outcome::Drop;
        let entries = of(&plan, EXTERNAL);
        assert_eq!(entries[0].target.to_string(), "10.96.0.1 . 6 . 80");
        assert_eq!(entries[0].outcome, Outcome::Drop);
        plan.internal = Outcome::Reject;
        assert_eq!(targets(&plan, EXTERNAL).len(), 3, "REJECT is left to the socket plane");
        plan.key.port.protocol = Protocol::Sctp;
        assert_eq!(targets(&plan, EXTERNAL)[0], "10.96.0.1 . 132 . 80");
    }

    #[test]
    fn rules_8_1_to_8_6_and_8_9_choose_who_is_masqueraded() {
        let mut plan = all_kinds();
        let masquerade = |plan: &ServicePortPlan, all| {
            let settings = PacketSettings { masquerade_all: all, ..PacketSettings::default() };
            entries(plan, PacketScope::All, &settings).iter().map(|e| e.masquerade).collect::<Vec<_>>()
        };
        use Masquerade::{Always, Never, UnlessLocal};
        assert_eq!(masquerade(&plan, false), [UnlessLocal, Always, Always, Always]);
        assert_eq!(masquerade(&plan, true), [Always; 4], "8.4");
        plan.masquerade_external = false;
        assert_eq!(masquerade(&plan, true), [Always, Never, Never, Never], "8.9");
    }

    #[test]
    fn rules_3_5_and_3_6_give_pods_another_list_only_if_the_policy_is_local() {
        let mut plan = all_kinds();
        assert!(of(&plan, PacketScope::All).iter().all(|e| e.from_node.is_none() && e.pools().count() == 1));
        plan.masquerade_external = false;
        let entries = of(&plan, PacketScope::All);
        assert!(entries[0].from_node.is_none(), "not at a ClusterIP");
        assert!(
            entries[3].from_node.is_some() && entries[3].balanced(List::Node).is_none(),
            "the same list, one chain"
        );
        plan.external = Outcome::Drop;
        assert_eq!(of(&plan, PacketScope::All)[3].pools().map(|p| p.list).collect::<Vec<_>>(), [List::Node]);
    }

    #[test]
    fn rule_9_6_source_ranges_guard_only_the_load_balancer_address() {
        let mut plan = all_kinds();
        plan.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
        let guarded = |plan: &ServicePortPlan| of(plan, PacketScope::All).iter().map(|e| e.guarded).collect::<Vec<_>>();
        assert_eq!(guarded(&plan), [false, false, true, false]);
        plan.frontends[1] = Frontend::ExternalIp("192.0.2.2:80".parse().unwrap());
        assert_eq!(guarded(&plan), [false, true, false], "one address of both kinds is guarded");
    }

    #[test]
    fn rule_9_9_who_is_admitted_meets_the_external_policy() {
        let mut plan = all_kinds();
        plan.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
        plan.masquerade_external = false;
        plan.external = Outcome::Drop;
        let entries = of(&plan, PacketScope::All);
        let vip = entries.iter().find(|entry| entry.guarded).unwrap();
        assert_eq!((&vip.outcome, vip.masquerade), (&Outcome::Drop, Masquerade::Never));
        assert_eq!(vip.from_node.as_ref(), Some(&plan.external_from_node), "the short circuits too");
    }

    #[test]
    fn rule_7_2_timeouts_are_whole_seconds() {
        let mut plan = all_kinds();
        for (timeout, seconds) in [(1, 1), (1000, 1), (1001, 2), (86_400_000, 86_400)] {
            plan.affinity = Some(Duration::from_millis(timeout));
            assert_eq!(affinity_seconds(&plan), Some(seconds));
        }
    }

    #[test]
    fn ranges_in_others_are_left_out() {
        let parse = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNetwork>>();
        let ranges = parse(&["10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "11.0.0.0/32", "11.0.0.1/32"]);
        assert_eq!(disjoint(&ranges), parse(&["10.0.0.0/8", "11.0.0.0/32", "11.0.0.1/32"]));
    }
}
