//! What a plan means in rules, by the numbers of kube-proxy.md. The kernel accepts these texts as they are: `tests/iptables.rs`.

use super::*;

const SVC: &str = "KUBE-SVC-web";
const ROUND_ROBIN: [&str; 2] = ["-m statistic --mode nth --every 2 --packet 0 -j KUBE-SEP-1.2", "-j KUBE-SEP-2.2"];
const TO_WEB: &str = "-d 10.96.0.1/32 -p tcp -m tcp --dport 80";

#[test]
fn rule_12_3_cluster_ip() {
    let bench = Bench::with(settings(), web(&TWO));
    let services = bench.nat("KUBE-SERVICES");
    assert_eq!(
        services[0],
        r#"-d 10.96.0.1/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-web"#
    );
    assert_eq!(
        services[1..],
        [
            r#"-d 172.30.0.1/32 -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -j KUBE-NODEPORTS"#
        ]
    );
    assert_eq!(bench.nat(SVC), ROUND_ROBIN);
    assert_eq!(
        bench.nat("KUBE-SEP-1.2"),
        ["-s 10.244.1.2/32 -j KUBE-MARK-MASQ", "-p tcp -j DNAT --to-destination 10.244.1.2:80"]
    );
    assert_eq!(bench.nat("KUBE-EXT-web"), [""; 0]);
}

#[test]
fn rule_12_3_every_count_takes_one_of_what_is_left() {
    let bench = Bench::with(settings(), web(&THREE));
    let expected = [
        "-m statistic --mode nth --every 3 --packet 0 -j KUBE-SEP-1.2",
        "-m statistic --mode nth --every 2 --packet 0 -j KUBE-SEP-1.3",
        "-j KUBE-SEP-2.2",
    ];
    assert_eq!(bench.nat(SVC), expected);
    assert_eq!(Bench::with(settings(), web(&TWO[..1])).nat(SVC), ["-j KUBE-SEP-1.2"]);
}

#[test]
fn ipv6_and_other_protocols() {
    let mut plan = web(&["[fd44::2]:53"]);
    plan.key.family = IpFamily::V6;
    plan.key.port.protocol = crate::model::Protocol::Sctp;
    plan.frontends = vec![Frontend::ClusterIp("[fd96::1]:53".parse().unwrap()), Frontend::NodePort(30053)];
    let bench = Bench::with(PacketSettings::default(), plan.clone());
    let dump = bench.tables.dump(IpFamily::V6);
    for expected in [
        r#"-A KUBE-SERVICES -d fd96::1/128 -p sctp -m comment --comment "default/web cluster IP" -m sctp --dport 53 -j KUBE-SVC-"#,
        r#"-A KUBE-NODEPORTS -p sctp -m comment --comment "default/web" -m sctp --dport 30053 -j KUBE-EXT-"#,
        " -s fd44::2/128 -j KUBE-MARK-MASQ",
        " -p sctp -j DNAT --to-destination [fd44::2]:53",
        "-A KUBE-SERVICES -d fd30::1/128 ",
    ] {
        assert!(dump.contains(expected), "{expected} in {dump}");
    }
    assert!(!dump.contains("127.0.0.0"), "6.6: never for IPv6");
    plan.internal = Outcome::Reject;
    let refused = Bench::with(settings(), plan).tables.rules(IpFamily::V6, Table::Filter, "KUBE-SERVICES");
    assert!(refused[0].ends_with("--dport 53 -j REJECT --reject-with icmp6-port-unreachable"), "{refused:?}");
}

#[test]
fn rules_8_1_to_8_4_who_is_masqueraded_towards_a_cluster_ip() {
    let with = |local_traffic, masquerade_all| PacketSettings { local_traffic, masquerade_all, ..settings() };
    let first = |settings| Bench::with(settings, web(&TWO)).nat(SVC)[0].clone();
    assert_eq!(first(pods_in("10.244.0.0/16")), format!("! -s 10.244.0.0/16 {TO_WEB} -j KUBE-MARK-MASQ"));
    assert_eq!(
        first(with(LocalTraffic::Interface("cni0".into()), false)),
        "-d 10.96.0.1/32 ! -i cni0 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ"
    );
    assert_eq!(
        first(with(LocalTraffic::InterfacePrefix("veth".into()), false)),
        "-d 10.96.0.1/32 ! -i veth+ -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ"
    );
    assert_eq!(first(settings()), ROUND_ROBIN[0], "8.3");
    assert_eq!(first(pods_in("0.0.0.0/0")), ROUND_ROBIN[0], "everybody is local");
    assert_eq!(first(with(LocalTraffic::Unknown, true)), format!("{TO_WEB} -j KUBE-MARK-MASQ"), "8.4");
}

#[test]
fn rule_3_1_internal_policy_local_has_its_own_chain() {
    let mut plan = open_web(&TWO);
    plan.internal = endpoints(&TWO[..1]);
    let bench = Bench::with(pods_in("10.244.0.0/16"), plan);
    assert!(bench.nat("KUBE-SERVICES")[0].ends_with("-j KUBE-SVL-web"));
    let masquerade = format!("! -s 10.244.0.0/16 {TO_WEB} -j KUBE-MARK-MASQ");
    assert_eq!(bench.nat("KUBE-SVL-web"), [masquerade.as_str(), "-j KUBE-SEP-1.2"]);
    assert_eq!(bench.nat(SVC), ROUND_ROBIN, "only the external addresses come here");
}

#[test]
fn rule_8_5_external_policy_cluster_masquerades() {
    let bench = Bench::with(settings(), open_web(&TWO));
    let expected = [
        r#"-m comment --comment "masquerade traffic for default/web external destinations" -j KUBE-MARK-MASQ"#,
        "-j KUBE-SVC-web",
    ];
    assert_eq!(bench.nat("KUBE-EXT-web"), expected);
    let services = bench.nat("KUBE-SERVICES");
    assert_eq!(
        services[1..3],
        [
            r#"-d 192.0.2.1/32 -p tcp -m comment --comment "default/web external IP" -m tcp --dport 80 -j KUBE-EXT-web"#,
            r#"-d 192.0.2.2/32 -p tcp -m comment --comment "default/web loadbalancer IP" -m tcp --dport 80 -j KUBE-EXT-web"#,
        ]
    );
    assert_eq!(
        bench.nat("KUBE-NODEPORTS"),
        [r#"-p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-web"#]
    );
}

#[test]
fn rules_3_5_and_3_6_external_policy_local_short_circuits() {
    let bench = Bench::with(pods_in("10.244.0.0/16"), local_web());
    let expected = [
        r#"-s 10.244.0.0/16 -m comment --comment "pod traffic for default/web external destinations" -j KUBE-SVC-web"#,
        r#"-m comment --comment "masquerade LOCAL traffic for default/web external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"#,
        r#"-m comment --comment "route LOCAL traffic for default/web external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-web"#,
        "-j KUBE-SVL-web",
    ];
    assert_eq!(bench.nat("KUBE-EXT-web"), expected);
    assert_eq!(bench.nat("KUBE-SVL-web"), ["-j KUBE-SEP-1.2"]);
    let without = Bench::with(settings(), local_web()).nat("KUBE-EXT-web");
    assert_eq!(without, expected[1..], "no detector: pods are outside");
}

#[test]
fn rule_7_3_session_affinity() {
    let mut plan = web(&TWO);
    plan.affinity = Some(Duration::from_secs(10_800));
    let bench = Bench::with(settings(), plan);
    let record = |name: &str| format!("--name KUBE-SEP-{name} --mask 255.255.255.255 --rsource");
    let remembered = ["1.2", "2.2"]
        .map(|name| format!("-m recent --rcheck --seconds 10800 --reap {} -j KUBE-SEP-{name}", record(name)));
    assert_eq!(bench.nat(SVC), [&remembered[..], &ROUND_ROBIN.map(str::to_owned)].concat());
    assert_eq!(
        bench.nat("KUBE-SEP-1.2")[1],
        format!("-p tcp -m recent --set {} -j DNAT --to-destination 10.244.1.2:80", record("1.2"))
    );
}

#[test]
fn rules_8_10_and_8_12_marks_and_masquerade() {
    let bench = Bench::with(PacketSettings { masquerade_bit: 0, ..settings() }, web(&TWO));
    assert_eq!(bench.nat("KUBE-MARK-MASQ"), ["-j MARK --set-xmark 0x1/0x1"]);
    let expected = [
        "-m mark ! --mark 0x1/0x1 -j RETURN",
        "-j MARK --set-xmark 0x1/0x0",
        r#"-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully"#,
    ];
    assert_eq!(bench.nat("KUBE-POSTROUTING"), expected);
}

#[test]
fn rules_9_12_and_9_13_forwarding() {
    let bench = Bench::with(settings(), web(&TWO));
    let expected = [
        "-m conntrack --ctstate INVALID -j DROP",
        r#"-m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT"#,
        r#"-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"#,
    ];
    assert_eq!(bench.filter("KUBE-FORWARD"), expected);
}

#[test]
fn rule_9_14_health_check_ports_are_let_in_as_long_as_the_service_is_there() {
    let mut bench = Bench::with(settings(), ServicePortPlan { health_check_port: Some(32000), ..local_web() });
    assert_eq!(
        bench.filter("KUBE-NODEPORTS"),
        ["-p tcp -m comment --comment \"default/web health check node port\" -m tcp --dport 32000 -j ACCEPT"]
    );
    bench.put(local_web());
    assert_eq!(bench.filter("KUBE-NODEPORTS"), [""; 0]);
}

#[test]
fn rule_6_6_node_ports_at_localhost() {
    let bench = Bench::with(PacketSettings::default(), open_web(&TWO));
    assert!(bench.tables.localnet_is_routed());
    let services = bench.nat("KUBE-SERVICES");
    assert_eq!(
        services.last().unwrap(),
        r#"-d 127.0.0.0/8 -m comment --comment "kubernetes service nodeports on localhost" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"#
    );
    let firewall = [
        r#"! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"#,
    ];
    assert_eq!(bench.filter("KUBE-FIREWALL"), firewall);
    for chain in ["INPUT", "OUTPUT"] {
        assert_eq!(bench.filter(chain)[0], "-j KUBE-FIREWALL");
    }
    let off = Bench::with(settings(), open_web(&TWO));
    assert!(!off.tables.localnet_is_routed());
    assert_eq!(off.filter("KUBE-FIREWALL"), [""; 0]);
}

#[test]
fn rule_12_1_jumps() {
    let bench = Bench::with(settings(), web(&TWO));
    let targets = |table, chain| {
        let rules = bench.rules(table, chain);
        rules
            .iter()
            .map(|rule| rule.rsplit(' ').next().unwrap().trim_start_matches("KUBE-").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(targets(Table::Nat, "PREROUTING"), ["SERVICES"]);
    assert_eq!(targets(Table::Nat, "OUTPUT"), ["SERVICES"]);
    assert_eq!(targets(Table::Nat, "POSTROUTING"), ["POSTROUTING"]);
    assert_eq!(targets(Table::Filter, "INPUT"), ["PROXY-FIREWALL", "NODEPORTS", "EXTERNAL-SERVICES"]);
    assert_eq!(targets(Table::Filter, "FORWARD"), ["PROXY-FIREWALL", "FORWARD", "SERVICES", "EXTERNAL-SERVICES"]);
    assert_eq!(targets(Table::Filter, "OUTPUT"), ["PROXY-FIREWALL", "SERVICES"]);
}

#[test]
fn a_name_cannot_end_its_comment() {
    let mut plan = web(&TWO);
    plan.key.port.port = "x\" -j ACCEPT\n-A INPUT -j ACCEPT".into();
    let bench = Bench::with(settings(), plan);
    assert!(bench.nat("KUBE-SERVICES")[0].contains(r#""default/web:x? -j ACCEPT?-A INPUT -j ACCEPT cluster IP""#));
}
