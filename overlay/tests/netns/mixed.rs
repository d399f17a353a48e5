//! Clusters whose nodes differ: in families, in backend options, in where they are.

use std::{net::IpAddr, time::Duration};

use weft_netlink::Netns;

use crate::{
    cluster::{Cluster, Node, until},
    exchange::exchange,
};

fn conf(v4: bool, v6: bool, direct: bool) -> String {
    format!(
        r#"{{"EnableIPv4":{v4},"Network":"10.244.0.0/16","EnableIPv6":{v6},"IPv6Network":"fd44::/48","Backend":{{"Type":"vxlan","DirectRouting":{direct}}}}}"#
    )
}

/// A node, and its pods by family.
struct Member {
    node: Node,
    pods: Vec<(IpAddr, Netns)>,
}

impl Member {
    fn start(cluster: &Cluster, number: u8, v4: bool, v6: bool, direct: bool) -> Self {
        let node = cluster.node(number, &conf(v4, v6, direct));
        let status = node.status();
        let subnets = [status.ipv4.subnet.clone(), status.ipv6.and_then(|v6| v6.subnet)];
        let first = |subnet: String| {
            let network: ipnetwork::IpNetwork = subnet.parse().unwrap();
            match network.network() {
                IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 5).into()),
                IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 6).into()),
            }
        };
        let pods = subnets.into_iter().flatten().map(first).map(|address| (address, node.pod(address))).collect();
        Self { node, pods }
    }
}

/// Every pod reaches every pod of its family, whatever its node is like; and nothing is cut in two on the way.
fn all_reach_all(members: &[Member]) -> usize {
    let mut pairs = 0;
    for from in members {
        for to in members.iter().filter(|to| to.node.number != from.node.number) {
            for (source, client) in &from.pods {
                for (target, server) in to.pods.iter().filter(|(target, _)| target.is_ipv4() == source.is_ipv4()) {
                    let what = format!("{source} on {} to {target} on {}", from.node.number, to.node.number);
                    until(Duration::from_secs(5), || {
                        exchange(client, server, *target).map_err(|error| format!("{what}: {error}"))
                    });
                    assert_eq!(exchange(client, server, *target), Ok(*source), "{what}");
                    pairs += 1;
                }
            }
        }
    }
    pairs
}

#[test]
fn five_nodes_of_five_kinds_reach_each_other() {
    let cluster = Cluster::routed();
    let mut members = vec![
        Member::start(&cluster, 1, true, true, false),
        Member::start(&cluster, 2, true, false, true),
        Member::start(&cluster, 3, false, true, false),
        // Behind the router.
        Member::start(&cluster, 11, true, true, true),
        Member::start(&cluster, 12, true, true, false),
    ];
    // Four of five have IPv4, four have IPv6.
    assert_eq!(all_reach_all(&members), 24);
    // One is killed, and comes back when another is gone.
    members[0].node.stop();
    let mut gone = members.remove(1);
    gone.node.stop();
    gone.node.release();
    drop(gone);
    members[0].node.start(&conf(true, true, false));
    members[0].node.until_ready();
    assert_eq!(all_reach_all(&members), 6 + 12);
    until(Duration::from_secs(5), || match members[0].node.run("bridge fdb show dev flannel.1") {
        fdb if fdb.contains("dst 172.30.0.2 ") => Err(fdb),
        _ => Ok(()),
    });
}
