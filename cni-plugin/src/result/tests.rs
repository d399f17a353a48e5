use super::*;

fn dual_stack() -> AddResult {
    let ip = |address: &str, gateway: &str| Ip {
        address: address.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        interface: 1,
    };
    let route = |dst: &str, gw: &str| RouteConfig::via(dst.parse().unwrap(), gw.parse().unwrap());
    let interface = |name: &str, sandbox: Option<&str>| Interface {
        name: name.into(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1450,
        sandbox: sandbox.map(Into::into),
    };
    AddResult {
        interfaces: vec![interface("veth1", None), interface("eth0", Some("/run/netns/x"))],
        ips: vec![ip("10.244.1.5/24", "10.244.1.1"), ip("fd44::5/64", "fd44::1")],
        routes: vec![RouteConfig { mtu: Some(1400), ..route("0.0.0.0/0", "10.244.1.1") }, route("::/0", "fd44::1")],
        dns: Dns::default(),
    }
}

#[test]
fn r2_4_version_1_1_0() {
    let expected = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "veth1", "mac": "02:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1450, "sandbox": "/run/netns/x"},
        ],
        "ips": [
            {"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1},
            {"address": "fd44::5/64", "gateway": "fd44::1", "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1", "mtu": 1400}, {"dst": "::/0", "gw": "fd44::1"}],
    });
    assert_eq!(dual_stack().to_json(Version::V1_1_0), expected);
}

#[test]
fn r2_4_version_1_0_0_has_neither_mtu_nor_ip_version() {
    let result = dual_stack().to_json(Version::V1_0_0);
    assert_eq!(result["interfaces"][0], json!({"name": "veth1", "mac": "02:00:00:00:00:01"}));
    assert_eq!(result["ips"][0], json!({"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 1}));
    assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.244.1.1"}));
    assert!(result.get("dns").is_none());
}

#[test]
fn r2_4_versions_0_3_and_0_4_have_ip_version_and_dns() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let result = dual_stack().to_json(version);
        assert_eq!(result["cniVersion"], version.as_str());
        assert_eq!((&result["ips"][0]["version"], &result["ips"][1]["version"]), (&json!("4"), &json!("6")));
        assert_eq!(result["dns"], json!({}));
    }
}

#[test]
fn r2_4_versions_0_1_and_0_2_have_one_address_per_family() {
    let expected = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.244.1.5/24", "gateway": "10.244.1.1",
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}]},
        "ip6": {"ip": "fd44::5/64", "gateway": "fd44::1", "routes": [{"dst": "::/0", "gw": "fd44::1"}]},
        "dns": {},
    });
    assert_eq!(dual_stack().to_json(Version::V0_2_0), expected);
}
