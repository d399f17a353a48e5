//! What an agent finds that another one has left.

use std::sync::Arc;

use crate::{
    killed::{LeftBehind, is_agent},
    node::{NODE, Node, vip, web},
    support::assert_no_connection_fails,
};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol},
    nftables::{Nftables, PacketScope},
    plan::{Frontend, PacketSettings, ServicePortPlan},
};

fn at_vip(pods: &[u8]) -> ServicePortPlan {
    let mut plan = web(Protocol::Tcp, IpFamily::V4, pods);
    plan.frontends = vec![Frontend::ClusterIp(vip(IpFamily::V4))];
    plan
}

#[test]
fn a_table_of_another_layout_is_exchanged_without_a_failed_connection() {
    let mut node = Node::new(PacketScope::All);
    node.put(&at_vip(&[2, 3, 4]));
    let client = Arc::clone(&node.net.client);
    let mut bits = [15, 14].into_iter().cycle();
    assert_no_connection_fails(&client, vip(IpFamily::V4), || {
        let masquerade_bit = bits.next().unwrap();
        node.plane = Nftables::new(PacketScope::All, PacketSettings { masquerade_bit, ..PacketSettings::default() });
        node.apply(&Changed::Everything);
    });
    assert_eq!(node.net.nft("list tables"), "table inet weft-proxy\n");
}

/// The agent of the next test.
#[test]
fn the_agent_that_is_killed() {
    if !is_agent() {
        return;
    }
    let plan = at_vip(&[2]);
    let desired = Desired {
        ports: [(plan.key.clone(), Arc::new(plan))].into(),
        node_port_addresses: NODE.map(|a| a.parse().unwrap()).into(),
    };
    Nftables::new(PacketScope::All, PacketSettings::default()).apply(&desired, &Changed::Everything).unwrap();
}

#[test]
fn an_nft_that_outlives_its_agent_is_waited_for() {
    let mut node = Node::new(PacketScope::All);
    let plan = at_vip(&[3]);
    node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
    // So that there is a table to make.
    node.net.nft("flush ruleset");
    let nft = LeftBehind::by("takeover::the_agent_that_is_killed", "nft", &node.net.node);
    node.plane = Nftables::new(PacketScope::All, PacketSettings::default());
    nft.end_during(|| node.apply(&Changed::Everything));
    let pod = node.ask(Protocol::Tcp, vip(IpFamily::V4)).expect("the table is the one made last").pod;
    assert_eq!(pod.to_string(), "10.244.1.3");
}
