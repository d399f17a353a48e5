//! What an agent finds that another one has left.

use std::sync::Arc;

use crate::{
    killed::{LeftBehind, is_agent},
    node::{NODE, cluster_ip, web},
    node_with, plane, suffix,
};
use weft_proxy::{
    dataplane::{Changed, DataPlane, Desired},
    iptables::Variant,
    model::{IpFamily, Protocol},
};

/// The agent of the next test.
#[test]
fn the_agent_that_is_killed() {
    if !is_agent() {
        return;
    }
    let plan = web(Protocol::Tcp, IpFamily::V4, &[2]);
    let desired = Desired {
        ports: [(plan.key.clone(), Arc::new(plan))].into(),
        node_port_addresses: NODE.map(|a| a.parse().unwrap()).into(),
    };
    let variant = Variant::Nft;
    plane(variant).apply(&desired, &Changed::Everything).unwrap();
}

#[test]
fn an_iptables_restore_that_outlives_its_agent_is_waited_for() {
    let variant = Variant::Nft;
    let mut node = node_with(variant);
    let program = format!("iptables-{}-restore", suffix(variant));
    let restore = LeftBehind::by("takeover::the_agent_that_is_killed", &program, &node.net.node);
    let plan = web(Protocol::Tcp, IpFamily::V4, &[3]);
    node.desired.ports.insert(plan.key.clone(), Arc::new(plan));
    restore.end_during(|| node.restart(plane(variant)));
    for _ in 0..4 {
        let pod = node.ask(Protocol::Tcp, cluster_ip(IpFamily::V4)).unwrap().pod;
        assert_eq!(pod.to_string(), "10.244.1.3");
    }
}
