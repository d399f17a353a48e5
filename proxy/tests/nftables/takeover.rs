//! What an agent finds that another one has left.

use std::sync::Arc;

use crate::{
    killed::{LeftBehind, is_agent},
    node::{NODE, cluster_ip, web},
    node_with, plane,
    support::assert_no_connection_fails,
};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    model::{IpFamily, Protocol},
    nftables::{Nftables, PacketScope},
    plan::{PacketSettings, ServicePortPlan},
};

fn web4(pods: &[u8]) -> ServicePortPlan {
    web(Protocol::Tcp, IpFamily::V4, pods)
}

#[test]
fn a_table_of_another_layout_is_exchanged_without_a_failed_connection() {
    let mut node = node_with(PacketScope::All);
    node.put(&web4(&[2, 3, 4]));
    let client = Arc::clone(&node.net.client);
    let mut bits = [15, 14].into_iter().cycle();
    assert_no_connection_fails(&client, cluster_ip(IpFamily::V4), || {
        let masquerade_bit = bits.next().unwrap();
        let settings = PacketSettings { masquerade_bit, ..PacketSettings::default() };
        node.restart(Nftables::new(PacketScope::All, settings));
    });
    assert_eq!(node.net.nft("list tables"), "table inet weft-proxy\n");
}

/// The agent of the next test.
#[test]
fn the_agent_that_is_killed() {
    if !is_agent() {
        return;
    }
    let plan = web4(&[2]);
    let desired = Desired {
        ports: [(plan.key.clone(), Arc::new(plan))].into(),
        node_port_addresses: NODE.map(|a| a.parse().unwrap()).into(),
    };
    plane(PacketScope::All).apply(&desired, &Changed::Everything).unwrap();
}

#[test]
fn an_nft_that_outlives_its_agent_is_waited_for() {
    let mut node = node_with(PacketScope::All);
    let plan = web4(&[3]);
    node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
    // So that there is a table to make.
    node.net.nft("flush ruleset");
    let nft = LeftBehind::by("takeover::the_agent_that_is_killed", "nft", &node.net.node);
    nft.end_during(|| node.restart(plane(PacketScope::All)));
    let pod = node.ask(Protocol::Tcp, cluster_ip(IpFamily::V4)).expect("the table is the one made last").pod;
    assert_eq!(pod.to_string(), "10.244.1.3");
}
