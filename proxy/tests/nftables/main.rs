//! The nftables data plane in a real kernel: a client outside, a node, pods, and real connections.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod balance;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/killed.rs"]
mod killed;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/node.rs"]
mod node;
mod rules;
mod scale;
mod sctp;
#[expect(unreachable_pub, reason = "a module of this test binary, whose items nothing else could reach anyway")]
#[path = "../support/mod.rs"]
mod support;
mod takeover;

use node::{NODE_PORT, Node};
use weft_proxy::{
    dataplane::DataPlane,
    model::{IpFamily, Protocol},
    nftables::{Nftables, PacketScope},
    plan::{Frontend, PacketSettings, ServicePortPlan},
};

const EXTERNAL: PacketScope = PacketScope::External { second_line: false };

fn plane(scope: PacketScope) -> Nftables {
    Nftables::new(scope, PacketSettings::default())
}

fn node_with(scope: PacketScope) -> Node<Nftables> {
    Node::new(plane(scope))
}

impl Node<Nftables> {
    /// Does some of what may wait; false: there was nothing.
    fn catch_up(&mut self) -> bool {
        let Self { net, plane, desired } = self;
        net.node.run(|| plane.catch_up(desired).unwrap()).unwrap()
    }
}

/// `default/web` on NodePort 30080 alone.
fn web(protocol: Protocol, family: IpFamily, pods: &[u8]) -> ServicePortPlan {
    let mut plan = node::web(protocol, family, pods);
    plan.frontends = vec![Frontend::NodePort(NODE_PORT)];
    plan
}
