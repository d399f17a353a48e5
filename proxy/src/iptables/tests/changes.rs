//! What a change costs, what a start finds, and what others do to the tables.

use super::*;
use crate::iptables::{cleanup, pace::Pace};

fn other(name: &str) -> ServicePortPlan {
    let mut plan = plan(key(name), endpoints(&THREE));
    plan.frontends = vec![Frontend::ClusterIp("10.96.0.9:80".parse().unwrap())];
    plan
}

#[test]
fn another_endpoint_is_its_chain_and_the_services() {
    let mut bench = Bench::with(settings(), web(&TWO));
    bench.put(other("other"));
    let inputs = bench.put(web(&THREE));
    let expected = "\
*nat
:KUBE-SEP-1.3 - [0:0]
:KUBE-SVC-web - [0:0]
-A KUBE-SEP-1.3 -s 10.244.1.3/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-1.3 -p tcp -j DNAT --to-destination 10.244.1.3:80
-A KUBE-SVC-web -m statistic --mode nth --every 3 --packet 0 -j KUBE-SEP-1.2
-A KUBE-SVC-web -m statistic --mode nth --every 2 --packet 0 -j KUBE-SEP-1.3
-A KUBE-SVC-web -j KUBE-SEP-2.2
COMMIT
";
    assert_eq!(inputs.iter().map(|input| short(input)).collect::<Vec<_>>(), [expected]);
    let inputs = bench.put(web(&TWO));
    assert!(short(&inputs[0]).ends_with("-A KUBE-SVC-web -j KUBE-SEP-2.2\n-X KUBE-SEP-1.3\nCOMMIT\n"), "{inputs:?}");
}

#[test]
fn a_service_that_goes_takes_its_chains_in_the_same_transaction() {
    let mut bench = Bench::with(settings(), open_web(&TWO));
    let empty = Bench::new(settings());
    let inputs = bench.change(&[(key("web"), None)]);
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0].lines().filter(|line| line.starts_with("-X ")).count(), 4);
    let mut empty = empty;
    empty.apply(&Changed::Everything);
    assert_eq!(bench.tables.dump(IpFamily::V4), empty.tables.dump(IpFamily::V4));
}

#[test]
fn nothing_different_runs_nothing() {
    let mut bench = Bench::with(settings(), open_web(&TWO));
    assert_eq!(bench.put(open_web(&TWO)), [""; 0]);
    bench.apply(&Changed::NodePortAddresses);
    assert_eq!(bench.tables.take_inputs(), [""; 0]);
}

#[test]
fn node_port_addresses_change_alone() {
    let mut bench = Bench::with(settings(), open_web(&TWO));
    bench.tables.take_inputs();
    bench.desired.node_port_addresses = ["172.30.0.1", "172.30.0.2", "fd30::1"].map(|a| a.parse().unwrap()).into();
    bench.apply(&Changed::NodePortAddresses);
    let inputs = bench.tables.take_inputs();
    assert_eq!(inputs.len(), 1, "only IPv4");
    let chains: Vec<_> = inputs[0].lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(chains, [":KUBE-EXTERNAL-SERVICES - [0:0]", ":KUBE-SERVICES - [0:0]"]);
    assert_eq!(bench.nat("KUBE-SERVICES").len(), 5);
}

#[test]
fn a_restart_changes_nothing() {
    let mut bench = Bench::with(PacketSettings::default(), open_web(&TWO));
    bench.put(other("other"));
    bench.tables.take_inputs();
    bench.restart();
    assert_eq!(bench.tables.take_inputs(), [""; 0]);
    assert!(bench.plane.is_intact().unwrap());
}

#[test]
fn a_restart_brings_what_changed_meanwhile() {
    let mut bench = Bench::with(settings(), open_web(&TWO));
    bench.put(other("other"));
    bench.desired.ports.remove(&key("other"));
    bench.desired.ports.insert(key("web"), Arc::new(open_web(&THREE)));
    bench.restart();
    let mut scratch = Bench::with(settings(), open_web(&THREE));
    scratch.apply(&Changed::Everything);
    assert_eq!(bench.tables.dump(IpFamily::V4), scratch.tables.dump(IpFamily::V4));
}

#[test]
fn flushes_and_lost_jumps_are_noticed_and_repaired() {
    for family in [IpFamily::V4, IpFamily::V6] {
        let mut bench = Bench::with(PacketSettings::default(), open_web(&TWO));
        let sabotage: [&dyn Fn(&Bench); 5] = [
            &|bench| bench.tables.flush(family, Table::Filter),
            &|bench| bench.tables.flush(family, Table::Nat),
            &|bench| bench.tables.foreign(family, "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"),
            &|bench| bench.tables.foreign(family, "*nat\n:KUBE-POSTROUTING - [0:0]\nCOMMIT\n"),
            &|bench| {
                let jump = bench.tables.rules(family, Table::Filter, "FORWARD").pop().unwrap();
                bench.tables.foreign(family, &format!("*filter\n-D FORWARD {jump}\nCOMMIT\n"));
            },
        ];
        let before = bench.tables.dump(family);
        for (index, sabotage) in sabotage.iter().enumerate() {
            bench.plane.looked = Pace::default();
            assert!(bench.plane.is_intact().unwrap());
            sabotage(&bench);
            bench.plane.looked = Pace::default();
            assert!(!bench.plane.is_intact().unwrap(), "{index} {family}");
            bench.apply(&Changed::Everything);
            assert_eq!(bench.tables.dump(family), before, "{index} {family}");
        }
    }
}

#[test]
fn fewer_rules_in_a_legacy_table_are_noticed_at_once() {
    let mut bench = Bench::on(FakeXtables::new(true), settings());
    bench.apply(&Changed::Everything);
    bench.put(web(&TWO));
    assert!(bench.plane.is_intact().unwrap());
    // As if looking had taken so long that the next time is minutes away.
    bench.plane.looked = Pace::after(Duration::from_secs(10));
    bench.tables.foreign(IpFamily::V4, "*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n");
    assert!(bench.plane.is_intact().unwrap());
    bench.tables.flush(IpFamily::V4, Table::Nat);
    assert!(!bench.plane.is_intact().unwrap());
    bench.apply(&Changed::Everything);
    assert!(bench.plane.is_intact().unwrap());
}

#[test]
fn a_removal_the_kernel_tells_of_is_looked_at_before_it_is_time() {
    let mut bench = Bench::with(settings(), web(&TWO));
    // Looking took 2 s a minute ago: too soon for the regular look, not for this one.
    let minute_ago = || Pace::after(Duration::from_secs(2)).earlier_by(Duration::from_secs(60));
    bench.plane.looked = minute_ago();
    assert!(bench.plane.is_intact().unwrap());
    bench.tables.flush(IpFamily::V4, Table::Nat);
    bench.plane.looked = Pace::after(Duration::from_secs(2));
    assert!(bench.plane.is_intact().unwrap(), "it takes a tenth of the time at most");
    bench.plane.looked = minute_ago();
    assert!(!bench.plane.is_intact().unwrap());
}

#[test]
fn after_an_error_the_kernel_is_read_again() {
    let mut bench = Bench::with(settings(), web(&TWO));
    bench.tables.fail_next();
    bench.desired.ports.insert(key("web"), Arc::new(web(&THREE)));
    bench.plane.apply(&bench.desired, &Changed::Ports(vec![key("web")])).unwrap_err();
    // Even for a caller that forgets to say Everything.
    bench.apply(&Changed::Ports(Vec::new()));
    assert_eq!(bench.nat("KUBE-SVC-web").len(), 3);
}

const FOREIGN: &str = "\
*nat
:CNI-HOSTPORT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A PREROUTING -j CNI-HOSTPORT
-A CNI-HOSTPORT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.9:80
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
-A FORWARD -i cni0 -j ACCEPT
COMMIT
";

#[test]
fn foreign_rules_stay_and_removal_leaves_only_them() {
    let mut bench = Bench::new(settings());
    bench.tables.foreign(IpFamily::V4, FOREIGN);
    let before = bench.tables.dump(IpFamily::V4);
    bench.apply(&Changed::Everything);
    bench.put(open_web(&TWO));
    assert_eq!(bench.filter("KUBE-FIREWALL"), ["-m mark --mark 0x8000/0x8000 -j DROP"]);
    assert_eq!(bench.nat("PREROUTING").last().unwrap(), "-j CNI-HOSTPORT");
    cleanup::remove(&mut bench.tables.clone()).unwrap();
    assert_eq!(bench.tables.dump(IpFamily::V4), before);
    bench.tables.take_inputs();
    cleanup::remove(&mut bench.tables.clone()).unwrap();
    assert_eq!(bench.tables.take_inputs(), [""; 0], "twice is fine");
}

#[test]
fn rule_12_7_kubelets_chain_gets_what_it_lacks() {
    let mut bench = Bench::new(PacketSettings::default());
    bench.tables.foreign(IpFamily::V4, FOREIGN);
    bench.apply(&Changed::Everything);
    let firewall = bench.filter("KUBE-FIREWALL");
    assert_eq!(firewall.len(), 2);
    assert_eq!(firewall[0], "-m mark --mark 0x8000/0x8000 -j DROP");
    let jumps = bench.filter("INPUT").iter().filter(|rule| rule.ends_with("-j KUBE-FIREWALL")).count();
    assert_eq!(jumps, 1);
}

#[test]
fn a_kube_proxys_rules_are_taken_over_in_place() {
    let mut bench = Bench::new(settings());
    bench.tables.foreign(
        IpFamily::V4,
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]\n-A PREROUTING -m comment --comment \"kubernetes \
         service portals\" -j KUBE-SERVICES\n-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA\nCOMMIT\n",
    );
    bench.desired.ports.insert(key("web"), Arc::new(web(&TWO)));
    bench.apply(&Changed::Everything);
    assert_eq!(bench.nat("PREROUTING").len(), 1);
    assert!(!bench.tables.dump(IpFamily::V4).contains("AAAAAAAAAAAAAAAA"));
}

#[test]
fn turns_survive_a_change_where_tables_are_replaced() {
    for replaces in [true, false] {
        let mut bench = Bench::on(FakeXtables::new(replaces), settings());
        bench.apply(&Changed::Everything);
        bench.put(web(&THREE));
        bench.tables.count(IpFamily::V4, &long("KUBE-SVC-web"), &[3, 3, 2]);
        bench.put(other("other"));
        let kept = [
            "-m statistic --mode nth --every 3 --packet 1 -j KUBE-SEP-1.2",
            "-m statistic --mode nth --every 2 --packet 1 -j KUBE-SEP-1.3",
        ];
        assert_eq!(bench.nat("KUBE-SVC-web")[..2] == kept, replaces, "{:?}", bench.nat("KUBE-SVC-web"));
        bench.tables.take_inputs();
        bench.restart();
        assert_eq!(bench.tables.take_inputs(), [""; 0], "a turn is no difference");
    }
}

#[test]
fn connections_are_those_of_the_endpoints_chains() {
    let mut bench = Bench::with(settings(), web(&TWO));
    bench.tables.count(IpFamily::V4, &long("KUBE-SEP-2.2"), &[1, 7]);
    let counted: Vec<_> = bench.plane.connections(&key("web")).unwrap().iter().map(|c| c.connections).collect();
    assert_eq!(counted, [0, 7]);
    bench.put(web(&THREE));
    let counted: Vec<_> = bench.plane.connections(&key("web")).unwrap().iter().map(|c| c.connections).collect();
    assert_eq!(counted, [0, 0, 7], "the chain stays, and its counter");
    assert!(bench.plane.connections(&key("nobody")).unwrap().is_empty());
}
