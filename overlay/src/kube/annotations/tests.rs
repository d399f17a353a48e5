use super::*;
use crate::netconf::SubnetSource;

/// The measured annotations of flannel.md 5.1.
const MEASURED: &[(&str, &str)] = &[
    ("flannel.alpha.coreos.com/backend-data", r#"{"VNI":1,"VtepMAC":"22:6d:8f:ee:7c:b1"}"#),
    ("flannel.alpha.coreos.com/backend-type", "vxlan"),
    ("flannel.alpha.coreos.com/backend-v6-data", r#"{"VNI":1,"VtepMAC":"26:92:df:da:5c:03"}"#),
    ("flannel.alpha.coreos.com/kube-subnet-manager", "true"),
    ("flannel.alpha.coreos.com/public-ip", "10.99.0.2"),
    ("flannel.alpha.coreos.com/public-ipv6", "fd99::2"),
];

fn node(cidrs: &[&str], annotations: &[(&str, &str)]) -> WatchedNode {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let node = serde_json::json!({"metadata": {"name": "n1", "annotations": annotations}, "spec": {"podCIDRs": cidrs}});
    serde_json::from_value(node).unwrap()
}

fn with<'a>(annotations: &[(&'a str, &'a str)], key: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = annotations.iter().filter(|(other, _)| *other != key);
    others.copied().chain([(key, value)]).collect()
}

fn without<'a>(annotations: &[(&'a str, &'a str)], part: &str) -> Vec<(&'a str, &'a str)> {
    annotations.iter().filter(|(key, _)| !key.contains(part)).copied().collect()
}

fn read(node: &WatchedNode) -> Lease {
    AnnotationPrefix::default().read(node).unwrap().unwrap()
}

#[test]
fn annotations_are_the_bytes_flannel_writes() {
    let lease = read(&node(&["10.244.1.0/24", "fd44:0:0:1::/64"], MEASURED));
    assert_eq!(lease.subnets.to_string(), "10.244.1.0-24&fd44:0:0:1::-64");
    let published = AnnotationPrefix::default().publish(&lease.attributes);
    let published: Vec<_> = published.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(published, MEASURED);
    // host-gw has no payload and writes null.
    let host_gw = LeaseAttributes { backend_type: "host-gw".into(), backend_data: None, ..lease.attributes };
    let published = AnnotationPrefix::default().publish(&host_gw);
    assert_eq!(published["flannel.alpha.coreos.com/backend-data"], "null");
    assert_eq!(published.len(), 6);
}

#[test]
fn a_family_that_is_off_has_no_annotations() {
    let both = read(&node(&["10.244.1.0/24", "fd44:0:0:1::/64"], MEASURED)).attributes;
    let v4 = LeaseAttributes { public_ipv6: None, backend_v6_data: None, ..both.clone() };
    let keys: Vec<_> = AnnotationPrefix::default().publish(&v4).into_keys().collect();
    assert!(keys.len() == 4 && !keys.iter().any(|key| key.contains("v6")), "{keys:?}");
    let v6 = LeaseAttributes { public_ip: None, backend_data: None, ..both };
    let keys: Vec<_> = AnnotationPrefix::default().publish(&v6).into_keys().collect();
    assert!(keys.len() == 4 && keys.iter().filter(|key| key.contains("v6")).count() == 2, "{keys:?}");
}

#[test]
fn a_peer_with_one_family_is_read_with_that_one() {
    // flannel-defects.md B.3: flannel skips it completely. Either annotation or subnet may be missing.
    let dual: &[&str] = &["10.244.1.0/24", "fd44:0:0:1::/64"];
    for (cidrs, annotations, key) in [
        (dual, without(MEASURED, "v6"), "10.244.1.0-24"),
        (&["10.244.1.0/24"], MEASURED.to_vec(), "10.244.1.0-24"),
        (&["fd44:0:0:1::/64"], MEASURED.to_vec(), "fd44:0:0:1::-64"),
    ] {
        assert_eq!(read(&node(cidrs, &annotations)).subnets.to_string(), key);
    }
}

#[test]
fn nodes_of_others_are_no_leases_and_broken_ones_are_named() {
    let prefix = AnnotationPrefix::default();
    let cidr: &[&str] = &["10.244.1.0/24"];
    assert_eq!(prefix.read(&node(cidr, &[])), None);
    assert_eq!(prefix.read(&node(cidr, &without(MEASURED, "kube-subnet-manager"))), None);
    // No annotations at all: flannel-defects.md C.3.
    let bare: WatchedNode =
        serde_json::from_str(r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":"10.244.1.0/24"}}"#).unwrap();
    assert_eq!(prefix.read(&bare), None);
    assert_eq!(bare.pod_cidrs(), ["10.244.1.0/24"]);

    let key = |key: &'static str| format!("flannel.alpha.coreos.com/{key}");
    let (data, address) = (key("backend-data"), key("public-ip"));
    for (cidrs, annotations, reason) in [
        (cidr, with(MEASURED, &data, "{"), "flannel.alpha.coreos.com/backend-data: \"{\": EOF"),
        (cidr, with(MEASURED, &address, "10.0.0.300"), "annotation flannel.alpha.coreos.com/public-ip: \"10.0.0.300\""),
        (cidr, without(MEASURED, "public-ip"), "has no flannel.alpha.coreos.com/public-ip"),
        (&[], MEASURED.to_vec(), "has no pod CIDR"),
    ] {
        let rejection = prefix.read(&node(cidrs, &annotations)).unwrap().unwrap_err();
        assert!(rejection.reason.starts_with(reason), "{}", rejection.reason);
        assert_eq!(rejection.subnets.is_some(), !cidrs.is_empty());
    }
}

#[test]
fn the_administrators_addresses_win() {
    let prefix = AnnotationPrefix::default();
    let annotations = [
        ("flannel.alpha.coreos.com/public-ip-overwrite", "198.51.100.1"),
        ("flannel.alpha.coreos.com/node-public-ipv6", "fd99::7"),
    ];
    let own = node(&["10.244.1.0/24"], &annotations);
    let attributes = read(&node(&["10.244.1.0/24", "fd44:0:0:1::/64"], MEASURED)).attributes;
    let conf = NetConf::parse(r#"{"Network":"10.244.0.0/16"}"#, SubnetSource::Assigned).unwrap();
    let subnets = own_subnets("n1", &own, &conf).unwrap();
    let published = prefix.overwrite(&own, subnets, &attributes).unwrap();
    assert_eq!(published.public_ip, Some([198, 51, 100, 1].into()));
    assert_eq!((published.public_ipv6, published.backend_v6_data), (None, None), "it has no IPv6 subnet");
    let settings = prefix.settings(&own).unwrap();
    assert_eq!((settings.public_ip, settings.public_ipv6), (None, "fd99::7".parse().ok()));
    let wrong = node(&[], &[("flannel.alpha.coreos.com/node-public-ip", "fd99::7")]);
    let error = prefix.settings(&wrong).unwrap_err().to_string();
    assert_eq!(error, "annotation flannel.alpha.coreos.com/node-public-ip: \"fd99::7\" is no IPv4 address");
}

#[test]
fn the_own_subnet_must_be_there_and_fit() {
    let conf = NetConf::parse(r#"{"Network":"10.244.0.0/16"}"#, SubnetSource::Assigned).unwrap();
    let error = |cidrs: &[&str]| own_subnets("n1", &node(cidrs, &[]), &conf).unwrap_err().to_string();
    assert!(error(&[]).starts_with("Node \"n1\" has no pod CIDR"));
    assert!(error(&["fd44:0:0:1::/64"]).starts_with("Node \"n1\" has no pod CIDR"));
    assert_eq!(error(&["10.9.1.0/24"]), "pod CIDR 10.9.1.0/24 of Node \"n1\" is outside the pod network 10.244.0.0/16");
}

#[test]
fn prefixes_are_completed_by_flannels_rules() {
    for (given, prefix) in [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
        ("example.org/net_a", "example.org/net_a-"),
        ("example.org/net-a-", "example.org/net-a-"),
    ] {
        assert_eq!(given.parse::<AnnotationPrefix>().unwrap().to_string(), prefix);
    }
    for wrong in ["", "/", "flannel", "flannel/x", "a.b/c/d", "A.b/", "a..b/", "a.b/-", "a.b/c d", ".a.b"] {
        assert!(wrong.parse::<AnnotationPrefix>().is_err(), "{wrong:?}");
    }
    assert_eq!("flannel.alpha.coreos.com".parse(), Ok(AnnotationPrefix::default()));
}
