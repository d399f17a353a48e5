//! The `etcd` lease manager against a real etcd.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod leases;
mod members;
mod outage;
mod races;
mod server;

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, GetOptions};
use tokio::sync::watch;
use weft_overlay::{LeaseAttributes, LeaseRequest, LeaseSnapshot, Mac, NetConf, SubnetSource, VtepData};

/// Where flannel's keys are.
const SUBNETS: &str = "/coreos.com/network/subnets/";

const NETWORK: &str = r#"{"Network":"10.5.0.0/16"}"#;
const DUAL_STACK: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd05::/48"}"#;

/// What node `number` asks for.
fn request(number: u8, net_conf: &str) -> LeaseRequest {
    let net_conf = NetConf::parse(net_conf, SubnetSource::Allocated).unwrap();
    let vtep = |kind| VtepData { vni: 1, mac: Mac([2, 0, 0, 0, kind, number]) };
    let dual = net_conf.ipv6.is_some();
    let attributes = LeaseAttributes {
        public_ip: Some([172, 30, 0, number].into()),
        public_ipv6: dual.then(|| format!("fd99::{number:x}").parse().unwrap()),
        backend_type: "vxlan".into(),
        backend_data: Some(vtep(4)),
        backend_v6_data: dual.then(|| vtep(6)),
    };
    LeaseRequest { node_name: format!("n{number}"), net_conf, attributes, preferred: None }
}

/// The keys below `subnets/`, with the values and the ids of their etcd leases.
async fn stored(operator: &mut Client) -> Vec<(String, String, i64)> {
    let found = operator.get(SUBNETS, Some(GetOptions::new().with_prefix())).await.unwrap();
    let entry = |kv: &etcd_client::KeyValue| {
        let key = kv.key_str().unwrap().strip_prefix(SUBNETS).unwrap().to_owned();
        (key, kv.value_str().unwrap().to_owned(), kv.lease())
    };
    found.kvs().iter().map(entry).collect()
}

async fn keys(operator: &mut Client) -> Vec<String> {
    stored(operator).await.into_iter().map(|(key, ..)| key).collect()
}

/// Waits for a snapshot.
async fn until(
    snapshots: &mut watch::Receiver<Option<Arc<LeaseSnapshot>>>,
    wanted: impl Fn(&LeaseSnapshot) -> bool,
) -> Arc<LeaseSnapshot> {
    let wait = snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&wanted));
    let found = tokio::time::timeout(Duration::from_secs(60), wait).await.map(|found| found.unwrap().clone().unwrap());
    found.unwrap_or_else(|_| panic!("never saw it; last: {:?}", snapshots.borrow()))
}
