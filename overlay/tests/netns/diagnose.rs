//! What `weft doctor` asks about the paths to peers, where they are well and where they are not.

use std::net::IpAddr;

use weft_overlay::diagnose::{ChecksumVerdict, MtuVerdict, PathKind, paths, probe_checksums, probe_mtu};

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, Node, run, until},
    exchange::exchange,
    vtep, vtep_v6,
};

/// The verdicts on every path to the first peer, by kind and family.
fn mtu(node: &Node) -> Vec<(PathKind, IpAddr, MtuVerdict)> {
    let status = node.status();
    let probe = || {
        paths(&status, &status.peers[0])
            .into_iter()
            .map(|path| (path.kind, path.target, probe_mtu(path.target, path.packet).unwrap()))
    };
    node.netns.run(|| probe().collect()).unwrap()
}

#[test]
fn paths_that_are_too_narrow_are_found_and_measured() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, DUAL_STACK));
    until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, vtep(2)));
    until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, vtep_v6(2)));
    let well =
        |found: &[(PathKind, IpAddr, MtuVerdict)]| found.iter().all(|(.., verdict)| *verdict == MtuVerdict::Passes);
    let found = mtu(&nodes[0]);
    assert!(found.len() == 3 && well(&found), "{found:?}");

    // A switch that drops larger frames without a word: the black hole nobody finds.
    run(cluster.underlay(), "nft add table bridge switch");
    run(cluster.underlay(), "nft add chain bridge switch ports { type filter hook forward priority 0; }");
    run(cluster.underlay(), "nft add rule bridge switch ports ip length > 1400 drop");
    run(cluster.underlay(), "nft add rule bridge switch ports ip6 length > 1360 drop");
    let found = mtu(&nodes[0]);
    assert_eq!(found[0], (PathKind::Underlay, "172.30.0.2".parse().unwrap(), MtuVerdict::Smaller { largest: 1400 }));
    assert_eq!(found[1], (PathKind::Overlay, vtep(2), MtuVerdict::Smaller { largest: 1350 }));
    assert_eq!(found[2], (PathKind::Overlay, vtep_v6(2), MtuVerdict::Smaller { largest: 1330 }));

    run(cluster.underlay(), "nft delete table bridge switch");
    nodes[1].run("ip link set eth0 down");
    let found = mtu(&nodes[0]);
    assert!(found.iter().all(|(.., verdict)| *verdict == MtuVerdict::NoAnswer), "{found:?}");
}

#[test]
fn spoilt_checksums_are_told_from_a_path_that_is_down() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, DUAL_STACK));
    let verdict = |target| nodes[0].netns.run(|| probe_checksums(target).unwrap()).unwrap();
    for (protocol, target) in [("ip", vtep(2)), ("ip6", vtep_v6(2))] {
        until(REPAIR, || exchange(&nodes[0].netns, &nodes[1].netns, target));
        assert_eq!(verdict(target), ChecksumVerdict::Right);
        // Stands for a network card that spoils the checksums left to it: the peer's kernel never sees those packets.
        nodes[1].run("nft add table inet card");
        nodes[1].run("nft add chain inet card in { type filter hook prerouting priority -400; }");
        nodes[1].run(&format!("nft add rule inet card in {protocol} daddr {target} udp length 41 drop"));
        assert_eq!(verdict(target), ChecksumVerdict::Broken);
        nodes[1].run(&format!("nft add rule inet card in {protocol} daddr {target} drop"));
        assert_eq!(verdict(target), ChecksumVerdict::NoAnswer);
        nodes[1].run("nft delete table inet card");
    }
}
