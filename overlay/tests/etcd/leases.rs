//! One node: bytes, reservations, recognition, renewal.

use std::time::Duration;

use etcd_client::{LeaseTimeToLiveOptions, PutOptions};
use weft_overlay::{EtcdConfig, EtcdLeases, LeaseHolder, LeaseManager, Mac};

use crate::{
    DUAL_STACK, NETWORK, SUBNETS, keys, request,
    server::{Etcd, Tls, in_netns},
    stored, until,
};

#[test]
fn keys_values_and_lifetimes_are_flannels() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        // The measured keys and values of flannel.md 5.2.
        let mut single = request(3, NETWORK);
        single.attributes.public_ip = Some([10, 99, 0, 3].into());
        single.attributes.backend_data.as_mut().unwrap().mac = "6a:54:3d:a5:9b:82".parse().unwrap();
        single.preferred = Some("10.5.34.0-24".parse().unwrap());
        let mut dual = request(4, DUAL_STACK);
        dual.preferred = Some("10.5.100.0-24&fd05:0:0:28::-64".parse().unwrap());
        etcd.leases().acquire(&single).await.unwrap();
        let lease = etcd.leases().acquire(&dual).await.unwrap();
        assert_eq!(lease.attributes, dual.attributes);

        let stored = stored(&mut operator).await;
        let want = [
            (
                "10.5.100.0-24&fd05:0:0:28::-64",
                r#"{"PublicIP":"172.30.0.4","PublicIPv6":"fd99::4","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:04:04"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:06:04"}}"#,
            ),
            (
                "10.5.34.0-24",
                r#"{"PublicIP":"10.99.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"6a:54:3d:a5:9b:82"}}"#,
            ),
        ];
        for ((key, value, lease), (want_key, want_value)) in stored.iter().zip(want) {
            assert_eq!((key.as_str(), value.as_str()), (want_key, want_value));
            let time = operator.lease_time_to_live(*lease, None::<LeaseTimeToLiveOptions>).await.unwrap();
            assert_eq!(time.granted_ttl(), 86_400);
        }
        assert_eq!(stored.len(), 2);
    });
}

#[test]
fn a_reservation_stays_a_reservation() {
    // flannel-defects.md C.2: flannel turns it into a lease of 24 hours.
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        operator.put(format!("{SUBNETS}10.5.9.0-24"), r#"{"PublicIP":"172.30.0.1"}"#, None).await.unwrap();
        operator.put(format!("{SUBNETS}10.5.1.0-24"), r#"{"PublicIP":"192.0.2.1"}"#, None).await.unwrap();
        let node = etcd.leases();
        let small = r#"{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.0"}"#;
        let lease = node.acquire(&request(1, small)).await.unwrap();
        assert_eq!(lease.subnets.to_string(), "10.5.9.0-24");
        // Again, after a restart, and with news to publish.
        let mut news = request(1, small);
        news.attributes.backend_data.as_mut().unwrap().mac = Mac([2, 0, 0, 0, 0, 9]);
        etcd.leases().acquire(&news).await.unwrap();
        // Seven others take what is left; nobody takes what is reserved.
        for number in 2..9 {
            etcd.leases().acquire(&request(number, small)).await.unwrap();
        }
        let error = etcd.leases().acquire(&request(9, small)).await.unwrap_err().to_string();
        assert_eq!(error, "no free IPv4 subnet in 10.5.0.0/16: all 9 leases of /24 are taken");

        let stored = stored(&mut operator).await;
        let reserved: Vec<_> = stored.iter().filter(|(.., lease)| *lease == 0).collect();
        assert_eq!(reserved.len(), 2, "{stored:?}");
        assert_eq!((reserved[0].0.as_str(), reserved[0].1.as_str()), ("10.5.1.0-24", r#"{"PublicIP":"192.0.2.1"}"#));
        assert_eq!(reserved[1].0, "10.5.9.0-24");
        assert!(reserved[1].1.contains("02:00:00:00:00:09"), "{reserved:?}");
    });
}

#[test]
fn a_node_finds_its_lease_again() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        let first = request(1, NETWORK);
        let lease = etcd.leases().acquire(&first).await.unwrap();
        etcd.leases().acquire(&request(2, NETWORK)).await.unwrap();

        // Restarted: by address. With a new address: by the MAC. While running: by what it wrote, whatever changes.
        assert_eq!(etcd.leases().own(&first).await.unwrap().as_ref(), Some(&lease));
        let mut moved = first.clone();
        moved.attributes.public_ip = Some([172, 30, 7, 7].into());
        let node = etcd.leases();
        assert_eq!(node.acquire(&moved).await.unwrap().subnets, lease.subnets);
        moved.attributes.public_ip = Some([172, 30, 7, 8].into());
        moved.attributes.backend_data.as_mut().unwrap().mac = Mac([2, 0, 0, 0, 7, 8]);
        assert_eq!(node.acquire(&moved).await.unwrap().subnets, lease.subnets);
        assert_eq!(stored(&mut operator).await.len(), 2);

        // Enabling IPv6 keeps the IPv4 subnet, and exchanges the key in one step (flannel-defects.md B.4).
        moved.net_conf = request(1, DUAL_STACK).net_conf;
        let dual = node.acquire(&moved).await.unwrap();
        assert!(dual.subnets.to_string().starts_with(&format!("{}&", lease.subnets)), "{dual:?}");
        // A network it does not fit: another.
        moved.net_conf = request(1, r#"{"Network":"10.6.0.0/16"}"#).net_conf;
        assert!(node.acquire(&moved).await.unwrap().subnets.to_string().starts_with("10.6."));
        assert_eq!(keys(&mut operator).await.len(), 2);

        node.release(&LeaseHolder::named("n1")).await.unwrap();
        node.release(&LeaseHolder::named("n1")).await.unwrap();
        assert_eq!(keys(&mut operator).await.len(), 1);
    });
}

#[test]
fn what_does_not_fit_and_is_reserved_is_left_alone() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        operator.put(format!("{SUBNETS}10.5.3.0-24"), r#"{"PublicIP":"172.30.0.1"}"#, None).await.unwrap();
        let lease = etcd.leases().acquire(&request(1, DUAL_STACK)).await.unwrap();
        // The reserved IPv4 subnet, on a key of its own because it has an IPv6 one beside it now.
        assert!(lease.subnets.to_string().starts_with("10.5.3.0-24&fd05:"), "{lease:?}");
        assert_eq!(keys(&mut operator).await, ["10.5.3.0-24".to_owned(), lease.subnets.to_string()]);
    });
}

#[test]
fn leases_are_renewed_with_new_ones() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        // Due after a tenth of a second, not after 23 hours.
        let renew_margin = EtcdConfig::LEASE_TTL - Duration::from_millis(100);
        let node = EtcdLeases::new(EtcdConfig { renew_margin, ..etcd.config() });
        node.acquire(&request(1, NETWORK)).await.unwrap();
        let before = stored(&mut operator).await;
        let mut snapshots = node.watch().await.unwrap();
        until_renewed(&mut operator, before[0].2).await;
        let after = stored(&mut operator).await;
        assert_eq!((&after[0].0, &after[0].1), (&before[0].0, &before[0].1));
        // flannel leaves the old one to its end, and so does Weft: revoking it could take the key along.
        let old = operator.lease_time_to_live(before[0].2, None).await.unwrap();
        assert!(old.ttl() > 0);
        assert!(!snapshots.has_changed().unwrap(), "a renewal is no news");

        // Revoked (flannel-defects.md C.5): seen, and taken again.
        let grant = operator.lease_grant(60, None).await.unwrap().id();
        let key = format!("{SUBNETS}{}", after[0].0);
        operator
            .put(key.as_str(), r#"{"PublicIP":"172.30.0.1"}"#, Some(PutOptions::new().with_lease(grant)))
            .await
            .unwrap();
        operator.lease_revoke(grant).await.unwrap();
        until(&mut snapshots, |snapshot| snapshot.leases.is_empty()).await;
        let mut again = request(1, NETWORK);
        again.preferred = Some(after[0].0.parse().unwrap());
        node.acquire(&again).await.unwrap();
        until(&mut snapshots, |snapshot| snapshot.leases.len() == 1).await;
        assert_eq!(keys(&mut operator).await, [after[0].0.clone()]);
    });
}

async fn until_renewed(operator: &mut etcd_client::Client, old: i64) {
    let renewed = async {
        while stored(operator).await[0].2 == old {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.unwrap();
}

#[test]
fn cleanup_by_another_process_removes_key_and_lease() {
    in_netns(async || {
        let etcd = Etcd::start(Tls::Off).await;
        let mut operator = etcd.operator().await;
        let leases = [1, 2, 3].map(|number| request(number, NETWORK));
        let mut held = Vec::new();
        for request in &leases {
            held.push(etcd.leases().acquire(request).await.unwrap());
        }
        operator.put(format!("{SUBNETS}10.5.9.0-24"), r#"{"PublicIP":"172.30.0.1"}"#, None).await.unwrap();
        // Neither name nor address alone say whose a lease is.
        let mut holder = LeaseHolder { addresses: vec!["172.30.0.1".parse().unwrap()], ..LeaseHolder::named("n1") };
        etcd.leases().release(&holder).await.unwrap();
        assert_eq!(keys(&mut operator).await.len(), 4);

        // By the MAC of the VTEP; by subnet and address, for a backend without.
        let before = stored(&mut operator).await;
        holder.macs = vec![leases[0].attributes.backend_data.unwrap().mac];
        etcd.leases().release(&holder).await.unwrap();
        let second = LeaseHolder {
            subnets: Some(held[1].subnets),
            addresses: vec!["172.30.0.2".parse().unwrap()],
            ..LeaseHolder::named("n2")
        };
        etcd.leases().release(&second).await.unwrap();
        etcd.leases().release(&second).await.unwrap();
        let mut left = [held[2].subnets.to_string(), "10.5.9.0-24".to_owned()];
        left.sort();
        assert_eq!(keys(&mut operator).await, left);
        for lease in &held[..2] {
            let (_, _, id) = before.iter().find(|(key, ..)| *key == lease.subnets.to_string()).unwrap();
            let gone = operator.lease_time_to_live(*id, None::<LeaseTimeToLiveOptions>).await.unwrap();
            assert_eq!(gone.ttl(), -1, "etcd's lease of {} is revoked", lease.subnets);
        }
    });
}
