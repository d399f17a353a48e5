//! The `kube` lease manager against the test API server, over loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod server;

use serde_json::json;
use weft_overlay::{
    KubeLeaseConfig, KubeLeases, LeaseHolder, LeaseManager, LeaseSnapshot, Mac, NetConf, NetworkState, SubnetSource,
};

use self::server::{Server, client, config, own_node, request, until};

#[tokio::test]
async fn annotations_are_flannels_and_written_only_when_something_differs() {
    let server = Server::start();
    // A Node without any annotation: flannel panics (flannel-defects.md C.3).
    server.apply("n1", own_node()).await;
    let node = server.leases();
    assert_eq!(node.own(&request()).await.unwrap(), None);
    let lease = node.acquire(&request()).await.unwrap();
    assert_eq!(lease.subnets.to_string(), "10.244.1.0-24&fd44:0:0:1::-64");
    assert_eq!(lease.attributes, request().attributes);

    // The measured annotations of flannel.md 5.1.
    let stored = server.get("n1").await;
    let annotations = json!({
        "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"22:6d:8f:ee:7c:b1"}"#,
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-v6-data": r#"{"VNI":1,"VtepMAC":"26:92:df:da:5c:03"}"#,
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": "10.99.0.2",
        "flannel.alpha.coreos.com/public-ipv6": "fd99::2",
    });
    assert_eq!(stored["metadata"]["annotations"], annotations);
    assert_eq!(stored["spec"], own_node()["spec"]);

    // Restarted: recognised, and nothing is written.
    assert_eq!(server.leases().own(&request()).await.unwrap(), Some(lease.clone()));
    server.leases().acquire(&request()).await.unwrap();
    assert_eq!(server.get("n1").await["metadata"]["resourceVersion"], stored["metadata"]["resourceVersion"]);

    // IPv6 is switched off: nobody is to send there any more. The pod CIDRs stay as they are.
    let mut single = request();
    single.net_conf = NetConf::parse(r#"{"Network":"10.244.0.0/16"}"#, SubnetSource::Assigned).unwrap();
    (single.attributes.public_ipv6, single.attributes.backend_v6_data) = (None, None);
    let only_v4 = node.acquire(&single).await.unwrap();
    assert_eq!(only_v4.subnets.to_string(), "10.244.1.0-24");
    assert_eq!(server.get("n1").await["metadata"]["annotations"].as_object().unwrap().len(), 4);
    let seen = until(&mut node.watch().await.unwrap(), |snapshot| snapshot.leases.len() == 1).await;
    assert_eq!(seen.leases, [only_v4], "others see what this node believes of itself");
    node.acquire(&request()).await.unwrap();
    assert_eq!(server.get("n1").await["metadata"]["annotations"], annotations);

    // The administrator's address goes out instead of the node's own.
    let mut marked = server.get("n1").await;
    marked["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip-overwrite"] = "198.51.100.7".into();
    server.apply("n1", marked).await;
    let lease = node.acquire(&request()).await.unwrap();
    assert_eq!(lease.attributes.public_ip, Some([198, 51, 100, 7].into()));
    let seen = until(&mut node.watch().await.unwrap(), |snapshot| snapshot.leases.len() == 1).await;
    assert_eq!(seen.leases, [lease]);

    node.release(&LeaseHolder::named("n1")).await.unwrap();
    node.release(&LeaseHolder::named("n1")).await.unwrap();
    let left = server.get("n1").await["metadata"]["annotations"].clone();
    assert_eq!(left, json!({"flannel.alpha.coreos.com/public-ip-overwrite": "198.51.100.7"}));
}

#[tokio::test]
async fn a_node_waits_for_its_pod_cidr() {
    let server = Server::start();
    let node = server.leases();
    let refusal = async || node.acquire(&request()).await.unwrap_err().to_string();
    assert_eq!(refusal().await, "there is no Node \"n1\"");
    server.apply("n1", json!({})).await;
    assert!(refusal().await.starts_with("Node \"n1\" has no pod CIDR"));
    server.apply("n1", json!({"spec": {"podCIDR": "192.168.1.0/24"}})).await;
    assert!(refusal().await.contains("192.168.1.0/24 of Node \"n1\" is outside the pod network 10.244.0.0/16"));
    // One family of two: that one, and nothing is said about the other.
    server.apply("n1", json!({"spec": {"podCIDR": "10.244.1.0/24"}})).await;
    let lease = node.acquire(&request()).await.unwrap();
    assert_eq!(lease.subnets.to_string(), "10.244.1.0-24");
    let annotations = server.get("n1").await["metadata"]["annotations"].clone();
    assert_eq!(annotations.as_object().unwrap().len(), 4, "{annotations}");
}

#[tokio::test]
async fn every_change_of_a_peer_is_seen() {
    let server = Server::start();
    let (data, data_v6) = (r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}"#, r#"{"VNI":1,"VtepMAC":"02:00:00:00:06:02"}"#);
    let all = |public_ip| {
        [
            ("backend-type", "vxlan"),
            ("backend-data", data),
            ("public-ip", public_ip),
            ("backend-v6-data", data_v6),
            ("public-ipv6", "fd99::2"),
        ]
    };
    server.peer(2, &all("10.99.0.2")).await;
    // No flannel and no Weft runs there.
    server.apply("other", json!({"spec": {"podCIDR": "10.244.9.0/24"}})).await;
    let mut snapshots = server.leases().watch().await.unwrap();
    let public_ip = |snapshot: &LeaseSnapshot| snapshot.leases.first().and_then(|lease| lease.attributes.public_ip);
    assert_eq!(snapshots.borrow().as_deref().map(|snapshot| snapshot.leases.len()), Some(1));

    // Of one family only (flannel-defects.md B.1).
    server.peer(2, &all("10.99.0.22")).await;
    until(&mut snapshots, |snapshot| public_ip(snapshot) == Some([10, 99, 0, 22].into())).await;
    // Broken: its last good value stays, and it is named.
    server.peer(2, &all("10.99.0.300")).await;
    let seen = until(&mut snapshots, |snapshot| !snapshot.rejected.is_empty()).await;
    assert_eq!(public_ip(&seen), Some([10, 99, 0, 22].into()));
    assert_eq!(seen.rejected[0].object, "n2");
    // One family is left (B.3).
    server.peer(2, &all("10.99.0.22")[..3]).await;
    let seen = until(&mut snapshots, |snapshot| snapshot.rejected.is_empty()).await;
    assert_eq!(seen.leases[0].subnets.to_string(), "10.244.2.0-24");
    assert_eq!(seen.leases[0].attributes.backend_data.unwrap().mac, Mac([2, 0, 0, 0, 0, 2]));
    // Another backend's payload is not looked at.
    server.peer(2, &[("backend-type", "host-gw"), ("backend-data", "null"), ("public-ip", "10.99.0.2")]).await;
    until(&mut snapshots, |snapshot| snapshot.leases[0].attributes.backend_type == "host-gw").await;
    server.delete("n2").await;
    until(&mut snapshots, |snapshot| *snapshot == LeaseSnapshot::default()).await;
}

#[tokio::test]
async fn a_recreated_node_is_announced_again() {
    // flannel-defects.md C.4: flannel never does.
    let server = Server::start();
    server.apply("n1", own_node()).await;
    let node = server.leases();
    node.acquire(&request()).await.unwrap();
    node.report_network("n1", &NetworkState::Up).await.unwrap();
    let mut snapshots = node.watch().await.unwrap();
    let before = server.get("n1").await;

    server.delete("n1").await;
    until(&mut snapshots, |snapshot| *snapshot == LeaseSnapshot::default()).await;
    assert!(node.acquire(&request()).await.is_err());
    server.apply("n1", own_node()).await;
    // No lease, but news: the reconciler need not wait for its next try.
    until(&mut snapshots, |snapshot| snapshot.rejected.iter().any(|rejected| rejected.object == "n1")).await;
    node.acquire(&request()).await.unwrap();
    until(&mut snapshots, |snapshot| snapshot.leases.len() == 1 && snapshot.rejected.is_empty()).await;
    let after = server.get("n1").await;
    assert_eq!(after["metadata"]["annotations"], before["metadata"]["annotations"]);
    assert_eq!(after["status"]["conditions"][0]["status"], "False", "the condition went with the Node");
}

#[tokio::test]
async fn the_condition_follows_the_network() {
    let server = Server::start();
    let mut node = own_node();
    node["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    server.apply("n1", node).await;
    let leases = server.leases();
    leases.report_network("n1", &NetworkState::Up).await.unwrap();
    let first = server.get("n1").await;
    let condition = &first["status"]["conditions"][1];
    assert_eq!(first["status"]["conditions"][0], json!({"type": "Ready", "status": "True"}));
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&"NetworkUnavailable".into(), &"False".into(), &"WeftIsUp".into())
    );
    assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'), "{condition}");
    // Said already: not again.
    server.leases().report_network("n1", &NetworkState::Up).await.unwrap();
    assert_eq!(server.get("n1").await["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let down = NetworkState::Down { reason: "no route to the underlay".into() };
    leases.report_network("n1", &down).await.unwrap();
    let condition = server.get("n1").await["status"]["conditions"][1].clone();
    assert_eq!((&condition["status"], &condition["message"]), (&"True".into(), &"no route to the underlay".into()));
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_no_peer_away() {
    let mut server = Server::start();
    server.apply("n1", own_node()).await;
    let directory = tempfile::tempdir().unwrap();
    let node = server.leases();
    node.acquire(&request()).await.unwrap();
    // More versions than the next server starts with, so that the watch cannot simply go on.
    for _ in 0..5 {
        server.peer(2, &[("backend-type", "host-gw"), ("backend-data", "null"), ("public-ip", "10.99.0.2")]).await;
    }
    let mut snapshots = node.watch().await.unwrap();
    assert_eq!(snapshots.borrow_and_update().as_ref().unwrap().leases.len(), 2);
    for name in ["n1", "n2"] {
        std::fs::write(directory.path().join(name), server.get(name).await.to_string()).unwrap();
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let error = node.acquire(&request()).await.unwrap_err().to_string();
    assert!(error.starts_with("read Node n1: "), "{error}");
    assert!(!snapshots.has_changed().unwrap());

    // Back, with history gone and another peer.
    let server = Server::at(&server.address.clone(), Some(directory.path().to_str().unwrap()));
    server.peer(3, &[("backend-type", "host-gw"), ("backend-data", "null"), ("public-ip", "10.99.0.3")]).await;
    // Every snapshot on the way has the two.
    let seen = until(&mut snapshots, |snapshot| {
        assert!(snapshot.leases.len() >= 2, "{snapshot:?}");
        snapshot.leases.len() == 3
    });
    seen.await;
    node.acquire(&request()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_starts_again_does_not_believe_that_its_peers_are_gone() {
    let host_gw = [("backend-type", "host-gw"), ("backend-data", "null"), ("public-ip", "10.99.0.2")];
    let directory = tempfile::tempdir().unwrap();
    let known_nodes = Some(directory.path().join("known-nodes"));
    let started = |server: &Server, trust_empty_lists| {
        let config = KubeLeaseConfig { known_nodes: known_nodes.clone(), trust_empty_lists, ..config() };
        KubeLeases::new(client(&server.address), config)
    };
    let server = Server::start();
    for number in 1..=6 {
        server.peer(number, &host_gw).await;
    }
    let first = started(&server, false).watch().await.unwrap().borrow().clone().unwrap();
    assert_eq!((first.leases.len(), &first.incomplete), (6, &None));

    // Another server, as after a restored backup; the agent starts again.
    let server = Server::start();
    server.peer(1, &host_gw).await;
    let mut snapshots = started(&server, false).watch().await.unwrap();
    let seen = snapshots.borrow().clone().unwrap();
    assert_eq!(seen.leases.len(), 1, "what is there is served");
    assert!(seen.incomplete.as_deref().is_some_and(|told| told.contains("lists 1 where there were 6")), "{seen:?}");
    // An operator knows better.
    let trusted = started(&server, true).watch().await.unwrap().borrow().clone().unwrap();
    assert_eq!((trusted.leases.len(), &trusted.incomplete), (1, &None));
    // Or the Nodes come back.
    for number in 2..=6 {
        server.peer(number, &host_gw).await;
    }
    let seen = until(&mut snapshots, |snapshot| snapshot.incomplete.is_none()).await;
    assert_eq!(seen.leases.len(), 6);
}
