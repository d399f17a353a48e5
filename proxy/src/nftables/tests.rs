//! The data plane on the in-memory table: tables, properties, snapshots.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{
    Nftables,
    element::Element,
    entries::PacketScope,
    fake::FakeNft,
    pool::{List, MapKind, Masquerade, Pool},
    shadow::{Observed, Shadow},
    target::Target,
    testing::{endpoints, key, plan},
};
use crate::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol},
    plan::{Endpoint, Frontend, Outcome, PlanKey, ServicePortPlan},
};

const EXTERNAL: PacketScope = PacketScope::External { second_line: false };

fn started(scope: PacketScope, nft: &FakeNft) -> Nftables {
    Nftables::with(scope, Arc::default(), Box::new(nft.clone()))
}

/// The element of NodePort 30080 or of a VIP that leads to the endpoint in one slot of two.
fn slot_of_two(target: Target, slot: u32) -> Element {
    let pool = Pool {
        list: List::Main,
        class: target.class(),
        family: target.family(),
        protocol: target.protocol(),
        count: 2,
        masquerade: Masquerade::Always,
        affinity: None,
    };
    Element::Endpoint { map: pool.map(MapKind::Endpoints), target, slot }
}

const NODE_PORT: Target = Target::NodePort { family: IpFamily::V4, protocol: Protocol::Tcp, port: 30080 };

struct Bench {
    nft: FakeNft,
    plane: Nftables,
    desired: Desired,
}

impl Bench {
    fn new(scope: PacketScope) -> Self {
        let nft = FakeNft::default();
        let plane = started(scope, &nft);
        let node_port_addresses = ["172.30.0.1", "fd30::1"].map(|a| a.parse().unwrap());
        let desired = Desired { node_port_addresses: node_port_addresses.into(), ..Desired::default() };
        Self { nft, plane, desired }
    }

    fn apply(&mut self, changed: &Changed) {
        self.plane.apply(&self.desired, changed).unwrap();
        assert!(self.plane.is_intact().unwrap(), "and what was postponed is done");
        self.nft.check_references().unwrap();
    }

    /// Sets or removes plans, applies just that, and returns the transactions it took.
    fn change(&mut self, changes: &[(PlanKey, Option<ServicePortPlan>)]) -> Vec<String> {
        for (key, plan) in changes {
            match plan {
                Some(plan) => self.desired.ports.insert(key.clone(), Arc::new(plan.clone())),
                None => self.desired.ports.remove(key),
            };
        }
        self.apply(&Changed::Ports(changes.iter().map(|(key, _)| key.clone()).collect()));
        self.nft.take_scripts()
    }

    fn put(&mut self, plan: ServicePortPlan) -> Vec<String> {
        self.change(&[(plan.key.clone(), Some(plan))])
    }
}

/// A started plane with `web`, NodePort 30080, on these endpoints.
fn with_web(addresses: &[&str]) -> Bench {
    let mut bench = Bench::new(EXTERNAL);
    bench.apply(&Changed::Everything);
    bench.put(web(addresses));
    bench
}

fn web(addresses: &[&str]) -> ServicePortPlan {
    let mut plan = plan(key("web"), endpoints(addresses));
    plan.frontends = vec![Frontend::NodePort(30080)];
    plan
}

const TWO: [&str; 2] = ["10.244.1.2:80", "10.244.2.2:80"];
const THREE: [&str; 3] = ["10.244.1.2:80", "10.244.1.3:80", "10.244.2.2:80"];

/// A Service port with a NodePort, and a ClusterIP that only the second line serves.
fn with_cluster_ip(number: u8) -> ServicePortPlan {
    let mut plan = plan(key(&format!("web-{number}")), endpoints(&[&format!("10.244.1.{number}:80")]));
    plan.frontends =
        vec![Frontend::ClusterIp(([10, 96, 0, number], 80).into()), Frontend::NodePort(30000 + u16::from(number))];
    plan
}

#[test]
fn the_second_line_comes_later_and_stays_over_a_restart() {
    const SECOND_LINE: PacketScope = PacketScope::External { second_line: true };
    let mut bench = Bench::new(SECOND_LINE);
    let mut direct = Bench::new(SECOND_LINE);
    direct.apply(&Changed::Everything);
    for number in 1..=200 {
        let plan = with_cluster_ip(number);
        bench.desired.ports.insert(plan.key.clone(), Arc::new(plan.clone()));
        direct.put(plan);
    }
    bench.apply(&Changed::Everything);
    assert!(!bench.nft.dump().contains("10.96.0.7 . 6 . 80"), "not at first");
    assert!(bench.nft.dump().contains("6 . 30007"), "what cannot wait is there");
    // A Service that changes meanwhile gets it with the change, and one that goes needs none.
    let mut changed = with_cluster_ip(7);
    changed.internal = endpoints(&["10.244.1.7:80", "10.244.1.77:80"]);
    for bench in [&mut bench, &mut direct] {
        bench.put(changed.clone());
        bench.change(&[(key("web-8"), None)]);
    }
    assert!(bench.nft.dump().contains("10.96.0.7 . 6 . 80"));
    let mut rounds = 0;
    while bench.plane.catch_up(&bench.desired).unwrap() {
        rounds += 1;
        bench.nft.check_references().unwrap();
    }
    assert_eq!(rounds, 2, "198 of 128 at a time");
    assert!(bench.plane.is_intact().unwrap());
    assert_eq!(bench.nft.dump(), direct.nft.dump(), "as if it had been there from the start");

    bench.nft.take_scripts();
    bench.plane = started(SECOND_LINE, &bench.nft);
    bench.apply(&Changed::Everything);
    assert_eq!(bench.nft.take_scripts(), [""; 0], "a restart takes nothing out and has nothing to add");
    assert!(!bench.plane.catch_up(&bench.desired).unwrap());
}

#[test]
fn the_first_service_port_of_its_size_gets_its_chain_before_anything_names_it() {
    let mut bench = Bench::new(EXTERNAL);
    bench.apply(&Changed::Everything);
    bench.nft.take_scripts();
    let scripts = bench.put(web(&TWO));
    let expected = [
        "\
add map inet weft-proxy np-endpoints4-tcp-2 { typeof tcp dport . numgen inc mod 2 : ip daddr . tcp dport; counter; }
add chain inet weft-proxy np-rr4-tcp-2-0-masq
add rule inet weft-proxy np-rr4-tcp-2-0-masq meta mark set meta mark | 0x4000
add rule inet weft-proxy np-rr4-tcp-2-0-masq dnat ip to tcp dport . numgen inc mod 2 map @np-endpoints4-tcp-2
",
        "\
add element inet weft-proxy np-endpoints4-tcp-2 { 30080 . 0 : 10.244.1.2 . 80, 30080 . 1 : 10.244.2.2 . 80 }
add element inet weft-proxy nodeports4 { 6 . 30080 : jump np-rr4-tcp-2-0-masq }
",
    ];
    assert_eq!(scripts, expected);
}

#[test]
fn another_number_of_endpoints_moves_the_service_port_and_its_counters() {
    let mut bench = with_web(&TWO);
    bench.nft.count(slot_of_two(NODE_PORT, 1), 7);
    bench.nft.take_scripts();
    let scripts = bench.put(web(&THREE));
    assert_eq!(scripts.len(), 3, "one for the new chain, one for the move, one for the old chain");
    let expected = [
        "\
delete element inet weft-proxy nodeports4 { 6 . 30080 }
add element inet weft-proxy np-endpoints4-tcp-3 { 30080 . 0 : 10.244.1.2 . 80, 30080 . 1 : 10.244.1.3 . 80, 30080 . 2 counter packets 7 bytes 0 : 10.244.2.2 . 80 }
add element inet weft-proxy nodeports4 { 6 . 30080 : jump np-rr4-tcp-3-0-masq }
delete element inet weft-proxy np-endpoints4-tcp-2 { 30080 . 1, 30080 . 0 }
",
        "\
delete chain inet weft-proxy np-rr4-tcp-2-0-masq
delete map inet weft-proxy np-endpoints4-tcp-2
",
    ];
    assert_eq!(scripts[1..], expected);
}

#[test]
fn a_chain_that_is_needed_again_before_it_was_removed_stays() {
    let mut bench = with_web(&TWO);
    bench.nft.take_scripts();
    for addresses in [&THREE[..], &TWO, &THREE, &TWO] {
        bench.desired.ports.insert(key("web"), Arc::new(web(addresses)));
        bench.plane.apply(&bench.desired, &Changed::Ports(vec![key("web")])).unwrap();
    }
    let scripts = bench.nft.take_scripts();
    let chains = scripts.iter().filter(|script| script.contains(" chain ")).count();
    assert_eq!((scripts.len(), chains), (5, 1), "the chain for three is made once: {scripts:?}");
    assert!(bench.plane.is_intact().unwrap());
    bench.nft.check_references().unwrap();
}

#[test]
fn a_replaced_endpoint_is_one_element_in_one_transaction() {
    let mut bench = with_web(&TWO);
    bench.nft.take_scripts();
    let scripts = bench.put(web(&["10.244.1.2:80", "10.244.2.9:80"]));
    let expected = "\
delete element inet weft-proxy np-endpoints4-tcp-2 { 30080 . 1 }
add element inet weft-proxy np-endpoints4-tcp-2 { 30080 . 1 : 10.244.2.9 . 80 }
";
    assert_eq!(scripts, [expected]);
}

#[test]
fn rules_9_1_and_9_4_without_endpoints_it_refuses() {
    let mut bench = with_web(&TWO);
    for (outcome, value) in [(Outcome::Reject, "goto refuse"), (Outcome::Drop, "drop")] {
        let mut plan = web(&TWO);
        plan.external = outcome;
        bench.put(plan);
        let expected = format!("refused-nodeports4 6 . 30080 : {value}\n");
        assert!(bench.nft.dump().contains(&expected), "{}", bench.nft.dump());
        assert!(bench.nft.content().chains.is_empty());
    }
}

#[test]
fn rule_8_7_local_endpoints_may_connect_to_themselves() {
    let mut bench = with_web(&TWO);
    let local = Endpoint { address: "10.244.1.2".parse().unwrap(), port: 80, local: true };
    let mut plan = web(&TWO);
    plan.external = Outcome::Endpoints(Arc::new([local]));
    bench.put(plan.clone());
    let mut other = plan.clone();
    other.key = key("other");
    other.frontends = vec![Frontend::NodePort(30081)];
    bench.put(other);
    let hairpin = "hairpin4 10.244.1.2 . 10.244.1.2 : \n";
    assert!(bench.nft.dump().contains(hairpin));
    bench.change(&[(key("web"), None)]);
    assert!(bench.nft.dump().contains(hairpin), "the other Service still has it");
    bench.change(&[(key("other"), None)]);
    assert!(!bench.nft.dump().contains("hairpin4"));
}

#[test]
fn node_port_addresses_change_alone() {
    let mut bench = with_web(&TWO);
    bench.nft.take_scripts();
    bench.desired.node_port_addresses = ["172.30.0.2", "fd30::1"].map(|a| a.parse().unwrap()).into();
    bench.apply(&Changed::NodePortAddresses);
    let expected = "\
add element inet weft-proxy nodeport-addresses4 { 172.30.0.2 }
delete element inet weft-proxy nodeport-addresses4 { 172.30.0.1 }
";
    assert_eq!(bench.nft.take_scripts(), [expected]);
}

#[test]
fn a_restart_changes_nothing() {
    let mut bench = with_web(&TWO);
    bench.put({
        let mut plan = web(&TWO);
        plan.key = key("another");
        plan.frontends = vec![Frontend::NodePort(30081)];
        plan
    });
    // "web" is in bucket 0 although "another" sorts before it: only by looking can the new process know.
    bench.nft.take_scripts();
    bench.plane = started(EXTERNAL, &bench.nft);
    bench.apply(&Changed::Everything);
    assert!(bench.nft.take_scripts().is_empty());
    assert!(bench.plane.is_intact().unwrap());
}

#[test]
fn a_deleted_table_is_noticed_and_built_again() {
    let mut bench = with_web(&TWO);
    assert!(bench.plane.is_intact().unwrap());
    let before = bench.nft.dump();
    bench.nft.delete_table();
    assert!(!bench.plane.is_intact().unwrap());
    bench.nft.take_scripts();
    bench.apply(&Changed::Everything);
    let scripts = bench.nft.take_scripts();
    assert_eq!(scripts.len(), 2, "chains, then elements");
    assert_eq!(bench.nft.dump(), before);
}

#[test]
fn after_an_error_the_kernel_is_read_again() {
    let mut bench = with_web(&TWO);
    bench.nft.fail_next();
    bench.desired.ports.insert(key("web"), Arc::new(web(&THREE)));
    bench.plane.apply(&bench.desired, &Changed::Ports(vec![key("web")])).unwrap_err();
    // Even for a caller that forgets to say Everything.
    bench.apply(&Changed::Ports(Vec::new()));
    assert!(bench.nft.dump().contains("np-endpoints4-tcp-3"));
}

#[test]
fn connections_are_summed_over_frontends() {
    let mut bench = Bench::new(EXTERNAL);
    bench.apply(&Changed::Everything);
    let mut plan = web(&TWO);
    plan.frontends.insert(0, Frontend::ExternalIp("192.0.2.1:80".parse().unwrap()));
    bench.put(plan);
    let vip = Target::Vip { address: [192, 0, 2, 1].into(), protocol: Protocol::Tcp, port: 80 };
    bench.nft.count(slot_of_two(NODE_PORT, 1), 3);
    bench.nft.count(slot_of_two(vip, 1), 4);
    let connections = bench.plane.connections(&key("web")).unwrap();
    assert_eq!(connections.iter().map(|c| c.connections).collect::<Vec<_>>(), [0, 7]);
    assert_eq!(connections[1].endpoint.address, "10.244.2.2".parse::<IpAddr>().unwrap());
}

#[test]
fn cleanup_removes_the_table() {
    let mut bench = with_web(&TWO);
    bench.nft.take_scripts();
    bench.plane.cleanup().unwrap();
    let expected = "add table inet weft-proxy\ndelete table inet weft-proxy\n";
    assert_eq!(bench.nft.take_scripts(), [expected]);
}

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
