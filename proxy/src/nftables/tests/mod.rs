//! The data plane on the in-memory table: tables, properties, snapshots.

mod properties;
mod restarts;

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Nftables,
    driver::Nft,
    element::Element,
    entries::PacketScope,
    fake::FakeNft,
    pool::{Chain, List, MapKind, Masquerade, Pool},
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
    Element::Endpoint { map: Chain { pool, bucket: 0 }.map(MapKind::Endpoints), target, slot }
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

#[test]
fn the_first_service_port_of_its_size_gets_its_chain_before_anything_names_it() {
    let mut bench = Bench::new(EXTERNAL);
    bench.apply(&Changed::Everything);
    bench.nft.take_scripts();
    let scripts = bench.put(web(&TWO));
    let expected = [
        "\
add map inet weft-proxy endpoints-np-rr4-tcp-2-0-masq { typeof tcp dport . numgen inc mod 2 : ip daddr . tcp dport; counter; }
add chain inet weft-proxy np-rr4-tcp-2-0-masq
add rule inet weft-proxy np-rr4-tcp-2-0-masq meta mark set meta mark | 0x4000
add rule inet weft-proxy np-rr4-tcp-2-0-masq dnat ip to tcp dport . numgen inc mod 2 map @endpoints-np-rr4-tcp-2-0-masq
",
        "\
add element inet weft-proxy endpoints-np-rr4-tcp-2-0-masq { 30080 . 0 : 10.244.1.2 . 80, 30080 . 1 : 10.244.2.2 . 80 }
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
add element inet weft-proxy endpoints-np-rr4-tcp-3-0-masq { 30080 . 0 : 10.244.1.2 . 80, 30080 . 1 : 10.244.1.3 . 80, 30080 . 2 counter packets 7 bytes 0 : 10.244.2.2 . 80 }
add element inet weft-proxy nodeports4 { 6 . 30080 : jump np-rr4-tcp-3-0-masq }
delete element inet weft-proxy endpoints-np-rr4-tcp-2-0-masq { 30080 . 1, 30080 . 0 }
",
        "\
delete chain inet weft-proxy np-rr4-tcp-2-0-masq
delete map inet weft-proxy endpoints-np-rr4-tcp-2-0-masq
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
delete element inet weft-proxy endpoints-np-rr4-tcp-2-0-masq { 30080 . 1 }
add element inet weft-proxy endpoints-np-rr4-tcp-2-0-masq { 30080 . 1 : 10.244.2.9 . 80 }
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
    let expected =
        ["weft-proxy-stand-in", "weft-proxy"].map(|name| format!("add table inet {name}\ndelete table inet {name}\n"));
    assert_eq!(bench.nft.take_scripts(), expected);
}
