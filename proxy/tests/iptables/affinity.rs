//! Session affinity (section 7).

use std::{thread, time::Duration};

use weft_proxy::{
    iptables::Iptables,
    model::{IpFamily, Protocol},
};

use crate::{
    BOTH,
    node::{ALL, Node, cluster_ip, node_port, pod, web},
    node_with,
};

#[test]
fn session_affinity_keeps_a_client_at_its_endpoint_across_frontends() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (protocol, family) in ALL {
            let mut plan = web(protocol, family, &[2, 3, 4]);
            plan.affinity = Some(Duration::from_secs(60));
            node.put(&plan);
            let first = node.ask(protocol, node_port(family)).unwrap().pod;
            for to in [node_port(family), cluster_ip(family), node_port(family)] {
                assert_eq!(node.ask(protocol, to).unwrap().pod, first, "7.1: {variant:?} {protocol} {family}");
            }
            let others: Vec<u8> = [2, 3, 4].into_iter().filter(|last| pod(family, *last) != first).collect();
            let mut fewer = web(protocol, family, &others);
            fewer.affinity = plan.affinity;
            node.put(&fewer);
            let second = node.ask(protocol, node_port(family)).unwrap().pod;
            assert_ne!(second, first, "7.5");
            assert_eq!(node.ask(protocol, node_port(family)).unwrap().pod, second);
        }
    }
}

#[test]
fn session_affinity_ends_with_its_timeout() {
    for variant in BOTH {
        let mut node = node_with(variant);
        let mut plan = web(Protocol::Tcp, IpFamily::V4, &[2, 3]);
        plan.affinity = Some(Duration::from_secs(1));
        node.put(&plan);
        let pod = |node: &Node<Iptables>| node.ask(Protocol::Tcp, node_port(IpFamily::V4)).unwrap().pod;
        let first = pod(&node);
        // The timeout is part of what is tested; asking meanwhile would prolong it.
        thread::sleep(Duration::from_millis(2100));
        assert_ne!(pod(&node), first, "{variant:?}");
    }
}
