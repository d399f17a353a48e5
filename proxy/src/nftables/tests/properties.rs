//! Any sequence of changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::nftables::shadow::{Observed, Shadow};

fn any_outcome(family: IpFamily) -> impl Strategy<Value = Outcome> {
    let endpoint = (1..6_u8, any::<bool>()).prop_map(move |(n, local)| {
        let address = match family {
            IpFamily::V4 => IpAddr::from([10, 244, 0, n]),
            IpFamily::V6 => IpAddr::from([0xfd44, 0, 0, 0, 0, 0, 0, u16::from(n)]),
        };
        (address, Endpoint { address, port: 8080, local })
    });
    prop_oneof![
        6 => prop::collection::btree_map(
            endpoint.clone().prop_map(|(address, _)| address),
            endpoint.prop_map(|(_, endpoint)| endpoint.local),
            1..5,
        ).prop_map(|chosen| Outcome::Endpoints(
            chosen.into_iter().map(|(address, local)| Endpoint { address, port: 8080, local }).collect()
        )),
        1 => Just(Outcome::Reject),
        1 => Just(Outcome::Drop),
    ]
}

/// Few keys, so that Services grow, shrink and go. Each has targets of its own, as the planner sees to it.
fn any_change() -> impl Strategy<Value = (PlanKey, Option<ServicePortPlan>)> {
    let family = prop_oneof![Just(IpFamily::V4), Just(IpFamily::V6)];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (0..6_u8, family, protocol)
        .prop_flat_map(|(name, family, protocol)| {
            let mut key = key(&format!("s{name}"));
            key.family = family;
            key.port.protocol = protocol;
            let name = u16::from(name);
            let address = move |last: u16| match family {
                IpFamily::V4 => IpAddr::from([192, 0, 2, last.to_be_bytes()[1]]),
                IpFamily::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]),
            };
            let frontend = prop_oneof![
                // Two Service ports may be at one ClusterIP.
                Just(Frontend::ClusterIp((address(name / 2), 80 + name % 2).into())),
                (2..4_u16).prop_map(move |n| Frontend::ExternalIp((address(10 * n + name), 80).into())),
                (3..5_u16).prop_map(move |n| Frontend::LoadBalancer((address(10 * n + name), 80).into())),
                (30000..30003_u16).prop_map(move |n| Frontend::NodePort(n + 10 * name)),
            ];
            let frontends = prop::collection::btree_set(frontend, 0..5);
            let outcomes = (any_outcome(family), any_outcome(family), any_outcome(family));
            let affinity = prop::option::of((1..3_u64).prop_map(Duration::from_secs));
            (Just(key), frontends, outcomes, any::<(bool, bool)>(), affinity)
        })
        .prop_flat_map(|(key, frontends, (internal, external, from_node), (masquerade, ranges), affinity)| {
            let mut plan = plan(key.clone(), internal);
            plan.frontends = frontends.into_iter().collect();
            // Policy Local alone treats some clients apart.
            plan.external_from_node = if masquerade { external.clone() } else { from_node };
            plan.external = external;
            plan.masquerade_external = masquerade;
            plan.affinity = affinity;
            if ranges {
                plan.source_ranges = vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
            }
            prop_oneof![1 => Just((key.clone(), None)), 4 => Just((key, Some(plan)))]
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_sequence_of_changes_ends_where_a_plan_from_scratch_does(
        changes in prop::collection::vec(prop::collection::vec(any_change(), 1..4), 1..12),
        all in any::<bool>(),
        limit in 1..12_usize,
    ) {
        let scope = if all { PacketScope::All } else { EXTERNAL };
        let mut bench = Bench::new(scope);
        bench.apply(&Changed::Everything);
        // A small limit shares chains.
        let observed = Observed::Ours(bench.nft.content());
        bench.plane.shadow = Some(Shadow::load(scope, &bench.plane.settings, limit, &bench.desired, &observed).0);
        for batch in changes {
            bench.change(&batch);
        }
        let mut scratch = Bench::new(scope);
        scratch.desired = bench.desired.clone();
        scratch.apply(&Changed::Everything);
        prop_assert_eq!(bench.nft.dump(), scratch.nft.dump());

        bench.nft.take_scripts();
        bench.apply(&Changed::Everything);
        prop_assert_eq!(bench.nft.take_scripts(), Vec::<String>::new(), "a second plan is empty");

        let keys: Vec<_> = bench.desired.ports.keys().cloned().collect();
        bench.desired.ports = BTreeMap::new();
        bench.apply(&Changed::Ports(keys));
        let left = bench.nft.content();
        prop_assert!(left.chains.is_empty() && left.maps.is_empty());
        prop_assert_eq!(left.elements.len(), 2, "the NodePort addresses");
    }
}
