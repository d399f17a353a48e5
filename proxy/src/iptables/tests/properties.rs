//! Random changes: the tables end where a plan from scratch does, nothing is written twice, nothing is left over.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::prelude::*;

use super::*;
use crate::model::Protocol;

/// Endpoints on this node and elsewhere, as the planner would hand them out.
fn any_endpoints(family: IpFamily) -> impl Strategy<Value = Vec<Endpoint>> {
    prop::collection::btree_map(1..6_u8, any::<bool>(), 0..5).prop_map(move |chosen| {
        let endpoint = |(n, local): (u8, bool)| {
            let address: IpAddr = match family {
                IpFamily::V4 => [10, 244, 0, n].into(),
                IpFamily::V6 => [0xfd44, 0, 0, 0, 0, 0, 0, u16::from(n)].into(),
            };
            Endpoint { address, port: 8080, local }
        };
        chosen.into_iter().map(endpoint).collect()
    })
}

fn outcome(endpoints: &[Endpoint], otherwise: Outcome) -> Outcome {
    if endpoints.is_empty() { otherwise } else { Outcome::Endpoints(endpoints.into()) }
}

/// Section 3: the cluster's list for policy Cluster, this node's for Local.
fn fill(plan: &mut ServicePortPlan, all: &[Endpoint], internal_local: bool, external_local: bool) {
    let cluster = outcome(all, Outcome::Reject);
    let local: Vec<Endpoint> = all.iter().filter(|endpoint| endpoint.local).copied().collect();
    let local = outcome(&local, if all.is_empty() { Outcome::Reject } else { Outcome::Drop });
    plan.internal = if internal_local { local.clone() } else { cluster.clone() };
    plan.external = if external_local { local } else { cluster.clone() };
    plan.external_from_node = cluster;
    plan.masquerade_external = !external_local;
    if !plan.frontends.iter().any(Frontend::is_external) {
        plan.external = plan.internal.clone();
        plan.external_from_node = plan.internal.clone();
    }
}

/// Few keys, each with its own addresses, which grow, shrink, open, close and go.
fn any_change() -> impl Strategy<Value = (PlanKey, Option<ServicePortPlan>)> {
    let family = prop_oneof![Just(IpFamily::V4), Just(IpFamily::V6)];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (0..4_u8, family, protocol)
        .prop_flat_map(|(name, family, protocol)| {
            let mut key = key(&format!("s{name}"));
            key.family = family;
            key.port.protocol = protocol;
            let policies = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
            let frontends = prop::sample::subsequence(frontends(family, name), 1..=4);
            (Just(key), frontends, any_endpoints(family), policies)
        })
        .prop_flat_map(|(key, frontends, endpoints, (internal_local, external_local, affinity, ranges))| {
            let mut plan = plan(key.clone(), Outcome::Reject);
            plan.frontends = frontends;
            fill(&mut plan, &endpoints, internal_local, external_local);
            plan.affinity = affinity.then_some(Duration::from_secs(60));
            let range = if key.family == IpFamily::V4 { "198.51.100.0/24" } else { "2001:db8::/32" };
            plan.source_ranges = if ranges { vec![range.parse().unwrap()] } else { Vec::new() };
            prop_oneof![1 => Just((key.clone(), None)), 4 => Just((key, Some(plan)))]
        })
}

fn frontends(family: IpFamily, name: u8) -> Vec<Frontend> {
    let at = |last: u8| -> (IpAddr, u16) {
        let address = match family {
            IpFamily::V4 => [192, 0, 2, last].into(),
            IpFamily::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into(),
        };
        (address, 80)
    };
    vec![
        Frontend::ClusterIp(at(name).into()),
        Frontend::ExternalIp(at(name + 100).into()),
        Frontend::LoadBalancer(at(name + 200).into()),
        Frontend::NodePort(30000 + u16::from(name)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The tables in memory refuse a jump to a chain that is not there, so that is tested too.
    #[test]
    fn any_sequence_of_changes_ends_where_a_plan_from_scratch_does(
        changes in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 1..10),
        detector in any::<bool>(),
        replaces in any::<bool>(),
    ) {
        let settings = if detector { pods_in("10.244.0.0/16") } else { settings() };
        let mut bench = Bench::on(FakeXtables::new(replaces), settings.clone());
        bench.apply(&Changed::Everything);
        let empty = [IpFamily::V4, IpFamily::V6].map(|family| bench.tables.dump(family));
        for batch in changes {
            bench.change(&batch);
        }
        let mut scratch = Bench::new(settings);
        scratch.desired = bench.desired.clone();
        scratch.apply(&Changed::Everything);
        for family in [IpFamily::V4, IpFamily::V6] {
            prop_assert_eq!(bench.tables.dump(family), scratch.tables.dump(family));
        }

        bench.tables.take_inputs();
        bench.apply(&Changed::Everything);
        prop_assert_eq!(bench.tables.take_inputs(), Vec::<String>::new(), "a second plan is empty");
        bench.restart();
        prop_assert_eq!(bench.tables.take_inputs(), Vec::<String>::new(), "nor does a restart write");

        let keys: Vec<_> = bench.desired.ports.keys().cloned().collect();
        bench.desired.ports = BTreeMap::new();
        bench.apply(&Changed::Ports(keys));
        prop_assert_eq!([IpFamily::V4, IpFamily::V6].map(|family| bench.tables.dump(family)), empty);
    }
}
