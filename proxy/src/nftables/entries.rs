//! Which targets of a planned Service port the packet path serves, and how.

use std::net::SocketAddr;

use super::objects::{EndpointMap, Pool, Target};
use crate::plan::{Endpoint, Frontend, Outcome, ServicePortPlan};

/// Which frontends the packet path serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketScope {
    /// What comes from outside: NodePort, externalIP, LoadBalancer. For use beside a socket plane, which serves ClusterIPs
    /// and leaves only those to DROP to the packet path.
    External,
    /// Everything, ClusterIPs too: the packet path is the only data plane.
    All,
}

/// One target of a Service port and what happens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    pub(crate) outcome: Outcome,
    masquerade: bool,
}

impl Entry {
    /// The chains that could balance it; `None` if it has no endpoints to choose from.
    pub(crate) fn pool(&self) -> Option<Pool> {
        let count = u32::try_from(self.endpoints().len()).expect("endpoints fit in memory");
        let pool = Pool { map: EndpointMap::of(self.target, count), masquerade: self.masquerade };
        (count > 0).then_some(pool)
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match &self.outcome {
            Outcome::Endpoints(endpoints) => endpoints,
            Outcome::Reject | Outcome::Drop => &[],
        }
    }
}

/// The entries of one plan, sorted by target, one for each.
///
/// Not served here, whatever the scope: a LoadBalancer address with source ranges. Letting everybody in would be worse
/// than leaving the address alone until this plane can filter sources (9.6).
pub(crate) fn entries(plan: &ServicePortPlan, scope: PacketScope) -> Vec<Entry> {
    let mut entries: Vec<Entry> = plan.frontends.iter().filter_map(|frontend| entry(plan, *frontend, scope)).collect();
    // Stable: of two frontends at one address, the first in the order of `Frontend` counts.
    entries.sort_by_key(|entry| entry.target);
    entries.dedup_by_key(|entry| entry.target);
    entries
}

fn entry(plan: &ServicePortPlan, frontend: Frontend, scope: PacketScope) -> Option<Entry> {
    let protocol = plan.key.port.protocol;
    let vip = |at: SocketAddr| Target::Vip { address: at.ip(), protocol, port: at.port() };
    let external = |target| Entry { target, outcome: plan.external.clone(), masquerade: plan.masquerade_external };
    match frontend {
        Frontend::ClusterIp(at) => {
            let served = scope == PacketScope::All || plan.internal == Outcome::Drop;
            // Without a local-traffic detector, ClusterIP clients keep their address (8.3).
            let entry = || Entry { target: vip(at), outcome: plan.internal.clone(), masquerade: false };
            served.then(entry)
        }
        Frontend::LoadBalancer(_) if !plan.source_ranges.is_empty() => None,
        Frontend::ExternalIp(at) | Frontend::LoadBalancer(at) => Some(external(vip(at))),
        Frontend::NodePort(port) => Some(external(Target::NodePort { family: plan.key.family, protocol, port })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::testing::{endpoints, key, plan};

    fn targets(plan: &ServicePortPlan, scope: PacketScope) -> Vec<String> {
        entries(plan, scope).iter().map(|e| e.target.to_string()).collect()
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
        assert_eq!(targets(&all_kinds(), PacketScope::External), external);
        let all = [&["10.96.0.1 . 6 . 80"], external.as_slice()].concat();
        assert_eq!(targets(&all_kinds(), PacketScope::All), all);
    }

    #[test]
    fn a_cluster_ip_to_drop_is_the_packet_paths_in_every_scope() {
        let mut plan = all_kinds();
        plan.internal = Outcome::Drop;
        let entries = entries(&plan, PacketScope::External);
        assert_eq!(entries[0].target.to_string(), "10.96.0.1 . 6 . 80");
        assert_eq!(entries[0].outcome, Outcome::Drop);
    }

    #[test]
    fn a_cluster_ip_to_reject_is_left_to_the_socket_plane() {
        let mut plan = all_kinds();
        plan.internal = Outcome::Reject;
        assert_eq!(targets(&plan, PacketScope::External).len(), 3);
    }

    #[test]
    fn source_ranges_close_only_the_load_balancer_address() {
        let mut plan = all_kinds();
        plan.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
        assert_eq!(targets(&plan, PacketScope::External), ["192.0.2.1 . 6 . 80", "6 . 30080"]);
    }

    #[test]
    fn one_address_as_external_ip_and_load_balancer_is_one_entry() {
        let mut plan = all_kinds();
        plan.frontends[2] = Frontend::LoadBalancer("192.0.2.1:80".parse().unwrap());
        assert_eq!(targets(&plan, PacketScope::External), ["192.0.2.1 . 6 . 80", "6 . 30080"]);
    }
}
