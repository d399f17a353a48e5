use std::{fs, thread, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::{
    lease::{LeaseAttributes, VtepData},
    netconf::{NetConf, SubnetSource},
};

fn conf(text: &str) -> NetConf {
    NetConf::parse(text, SubnetSource::Allocated).unwrap()
}

fn request(node: &str, host: u8, net_conf: &str) -> LeaseRequest {
    LeaseRequest {
        node_name: node.into(),
        net_conf: conf(net_conf),
        attributes: LeaseAttributes {
            public_ip: Some([172, 30, 0, host].into()),
            public_ipv6: None,
            backend_type: "vxlan".into(),
            backend_data: Some(VtepData { vni: 1, mac: crate::lease::Mac([2, 0, 0, 0, 0, host]) }),
            backend_v6_data: None,
        },
        preferred: None,
    }
}

const NETWORK: &str = r#"{"Network":"10.5.0.0/16"}"#;

fn key(directory: &TempDir, request: &LeaseRequest) -> Result<String, LeaseError> {
    let store = Store::new(directory.path().join("leases"));
    acquire(&store, request).map(|lease| lease.subnets.to_string())
}

fn files(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory.path().join("leases/subnets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_node_gets_its_subnet_back_by_name() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(key(&directory, &request("a", 1, NETWORK)).unwrap(), "10.5.1.0-24");
    assert_eq!(key(&directory, &request("b", 2, NETWORK)).unwrap(), "10.5.2.0-24");
    // Even with another address, which is published.
    assert_eq!(key(&directory, &request("a", 9, NETWORK)).unwrap(), "10.5.1.0-24");
    let text = fs::read_to_string(directory.path().join("leases/subnets/10.5.1.0-24")).unwrap();
    assert!(text.starts_with(r#"{"PublicIP":"172.30.0.9","PublicIPv6":null,"#), "{text}");
    assert_eq!(files(&directory), ["10.5.1.0-24", "10.5.2.0-24"]);
}

#[test]
fn a_lease_without_a_name_is_found_by_address() {
    let directory = tempfile::tempdir().unwrap();
    let subnets = directory.path().join("leases/subnets");
    fs::create_dir_all(&subnets).unwrap();
    let value = request("x", 1, NETWORK).attributes.to_json();
    fs::write(subnets.join("10.5.77.0-24"), value).unwrap();
    assert_eq!(key(&directory, &request("a", 1, NETWORK)).unwrap(), "10.5.77.0-24");
    // It belongs to a now: another node with the same address takes a new one.
    assert_eq!(key(&directory, &request("b", 1, NETWORK)).unwrap(), "10.5.1.0-24");
}

#[test]
fn preferred_subnets_are_taken_if_free_and_fitting() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = request("a", 1, NETWORK);
    a.preferred = Some("10.5.9.0-24".parse().unwrap());
    assert_eq!(key(&directory, &a).unwrap(), "10.5.9.0-24");
    let mut b = request("b", 2, NETWORK);
    b.preferred = Some("10.5.9.0-24".parse().unwrap());
    assert_eq!(key(&directory, &b).unwrap(), "10.5.1.0-24", "taken");
    let mut c = request("c", 3, NETWORK);
    c.preferred = Some("10.5.9.0-25".parse().unwrap());
    assert_eq!(key(&directory, &c).unwrap(), "10.5.2.0-24", "other length");
}

#[test]
fn a_lease_that_no_longer_fits_is_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    key(&directory, &request("a", 1, NETWORK)).unwrap();
    let shorter = r#"{"Network":"10.5.0.0/16","SubnetLen":26}"#;
    assert_eq!(key(&directory, &request("a", 1, shorter)).unwrap(), "10.5.0.64-26");
    assert_eq!(files(&directory), ["10.5.0.64-26"]);
}

#[test]
fn enabling_ipv6_keeps_the_ipv4_subnet() {
    let directory = tempfile::tempdir().unwrap();
    key(&directory, &request("a", 1, NETWORK)).unwrap();
    key(&directory, &request("b", 2, NETWORK)).unwrap();
    let dual = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd05::/48"}"#;
    let want = "10.5.2.0-24&fd05:0:0:1::-64";
    assert_eq!(key(&directory, &request("b", 2, dual)).unwrap(), want);
    assert_eq!(files(&directory), ["10.5.1.0-24", want]);
}

#[test]
fn a_node_that_was_given_up_does_not_take_its_subnet_back() {
    let directory = tempfile::tempdir().unwrap();
    key(&directory, &request("a", 1, NETWORK)).unwrap();
    fs::remove_file(directory.path().join("leases/subnets/10.5.1.0-24")).unwrap();
    assert_eq!(key(&directory, &request("b", 2, NETWORK)).unwrap(), "10.5.1.0-24");
    assert_eq!(key(&directory, &request("a", 1, NETWORK)).unwrap(), "10.5.2.0-24");
    assert_eq!(files(&directory), ["10.5.1.0-24", "10.5.2.0-24"]);
}

#[test]
fn names_that_are_paths_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["", ".a", "../a", "a/b"] {
        let error = key(&directory, &request(name, 1, NETWORK)).unwrap_err();
        assert!(matches!(error, LeaseError::NodeName { .. }), "{error}");
    }
    assert!(!directory.path().join("leases").exists());
}

#[test]
fn racing_nodes_get_distinct_subnets_or_a_clear_error() {
    // 50 races of 8 nodes for 3 subnets, each node with its own file handles, as separate processes would have.
    let small = r#"{"Network":"10.5.0.0/22"}"#;
    for _ in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let results: Vec<_> = thread::scope(|scope| {
            let nodes: Vec<_> = (0..8)
                .map(|n| {
                    let directory = &directory;
                    scope.spawn(move || key(directory, &request(&format!("n{n}"), n, small)))
                })
                .collect();
            nodes.into_iter().map(|node| node.join().unwrap()).collect()
        });
        let mut won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        won.sort();
        assert_eq!(won, ["10.5.1.0-24", "10.5.2.0-24", "10.5.3.0-24"]);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.to_string(), "no free IPv4 subnet in 10.5.0.0/22: all 3 leases of /24 are taken");
        }
    }
}

async fn until(
    receiver: &mut channel::Receiver<Option<Arc<LeaseSnapshot>>>,
    wanted: impl Fn(&LeaseSnapshot) -> bool,
) -> Arc<LeaseSnapshot> {
    let found = tokio::time::timeout(
        Duration::from_secs(5),
        receiver.wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted)),
    )
    .await
    .map(|snapshot| snapshot.unwrap().clone().unwrap());
    found.unwrap_or_else(|_| panic!("never saw it; last: {:?}", receiver.borrow()))
}

#[tokio::test]
async fn every_change_becomes_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let manager = DirLeases::new(directory.path());
    let mut snapshots = manager.watch().await.unwrap();
    assert_eq!(snapshots.borrow().as_deref(), Some(&LeaseSnapshot::default()));

    let a = request("a", 1, NETWORK);
    let lease = manager.acquire(&a).await.unwrap();
    let seen = until(&mut snapshots, |snapshot| snapshot.leases.len() == 1).await;
    assert_eq!(seen.leases, std::slice::from_ref(&lease));
    assert_eq!(manager.own(&a).await.unwrap(), Some(lease));

    manager.release(&LeaseHolder::named("a")).await.unwrap();
    manager.release(&LeaseHolder::named("a")).await.unwrap();
    until(&mut snapshots, |snapshot| snapshot.leases.is_empty()).await;
    assert_eq!(manager.own(&a).await.unwrap(), None);
}

#[tokio::test]
async fn a_broken_file_is_reported_and_nobody_vanishes() {
    let directory = tempfile::tempdir().unwrap();
    let manager = DirLeases::new(directory.path());
    let lease = manager.acquire(&request("a", 1, NETWORK)).await.unwrap();
    let mut snapshots = manager.watch().await.unwrap();

    // Known before: its last value stays. Never known: its subnets are named, so that entries for them are left alone.
    let subnets = directory.path().join("subnets");
    fs::write(subnets.join("10.5.1.0-24"), r#"{"PublicIP":"17"#).unwrap();
    fs::write(subnets.join("10.5.2.0-24"), "").unwrap();
    fs::write(subnets.join("README"), "hello").unwrap();
    let seen = until(&mut snapshots, |snapshot| snapshot.rejected.len() == 3).await;
    assert_eq!(seen.leases, [lease]);
    let unknown: Vec<_> = seen.rejected.iter().map(|r| (r.object.as_str(), r.subnets)).collect();
    let second = Some("10.5.2.0-24".parse().unwrap());
    assert_eq!(unknown, [("10.5.1.0-24", None), ("10.5.2.0-24", second), ("README", None)]);

    // Its subnet is taken all the same.
    let b = manager.acquire(&request("b", 2, NETWORK)).await.unwrap();
    assert_eq!(b.subnets.to_string(), "10.5.3.0-24");
    until(&mut snapshots, |snapshot| snapshot.leases.len() == 2).await;

    // A directory that is gone is no view; one that is back is.
    fs::rename(&subnets, directory.path().join("away")).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(snapshots.borrow_and_update().as_ref().unwrap().leases.len(), 2);
    fs::create_dir(&subnets).unwrap();
    until(&mut snapshots, |snapshot| snapshot.leases.is_empty()).await;
}
