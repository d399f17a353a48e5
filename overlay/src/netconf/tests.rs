use super::*;

fn parse(text: &str) -> Result<NetConf, Vec<NetConfError>> {
    NetConf::parse(text, SubnetSource::Allocated)
}

fn fields_of(text: &str) -> Vec<String> {
    parse(text).unwrap_err().into_iter().map(|mistake| mistake.field).collect()
}

#[test]
fn defaults_are_those_of_flannel() {
    let conf = parse(r#"{"Network":"10.244.0.0/16"}"#).unwrap();
    let network = conf.ipv4.unwrap();
    let pool = network.pool.unwrap();
    assert_eq!(network.network.to_string(), "10.244.0.0/16");
    assert_eq!((pool.subnet_len, pool.first.to_string()), (24, "10.244.1.0".into()));
    assert_eq!(pool.last.to_string(), "10.244.255.0");
    assert_eq!(conf.ipv6, None);
    let vxlan = Vxlan { vni: 1, port: 0, mtu: None, gbp: false, direct_routing: false };
    assert_eq!(conf.backend, Backend::Vxlan(vxlan), "absent Backend is vxlan");
}

#[test]
fn subnet_len_follows_the_size_of_the_network() {
    for (network, len, first, last) in [
        ("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0"),
        ("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0"),
        ("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128"),
        ("10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12"),
    ] {
        let pool = parse(&format!(r#"{{"Network":"{network}"}}"#)).unwrap().ipv4.unwrap().pool.unwrap();
        assert_eq!(pool.subnet_len, len, "{network}");
        assert_eq!((pool.first.to_string().as_str(), pool.last.to_string().as_str()), (first, last));
    }
    let v6 = parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd44::/48"}"#).unwrap();
    let pool = v6.ipv6.unwrap().pool.unwrap();
    assert_eq!((pool.subnet_len, pool.first.to_string()), (64, "fd44:0:0:1::".into()));
    assert_eq!(pool.last.to_string(), "fd44:0:0:ffff::");
}

#[test]
fn key_case_null_and_unknown_keys_do_not_matter() {
    let conf = parse(
        r#"{"network":"10.244.7.1/16","SUBNETLEN":26,"subnetmin":null,"Comment":"x",
            "backend":{"type":"VXLAN","vni":42,"PORT":4789,"Mtu":1400,"gbp":true,"learning":false,"directrouting":true}}"#,
    )
    .unwrap();
    assert_eq!(conf.ipv4.unwrap().network.to_string(), "10.244.0.0/16", "host bits are dropped");
    assert_eq!(conf.ipv4.unwrap().pool.unwrap().subnet_len, 26);
    let vxlan = Vxlan { vni: 42, port: 4789, mtu: Some(1400), gbp: true, direct_routing: true };
    assert_eq!(conf.backend, Backend::Vxlan(vxlan));
    let host_gw = parse(r#"{"Network":"10.0.0.0/16","Backend":{"Type":"Host-GW"}}"#).unwrap();
    assert_eq!((host_gw.backend.kind(), host_gw.backend.pod_mtu(Family::V4, 1500)), ("host-gw", 1500));
}

#[test]
fn all_mistakes_are_reported_together() {
    let mistakes = parse(
        r#"{"EnableIPv6":"yes","Network":"10.244.0.0","SubnetLen":24,
            "Backend":{"Type":"vxlan","VNI":16777216,"Port":-1,"MTU":60,"DirectRouting":1}}"#,
    )
    .unwrap_err();
    let fields: Vec<_> = mistakes.iter().map(|m| m.field.as_str()).collect();
    assert_eq!(
        fields,
        ["EnableIPv6", "Network", "Backend.MTU", "Backend.VNI", "Backend.Port", "Backend.DirectRouting"]
    );
    assert_eq!(mistakes[3].to_string(), "Backend.VNI: 16777216 is not allowed; allowed: 0 to 9999999");
}

#[test]
fn each_mistake_names_its_field() {
    for (text, field) in [
        ("", "(document)"),
        ("[]", "(document)"),
        ("{}", "Network"),
        (r#"{"EnableIPv4":false}"#, "EnableIPv4"),
        (r#"{"EnableIPv4":false,"EnableIPv6":true}"#, "IPv6Network"),
        (r#"{"Network":"fd00::/48"}"#, "Network"),
        (r#"{"Network":"10.0.0.0/29"}"#, "Network"),
        (r#"{"Network":"10.0.0.0/16","SubnetLen":17}"#, "SubnetLen"),
        (r#"{"Network":"10.0.0.0/16","SubnetLen":31}"#, "SubnetLen"),
        (r#"{"Network":"10.0.0.0/16","SubnetMin":"10.1.0.0"}"#, "SubnetMin"),
        (r#"{"Network":"10.0.0.0/16","SubnetMin":"10.0.1.1"}"#, "SubnetMin"),
        (r#"{"Network":"10.0.0.0/16","SubnetMax":"x"}"#, "SubnetMax"),
        (r#"{"Network":"10.0.0.0/16","SubnetMin":"10.0.9.0","SubnetMax":"10.0.8.0"}"#, "SubnetMin"),
        (r#"{"Network":"10.0.0.0/16","Backend":"vxlan"}"#, "Backend"),
        (r#"{"Network":"10.0.0.0/16","Backend":{"Type":"wireguard","PSK":1}}"#, "Backend.Type"),
        (r#"{"Network":"10.0.0.0/16","Backend":{"Type":"udp"}}"#, "Backend.Type"),
        (r#"{"Network":"10.0.0.0/16","Backend":{"Learning":true}}"#, "Backend.Learning"),
    ] {
        assert_eq!(fields_of(text), [field], "{text}");
    }
}

#[test]
fn assigned_subnets_need_no_pool() {
    let text = r#"{"Network":"10.0.0.0/30","SubnetLen":1}"#;
    let conf = NetConf::parse(text, SubnetSource::Assigned).unwrap();
    assert_eq!(conf.ipv4.unwrap().pool, None);
}

#[test]
fn overhead_depends_on_the_outer_family() {
    let backend = parse(r#"{"Network":"10.0.0.0/16"}"#).unwrap().backend;
    let vxlan = backend.vxlan().unwrap();
    assert_eq!(vxlan.device_mtu(Family::V4, 1500), 1450);
    assert_eq!(vxlan.device_mtu(Family::V6, 1500), 1430);
    assert_eq!(vxlan.device_name(Family::V6), "flannel-v6.1");
}
