use super::*;

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

#[test]
fn keys_are_those_flannel_writes() {
    for (v4, v6, key) in [
        (Some("10.5.34.0/24"), None, "10.5.34.0-24"),
        (Some("10.5.100.0/24"), Some("fd05:0:0:28::/64"), "10.5.100.0-24&fd05:0:0:28::-64"),
        (None, Some("fd05:0:0:28::/64"), "fd05:0:0:28::-64"),
    ] {
        let subnets = Subnets::new(v4.map(|n| n.parse().unwrap()), v6.map(|n| n.parse().unwrap())).unwrap();
        assert_eq!(subnets.to_string(), key);
        assert_eq!(key.parse::<Subnets>().unwrap(), subnets);
    }
}

#[test]
fn other_keys_are_refused() {
    for key in [
        "",
        "&",
        "10.5.34.0",
        "10.5.34.0-33",
        "10.5.34.1-24",
        "10.5.34.0-24&",
        "10.5.34.0-24&10.5.35.0-24",
        "fd05:0:0:28::-64&10.5.34.0-24",
        ".tmp-10.5.34.0-24",
    ] {
        assert!(key.parse::<Subnets>().is_err(), "{key:?}");
    }
}

#[test]
fn values_are_the_bytes_flannel_writes() {
    // The measured examples of flannel.md 5.2.
    let v4 = LeaseAttributes {
        public_ip: Some("10.99.0.3".parse().unwrap()),
        public_ipv6: None,
        backend_type: "vxlan".into(),
        backend_data: Some(VtepData { vni: 1, mac: mac("6a:54:3d:a5:9b:82") }),
        backend_v6_data: None,
    };
    let v4_json = r#"{"PublicIP":"10.99.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"6a:54:3d:a5:9b:82"}}"#;
    let dual = LeaseAttributes {
        public_ipv6: Some("fd99::3".parse().unwrap()),
        backend_v6_data: Some(VtepData { vni: 1, mac: mac("26:92:df:da:5c:03") }),
        ..v4.clone()
    };
    let dual_json = r#"{"PublicIP":"10.99.0.3","PublicIPv6":"fd99::3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"6a:54:3d:a5:9b:82"},"BackendV6Data":{"VNI":1,"VtepMAC":"26:92:df:da:5c:03"}}"#;
    for (attributes, json) in [(v4, v4_json), (dual, dual_json)] {
        assert_eq!(attributes.to_json(), json);
        assert_eq!(LeaseAttributes::from_json(json).unwrap(), attributes);
    }
}

#[test]
fn payloads_of_other_backends_are_not_read() {
    let json = r#"{"PublicIP":"10.99.0.3","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"x","Port":51820}}"#;
    let lease = LeaseAttributes::from_json(json).unwrap();
    assert_eq!((lease.backend_type.as_str(), lease.backend_data), ("wireguard", None));
    // Backend udp has neither type nor data.
    let udp = r#"{"PublicIP":"10.99.0.2","PublicIPv6":null}"#;
    assert_eq!(LeaseAttributes::from_json(udp).unwrap().to_json(), udp);
}

#[test]
fn broken_values_are_errors() {
    for (json, message) in [
        ("", "not the value of a lease"),
        (r#"{"PublicIP":"10.99.0.300"}"#, "not the value of a lease"),
        (
            r#"{"PublicIP":"10.0.0.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"6a:54"}}"#,
            "BackendData is",
        ),
        (r#"{"PublicIP":"10.0.0.1","BackendType":"vxlan","BackendV6Data":[]}"#, "BackendV6Data is"),
    ] {
        let error = LeaseAttributes::from_json(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json}: {error}");
    }
}
