//! Leases that are broken, odd, lost, or not to be had.

use std::fs;

use weft_overlay::PeerState;

use crate::{
    REPAIR,
    cluster::{Cluster, NETWORK, until},
    exchange::exchange,
    vtep, weft_cleanup,
};

#[test]
fn broken_and_odd_leases_do_not_disturb_the_others() {
    let cluster = Cluster::new();
    let nodes = [1, 2].map(|number| cluster.node(number, NETWORK));
    nodes.iter().for_each(|node| node.until_peers(1));
    let [first, second] = &nodes;
    let directory = cluster.leases().join("subnets");
    let lease = |ip: &str, vni: u32, mac: &str| {
        format!(
            r#"{{"PublicIP":"{ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":{vni},"VtepMAC":"{mac}"}}}}"#
        )
    };
    fs::write(directory.join("10.244.50.0-24"), lease("172.30.0.50", 2, "02:00:00:00:00:50")).unwrap();
    fs::write(directory.join("10.99.0.0-24"), lease("172.30.0.51", 1, "02:00:00:00:00:51")).unwrap();
    fs::write(directory.join("10.244.52.0-24"), r#"{"PublicIP":"#).unwrap();
    fs::write(directory.join("10.244.53.0-24"), lease("172.30.0.53", 1, "02:00:00:00:00:53")).unwrap();
    first.until_peers(2);

    // Its own file broken by somebody: written again. The other node's: its entries stay.
    fs::write(directory.join("10.244.1.0-24"), "").unwrap();
    until(REPAIR, || match fs::read_to_string(directory.join("10.244.1.0-24")) {
        Ok(text) if text.starts_with('{') => Ok(()),
        other => Err(format!("{other:?}")),
    });
    fs::write(directory.join("10.244.53.0-24"), "").unwrap();
    until(REPAIR, || match first.status() {
        status if status.rejected.len() == 2 => Ok(()),
        status => Err(format!("{status:?}")),
    });
    let status = first.status();
    let states: Vec<_> = status.peers.iter().map(|peer| (peer.subnet.as_str(), peer.state)).collect();
    assert_eq!(
        states,
        [
            ("10.99.0.0/24", PeerState::Failed),
            ("10.244.2.0/24", PeerState::Up),
            ("10.244.50.0/24", PeerState::Failed),
            ("10.244.53.0/24", PeerState::Up),
        ]
    );
    assert_eq!(status.peers[2].error.as_deref(), Some("uses VNI 2, this node 1"));
    assert!(status.ready, "peers do not count");
    assert_eq!(exchange(&first.netns, &second.netns, vtep(2)), Ok(vtep(1)));

    // Deleted, its own lease comes back with the same subnet.
    fs::remove_file(directory.join("10.244.1.0-24")).unwrap();
    until(REPAIR, || directory.join("10.244.1.0-24").exists().then_some(()).ok_or("no lease".into()));
    until(REPAIR, || exchange(&second.netns, &first.netns, vtep(1)));
}

#[test]
fn a_full_network_is_said_and_waited_for() {
    let cluster = Cluster::new();
    let small = r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.0","SubnetMax":"10.244.1.0"}"#;
    let mut first = cluster.node(1, small);
    let mut second = cluster.machine(2);
    second.start(small);
    until(REPAIR, || match second.status().error {
        Some(error) if error.contains("no free IPv4 subnet in 10.244.0.0/16") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!second.run("ip link show").contains("flannel"), "nothing is made without a lease");
    assert!(!second.subnet_file.exists());
    first.stop();
    weft_cleanup(&first);
    second.until_ready();
}
