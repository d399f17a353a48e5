//! Nodes that choose at the same moment (flannel-defects.md C.1: there the loser exits).

use std::collections::BTreeSet;

use etcd_client::{Client, DeleteOptions};
use futures::future::join_all;
use ipnetwork::IpNetwork;
use weft_overlay::{EtcdLeases, LeaseManager};

use crate::{
    SUBNETS, keys, request,
    server::{Etcd, Tls, in_netns},
};

const RACES: usize = 50;

/// Runs `RACES` races of `nodes` for `free` subnets of the /21 with its seven.
async fn race(etcd: &Etcd, nodes: u8, free: usize, net_conf: &str) {
    let mut operator = etcd.operator().await;
    let agents: Vec<EtcdLeases> = (0..nodes).map(|_| etcd.leases()).collect();
    for round in 0..RACES {
        clear(&mut operator).await;
        for taken in 1..=(7 - free) {
            operator.put(format!("{SUBNETS}10.5.{taken}.0-24"), r#"{"PublicIP":"192.0.2.1"}"#, None).await.unwrap();
        }
        let requests: Vec<_> = (1..=nodes).map(|number| request(number, net_conf)).collect();
        let results = join_all(agents.iter().zip(&requests).map(|(agent, request)| agent.acquire(request))).await;

        let won: Vec<_> = results.iter().flatten().map(|lease| lease.subnets).collect();
        assert_eq!(won.len(), free.min(nodes.into()), "round {round}: {results:?}");
        let v4: BTreeSet<IpNetwork> = won.iter().flat_map(|subnets| subnets.iter()).collect();
        assert_eq!(v4.len(), won.iter().map(|subnets| subnets.iter().count()).sum::<usize>(), "overlap: {won:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.to_string(), "no free IPv4 subnet in 10.5.0.0/21: all 7 leases of /24 are taken");
        }
        assert_eq!(keys(&mut operator).await.len(), 7 - free + won.len());
    }
}

async fn clear(operator: &mut Client) {
    operator.delete(SUBNETS, Some(DeleteOptions::new().with_prefix())).await.unwrap();
}

const SINGLE: &str = r#"{"Network":"10.5.0.0/21"}"#;
const DUAL: &str = r#"{"Network":"10.5.0.0/21","EnableIPv6":true,"IPv6Network":"fd05::/61"}"#;

#[test]
fn two_nodes_always_end_with_distinct_subnets() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        race(&etcd, 2, 2, SINGLE).await;
        race(&etcd, 2, 1, SINGLE).await;
    });
}

#[test]
fn five_nodes_always_end_with_distinct_subnets() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        race(&etcd, 5, 5, SINGLE).await;
        race(&etcd, 5, 3, SINGLE).await;
    });
}

#[test]
fn dual_stack_nodes_share_neither_family() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        race(&etcd, 5, 5, DUAL).await;
    });
}

#[test]
fn races_over_tls_end_the_same() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Both).await;
        race(&etcd, 5, 4, SINGLE).await;
    });
}
