//! What is refused or dropped, by the numbers of kube-proxy.md (3.2, 3.4, section 9).

use super::*;

const TO_OTHER_PORTS: &str =
    r#"-d 10.96.0.1/32 -m comment --comment "other ports of cluster IPs" -j KUBE-CLUSTER-IPS-REFUSED"#;

#[test]
fn rule_3_4_external_policy_local_without_local_endpoints_drops() {
    let mut plan = local_web();
    plan.external = Outcome::Drop;
    let bench = Bench::with(settings(), plan);
    assert_eq!(bench.nat("KUBE-EXT-web").len(), 2, "this node is served");
    assert_eq!(bench.nat("KUBE-SVL-web"), [""; 0]);
    let refused = bench.filter("KUBE-EXTERNAL-SERVICES");
    assert_eq!(
        refused[0],
        r#"-d 192.0.2.1/32 -p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 80 -j DROP"#
    );
    assert_eq!(
        refused[2],
        r#"-d 172.30.0.1/32 -m comment --comment "kubernetes service nodeports" -j KUBE-NODEPORTS-REFUSED"#
    );
    assert_eq!(
        bench.filter("KUBE-NODEPORTS-REFUSED"),
        [r#"-p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 30080 -j DROP"#]
    );
    assert_eq!(bench.filter("KUBE-SERVICES"), [TO_OTHER_PORTS]);
}

#[test]
fn rules_9_1_to_9_3_without_endpoints_all_is_refused_to_everybody() {
    let mut plan = open_web(&TWO);
    for outcome in [&mut plan.internal, &mut plan.external, &mut plan.external_from_node] {
        *outcome = Outcome::Reject;
    }
    let bench = Bench::with(settings(), plan);
    let rule = |vip: &str| {
        format!(
            "-d {vip}/32 -p tcp -m comment --comment \"default/web has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable"
        )
    };
    let [cluster_ip, external_ip, load_balancer] = ["10.96.0.1", "192.0.2.1", "192.0.2.2"].map(rule);
    assert_eq!(bench.filter("KUBE-SERVICES"), [&cluster_ip, &external_ip, &load_balancer, TO_OTHER_PORTS]);
    assert_eq!(bench.filter("KUBE-EXTERNAL-SERVICES")[..2], [external_ip, load_balancer]);
    assert_eq!(bench.nat("KUBE-SERVICES").len(), 1, "the node ports' jump");
    assert_eq!(bench.nat("KUBE-NODEPORTS"), [""; 0]);
}

#[test]
fn rules_6_2_6_5_and_6_7_node_ports_are_at_their_addresses_only_refused_or_not() {
    let mut plan = open_web(&TWO);
    for outcome in [&mut plan.external, &mut plan.external_from_node] {
        *outcome = Outcome::Reject;
    }
    for plan in [open_web(&TWO), plan] {
        let bench = Bench::with(settings(), plan);
        let to_node_ports = |rule: &String| rule.contains("KUBE-NODEPORTS");
        let why = "-m comment --comment \"kubernetes service nodeports";
        let served = bench.nat("KUBE-SERVICES").into_iter().filter(to_node_ports).collect::<Vec<_>>();
        assert!(served.len() == 1 && served[0].starts_with(&format!("-d 172.30.0.1/32 {why}")), "{served:?}");
        let refused = bench.filter("KUBE-EXTERNAL-SERVICES").into_iter().filter(to_node_ports).collect::<Vec<_>>();
        assert_eq!(refused, [format!("-d 172.30.0.1/32 {why}\" -j KUBE-NODEPORTS-REFUSED")]);
    }
}

#[test]
fn rule_3_2_internal_policy_local_drops_at_the_cluster_ip() {
    let mut plan = web(&TWO);
    plan.internal = Outcome::Drop;
    let refused = Bench::with(settings(), plan).filter("KUBE-SERVICES");
    assert_eq!(
        refused,
        [
            r#"-d 10.96.0.1/32 -p tcp -m comment --comment "default/web has no local endpoints" -m tcp --dport 80 -j DROP"#,
            TO_OTHER_PORTS
        ]
    );
}

#[test]
fn rule_9_10_other_ports_of_cluster_ips_are_refused_after_all_else_and_off_the_way() {
    let mut bench = Bench::with(settings(), open_web(&TWO));
    assert_eq!(bench.filter("KUBE-SERVICES"), [TO_OTHER_PORTS], "only packets to the ClusterIPs' networks go there");
    let refused = |address: &str| format!("-d {address}/32 -j REJECT --reject-with icmp-port-unreachable");
    assert_eq!(bench.filter("KUBE-CLUSTER-IPS-REFUSED"), [refused("10.96.0.1")], "of all addresses only the ClusterIP");
    let at = |name: &str, address: &str| {
        let mut plan = plan(key(name), endpoints(&TWO));
        plan.frontends = vec![Frontend::ClusterIp(format!("{address}:53").parse().unwrap())];
        plan
    };
    let second_port = bench.put(at("dns", "10.96.0.1"));
    assert!(!second_port[0].contains("*filter"), "one rule for all ports of an address: {second_port:?}");
    let inputs = bench.put(at("other", "10.96.0.2"));
    assert!(inputs[0].contains(&format!("-A KUBE-CLUSTER-IPS-REFUSED {}\n", refused("10.96.0.2"))), "{inputs:?}");
    assert_eq!(bench.change(&[(key("dns"), None)]).concat().matches("CLUSTER-IPS-REFUSED").count(), 0, "still in use");
    let inputs = bench.change(&[(key("web"), None)]);
    assert!(inputs[0].contains(&format!("-D KUBE-CLUSTER-IPS-REFUSED {}\n", refused("10.96.0.1"))), "{inputs:?}");
    assert_eq!(bench.filter("KUBE-SERVICES").len(), 1);
    assert_eq!(bench.filter("KUBE-CLUSTER-IPS-REFUSED"), [refused("10.96.0.2")]);
}

#[test]
fn rules_9_6_and_9_8_source_ranges() {
    let mut plan = open_web(&TWO);
    plan.source_ranges = ["192.0.2.2/32", "198.51.100.0/24"].map(|range| range.parse().unwrap()).into();
    let bench = Bench::with(settings(), plan.clone());
    assert!(bench.nat("KUBE-SERVICES")[1].ends_with("-j KUBE-EXT-web"), "the external IP is open");
    assert!(bench.nat("KUBE-SERVICES")[2].ends_with("-j KUBE-FW-web"));
    let expected = [
        r#"-s 192.0.2.2/32 -m comment --comment "default/web loadbalancer IP" -j KUBE-EXT-web"#,
        r#"-s 198.51.100.0/24 -m comment --comment "default/web loadbalancer IP" -j KUBE-EXT-web"#,
    ];
    assert_eq!(bench.nat("KUBE-FW-web"), expected);
    let drop = r#"-d 192.0.2.2/32 -p tcp -m comment --comment "default/web traffic not accepted by KUBE-FW-web" -m tcp --dport 80 -j DROP"#;
    assert_eq!(bench.filter("KUBE-PROXY-FIREWALL"), [drop]);

    plan.external = Outcome::Reject;
    plan.external_from_node = Outcome::Reject;
    plan.internal = Outcome::Reject;
    let bench = Bench::with(settings(), plan);
    let firewall = bench.filter("KUBE-PROXY-FIREWALL");
    let allow =
        r#"-s 198.51.100.0/24 -d 192.0.2.2/32 -p tcp -m comment --comment "default/web" -m tcp --dport 80 -j RETURN"#;
    assert_eq!(firewall[1..], [allow, drop], "who is allowed is refused, the others hear nothing");
    assert_eq!(bench.nat("KUBE-FW-web"), [""; 0]);
}
