use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Header::parse(text.as_bytes(), &mut Version::LATEST.clone())?)
}

fn failure(text: &str) -> (Code, String) {
    let error = parse(text).unwrap_err();
    (error.code, error.message)
}

#[test]
fn the_agents_own_configuration() {
    let config = parse(
        r#"{"cniVersion":"1.0.0","name":"weft","type":"weft-cni","subnetFile":"/r/subnet.env","dataDir":"/s/networks"}"#,
    )
    .unwrap();
    assert_eq!((config.name.as_str(), config.mtu), ("weft", 0));
    assert_eq!((config.subnet_file, config.data_dir), ("/r/subnet.env".into(), "/s/networks".into()));
    assert!(config.ranges.is_empty() && config.routes.is_empty());
}

#[test]
fn defaults_are_flannels_and_host_locals() {
    let config = parse(r#"{"name":"n"}"#).unwrap();
    assert_eq!((config.subnet_file, config.data_dir), (SUBNET_FILE.into(), DATA_DIR.into()));
}

#[test]
fn r1_6_json_then_name_then_version() {
    assert_eq!(failure("{").0, Code::Decode);
    assert_eq!(failure("[]").0, Code::Decode);
    assert_eq!(failure(r#"{"cniVersion":"9.9.9"}"#), (Code::InvalidConfig, "missing network name".into()));
    let bad_name = (Code::InvalidConfig, "invalid characters found in network name".to_owned());
    assert_eq!(failure(r#"{"cniVersion":"9.9.9","name":"../x"}"#), bad_name);
    assert_eq!(failure(r#"{"cniVersion":"9.9.9","name":"n"}"#).0, Code::IncompatibleVersion);
    assert_eq!(failure(r#"{"cniVersion":"1.0.0","name":"n","mtu":"big"}"#).0, Code::Decode);
    let (code, message) = failure(r#"{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"mac":7},"mtu":1400}"#);
    assert_eq!(code, Code::Decode);
    assert_eq!(message, "failed to load netconf: runtimeconfig: invalid type: integer `7`, expected a string");
    assert_eq!(failure(r#"{"cniVersion":"1.0.0","name":"n","mtu":-1}"#).0, Code::Decode);
}

#[test]
fn r4_1_errors_are_written_in_the_version_of_the_configuration() {
    let mut version = Version::LATEST;
    Header::parse(br#"{"cniVersion":"0.4.0"}"#, &mut version).unwrap_err();
    assert_eq!(version, Version::V0_4_0);
}

#[test]
fn r1_8_keys_in_any_case_nulls_and_unknown_keys() {
    let config = parse(
        r#"{"CNIVersion":"0.3.1","Name":"n","MTU":1400,"capabilities":{"portMappings":true},"dns":{"Servers":null},
            "runtimeConfig":{"ipRanges":[[{"Subnet":"10.1.0.0/24","Gateway":"10.1.0.254"}]],"IPs":null,"ips":["10.1.0.9/24"],
              "portMappings":[{"HostPort":80}],"io.kubernetes.cri.pod-annotations":null},
            "prevResult":null,"args":{"cni":{"labels":[{"key":"a"}],"mac":null}},"cni.dev/attachments":[]}"#,
    )
    .unwrap();
    assert_eq!(config.mtu, 1400);
    assert_eq!(config.ranges.len(), 1);
    assert_eq!(config.ranges[0][0].gateway, Some("10.1.0.254".parse().unwrap()));
    assert_eq!(config.requested_ips(&Args::default()).unwrap(), ["10.1.0.9".parse::<IpAddr>().unwrap()]);
}

#[test]
fn section_6_ranges_come_in_order_runtime_single_list() {
    let config = parse(
        r#"{"name":"n","dataDir":"/a","ipam":{"type":"host-local","dataDir":"/b","subnet":"10.2.0.0/24","rangeStart":"10.2.0.9",
            "ranges":[[{"subnet":"10.3.0.0/24"},{"subnet":"10.4.0.0/24"}]],
            "routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.2.0.1","mtu":1300}]},
            "runtimeConfig":{"ipRanges":[[{"subnet":"10.1.0.0/24"}]]}}"#,
    )
    .unwrap();
    let subnets: Vec<Vec<_>> =
        config.ranges.iter().map(|set| set.iter().map(|range| range.subnet.to_string()).collect()).collect();
    assert_eq!(subnets, [vec!["10.1.0.0/24"], vec!["10.2.0.0/24"], vec!["10.3.0.0/24", "10.4.0.0/24"]]);
    assert_eq!(config.ranges[1][0].rangestart, Some("10.2.0.9".parse().unwrap()));
    assert_eq!(config.data_dir, PathBuf::from("/b"));
    assert_eq!(config.routes[1].mtu, Some(1300));
}

#[test]
fn section_6_macs_and_ips_of_all_sources() {
    let config = parse(
        r#"{"name":"n","args":{"cni":{"mac":"02:00:00:00:00:02","ips":["10.1.0.8"]}},
            "runtimeConfig":{"mac":"02:00:00:00:00:03","ips":["fd00::8/64","10.1.0.7"]}}"#,
    )
    .unwrap();
    let args = Args::parse("IP=10.1.0.7;MAC=02:00:00:00:00:01").unwrap();
    assert_eq!(config.mac(&args).unwrap().unwrap().to_string(), "02:00:00:00:00:03");
    let requested: Vec<_> = config.requested_ips(&args).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(requested, ["10.1.0.7", "10.1.0.8", "fd00::8"]);
    let plain = parse(r#"{"name":"n","runtimeConfig":{"mac":""}}"#).unwrap();
    assert_eq!(plain.mac(&args).unwrap().unwrap().to_string(), "02:00:00:00:00:01");
}

#[test]
fn the_ipam_plugin_is_host_local_or_another_or_a_mistake() {
    for (ipam, expected) in [
        ("null", IpamPlugin::HostLocal),
        (r#"{"type":"host-local"}"#, IpamPlugin::HostLocal),
        // Sections of others are not ours to read: whereabouts' ranges are no lists.
        (
            r#"{"type":"whereabouts","ranges":[{"range":"10.0.0.0/8"}],"routes":"x"}"#,
            IpamPlugin::Other("whereabouts".into()),
        ),
        ("{}", IpamPlugin::Unnamed),
        (r#"{"subnet":"10.1.0.0/24"}"#, IpamPlugin::Unnamed),
    ] {
        let config = parse(&format!(r#"{{"name":"n","ipam":{ipam}}}"#)).unwrap();
        assert_eq!(config.check().is_err(), expected == IpamPlugin::Unnamed);
        assert_eq!(config.ipam, expected);
    }
    assert_eq!(failure(r#"{"name":"n","ipam":{"type":7}}"#).0, Code::Decode);
    assert_eq!(failure(r#"{"name":"n","ipam":{"type":"host-local","ranges":7}}"#).0, Code::Decode);
}

#[test]
fn a11_name_servers_of_the_pod_then_of_the_configuration() {
    let servers = |rest: &str| {
        let dns = parse(&format!(r#"{{"name":"n",{rest}}}"#)).unwrap().dns;
        dns.map(|dns| dns.nameservers.join(","))
    };
    let configured = r#""dns":{"nameservers":["10.0.0.1"]}"#;
    assert_eq!(servers(configured).as_deref(), Some("10.0.0.1"));
    let stated = r#""runtimeConfig":{"dns":{"Servers":["10.0.0.2"],"Searches":null,"Options":null}}"#;
    assert_eq!(servers(&format!("{configured},{stated}")).as_deref(), Some("10.0.0.2"));
    let silent = r#""runtimeConfig":{"dns":{"Servers":null,"Searches":[],"Options":null}}"#;
    assert_eq!(servers(&format!("{configured},{silent}")).as_deref(), Some("10.0.0.1"));
    assert_eq!(servers(r#""dns":{"nameservers":[]}"#).as_deref(), Some(""));
    assert_eq!(servers(r#""dns":{}"#), None);
}

#[test]
fn g1_no_list_of_attachments_is_not_an_empty_list() {
    let valid = |rest: &str| parse(&format!(r#"{{"name":"n"{rest}}}"#)).unwrap().valid_attachments();
    let listed: ValidAttachments = [("a".to_owned(), "eth0".to_owned())].into_iter().collect();
    let list = r#"[{"containerID":"a","ifname":"eth0"}]"#;
    assert_eq!(valid(""), Ok(None));
    assert_eq!(valid(r#","cni.dev/valid-attachments":null"#), Ok(None));
    assert_eq!(valid(r#","cni.dev/valid-attachments":[]"#), Ok(Some(ValidAttachments::default())));
    assert_eq!(valid(&format!(r#","cni.dev/valid-attachments":{list}"#)), Ok(Some(listed.clone())));
    assert_eq!(valid(&format!(r#","cni.dev/attachments":{list}"#)), Ok(Some(listed)));
    assert_eq!(valid(r#","cni.dev/valid-attachments":[{"containerID":"a"}]"#).unwrap_err().code, Code::Decode);
}

#[test]
fn r4_1_fields_of_others_that_may_not_be_ignored_are_named_with_their_value() {
    let check = |field: &str| parse(&format!(r#"{{"name":"n",{field}}}"#)).unwrap().check();
    let error = check(r#""ConditionsV4":["-s","192.0.2.0/24"]"#).unwrap_err();
    assert_eq!(error.code, Code::UnsupportedField);
    assert_eq!(error.message, r#"unsupported field conditionsV4: ["-s","192.0.2.0/24"]"#);
    assert_eq!(check(r#""shapedSubnets":["10.0.0.0/8"]"#).unwrap_err().code, Code::UnsupportedField);
    for harmless in [r#""conditionsV6":[]"#, r#""unshapedSubnets":null"#, r#""markMasqBit":13"#] {
        assert_eq!(check(harmless), Ok(()), "{harmless}");
    }
}
