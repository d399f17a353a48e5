//! etcd away, frozen, compacted: snapshots stay, then converge.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use etcd_client::DeleteOptions;
use tokio::sync::watch;
use weft_overlay::{EtcdLeases, LeaseError, LeaseManager, LeaseSnapshot};

use crate::{
    NETWORK, SUBNETS, request,
    server::{Etcd, Tls, in_netns},
    until,
};

type Snapshots = watch::Receiver<Option<Arc<LeaseSnapshot>>>;

/// Notes the fewest leases any snapshot had.
pub(crate) fn fewest(mut snapshots: Snapshots) -> Arc<AtomicUsize> {
    let fewest = Arc::new(AtomicUsize::new(usize::MAX));
    let noted = Arc::clone(&fewest);
    tokio::spawn(async move {
        loop {
            let now = snapshots.borrow_and_update().as_ref().unwrap().leases.len();
            noted.fetch_min(now, Ordering::Relaxed);
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    });
    fewest
}

async fn three_nodes(etcd: &Etcd) -> (EtcdLeases, Snapshots) {
    for number in 2..=3 {
        etcd.leases().acquire(&request(number, NETWORK)).await.unwrap();
    }
    let node = etcd.leases();
    node.acquire(&request(1, NETWORK)).await.unwrap();
    let mut snapshots = node.watch().await.unwrap();
    until(&mut snapshots, |snapshot| snapshot.leases.len() == 3).await;
    (node, snapshots)
}

#[test]
fn a_killed_etcd_takes_no_peer_away() {
    in_netns(async || {
        let mut etcd = Etcd::start(Tls::Off).await;
        let (node, mut snapshots) = three_nodes(&etcd).await;
        let fewest = fewest(snapshots.clone());
        etcd.kill();
        // It does not answer, for as long as anybody asks.
        let error = node.acquire(&request(1, NETWORK)).await.unwrap_err();
        assert!(error.to_string().contains("etcd"), "{error}");
        etcd.restart().await;
        // Everything works again by itself.
        node.acquire(&request(1, NETWORK)).await.unwrap();
        etcd.leases().acquire(&request(4, NETWORK)).await.unwrap();
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 4).await;
        assert_eq!(fewest.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn a_frozen_etcd_takes_no_peer_away() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let (node, mut snapshots) = three_nodes(&etcd).await;
        let fewest = fewest(snapshots.clone());
        etcd.signal("STOP");
        // Connections are accepted by the kernel and nothing ever comes back. This waits for two answers, long enough for
        // the watch to notice as well.
        let error = node.acquire(&request(1, NETWORK)).await.unwrap_err();
        assert!(matches!(error, LeaseError::NoAnswer { .. }), "{error}");
        etcd.signal("CONT");
        etcd.leases().acquire(&request(4, NETWORK)).await.unwrap();
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 4).await;
        assert_eq!(fewest.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn compaction_is_answered_with_a_new_list() {
    in_netns(async || {
        let mut etcd = Etcd::start(Tls::Off).await;
        let (_node, mut snapshots) = three_nodes(&etcd).await;
        let fewest = fewest(snapshots.clone());
        etcd.kill();
        etcd.restart().await;
        // What the watch would go on from is compacted before it can, most of the time; it must not matter.
        let mut operator = etcd.operator().await;
        let one = snapshots.borrow().as_ref().unwrap().leases[0].subnets.to_string();
        for number in 0..20 {
            operator
                .put(format!("{SUBNETS}10.5.250.0-24"), format!(r#"{{"PublicIP":"192.0.2.{number}"}}"#), None)
                .await
                .unwrap();
        }
        let gone = operator.delete(format!("{SUBNETS}{one}"), None::<DeleteOptions>).await.unwrap();
        let revision = gone.header().unwrap().revision();
        operator.compact(revision, None).await.unwrap();
        let seen = until(&mut snapshots, |snapshot| {
            snapshot.leases.iter().any(|lease| lease.attributes.public_ip == Some([192, 0, 2, 19].into()))
                && !snapshot.leases.iter().any(|lease| lease.subnets.to_string() == one)
        });
        assert_eq!(seen.await.leases.len(), 3);
        assert!(fewest.load(Ordering::Relaxed) >= 3);
    });
}

#[test]
fn a_broken_value_is_reported_and_nobody_vanishes() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let (_node, mut snapshots) = three_nodes(&etcd).await;
        let known = snapshots.borrow().as_ref().unwrap().leases[0].subnets.to_string();
        let mut operator = etcd.operator().await;
        for key in [known.as_str(), "10.5.77.0-24x", "10.5.0.0-24"] {
            operator.put(format!("{SUBNETS}{key}"), "{", None).await.unwrap();
        }
        let seen = until(&mut snapshots, |snapshot| snapshot.rejected.len() == 3).await;
        assert_eq!(seen.leases.len(), 3);
    });
}
