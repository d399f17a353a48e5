//! What passes cost, counted in requests to the kernel: times depend on the machine (`cargo xtask bench overlay` has them).

use std::process::Command;

use tokio::sync::watch;
use weft_netlink::Netns;

use super::*;
use crate::{lease::Mac, lease::VtepData, netconf::SubnetSource};

const DUAL_STACK: &str =
    r#"{"Network":"10.0.0.0/8","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fd44::/32","IPv6SubnetLen":64}"#;

/// Node `number`, with the public addresses of host `host`.
fn lease(number: u16, host: u16) -> Lease {
    let [high, low] = number.to_be_bytes();
    let vtep = |kind| Some(VtepData { vni: 1, mac: Mac([2, 0, 0, kind, high, low]) });
    let [host_high, host_low] = host.to_be_bytes();
    Lease {
        subnets: format!("10.{high}.{low}.0-24&fd44:0:0:{number:x}::-64").parse().unwrap(),
        attributes: LeaseAttributes {
            public_ip: Some([172, 31, host_high, host_low].into()),
            public_ipv6: Some([0xfd99, 0, 0, 0, 0, 0, 0, host].into()),
            backend_type: "vxlan".into(),
            backend_data: vtep(4),
            backend_v6_data: vtep(6),
        },
    }
}

/// A node with the lease 1, in a namespace of its own.
struct Bench {
    reconciler: Reconciler,
    others: BTreeMap<u16, Lease>,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(peers: u16) -> Self {
        for command in ["link add eth0 type veth peer name wire", "link set eth0 up", "link set wire up"] {
            assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "{command}");
        }
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            node_name: "n1".into(),
            net_conf: NetConf::parse(DUAL_STACK, SubnetSource::Allocated).unwrap(),
            interface: InterfaceChoice::default(),
            ip_masq: false,
            forward_rules: false,
            conntrack_bypass: ConntrackBypass::Off,
            checksum_offload: ChecksumOffload::Auto,
            subnet_file: directory.path().join("subnet.env"),
        };
        let netlink = Netlink::open().unwrap();
        let link = netlink.link_by_name("eth0").unwrap().unwrap().index;
        let underlay = Family::ALL.map(|family| {
            let address = lease(1, 1).attributes.public_address(family).unwrap();
            (family, Underlay { link, name: "eth0".into(), mtu: 1500, address, public_address: address })
        });
        let others: BTreeMap<_, _> = (2..2 + peers).map(|number| (number, lease(number, number))).collect();
        let joined = Joined {
            lease: lease(1, 1),
            requested: lease(1, 1).attributes,
            snapshots: watch::channel(None).1,
            snapshot: snapshot(&others),
        };
        let reconciler = Reconciler::new(settings, netlink, underlay.into(), &joined);
        Self { reconciler, others, _directory: directory }
    }

    /// The requests of one pass, after the change of peers.
    fn cost(&mut self, change: impl FnOnce(&mut BTreeMap<u16, Lease>)) -> u32 {
        change(&mut self.others);
        let before = self.reconciler.netlink.requests();
        self.reconciler.set_snapshot(snapshot(&self.others));
        self.reconciler.pass(Cause::NewDesired, Instant::now());
        assert_eq!(self.reconciler.retries.errors().collect::<Vec<_>>(), []);
        self.reconciler.netlink.requests() - before
    }
}

fn snapshot(others: &BTreeMap<u16, Lease>) -> Arc<LeaseSnapshot> {
    let mut leases = vec![lease(1, 1)];
    leases.extend(others.values().cloned());
    Arc::new(LeaseSnapshot { leases, ..LeaseSnapshot::default() })
}

#[test]
fn the_cost_of_a_change_does_not_depend_on_the_number_of_peers() {
    for peers in [3, 1000] {
        let count = || {
            let mut bench = Bench::new(peers);
            let first = bench.cost(|_| {});
            // Neighbour, FDB entry and route, in both families; the node itself and the look before it take the rest.
            assert!((6 * u32::from(peers)..=6 * u32::from(peers) + 40).contains(&first), "{peers} peers: {first}");
            assert_eq!(bench.cost(|_| {}), 0, "nothing changed");
            assert_eq!(bench.cost(|others| _ = others.insert(5000, lease(5000, 5000))), 6, "a peer came");
            // In each family the FDB entry is replaced; that nothing is left of the old one is made sure.
            assert_eq!(bench.cost(|others| _ = others.insert(5000, lease(5000, 5001))), 4, "its address changed");
            assert_eq!(bench.cost(|others| _ = others.remove(&5000)), 6, "it left");
            let routes = Command::new("ip").args(["-6", "route", "show", "dev", "flannel-v6.1"]).output().unwrap();
            let routes = String::from_utf8(routes.stdout).unwrap();
            assert_eq!(routes.matches("onlink").count(), usize::from(peers), "{routes}");
        };
        Netns::create().unwrap().run(count).unwrap();
    }
}

#[test]
fn while_leases_are_missing_no_peer_is_removed() {
    let lose = || {
        let mut bench = Bench::new(3);
        bench.cost(|_| {});
        bench.others = [(5, lease(5, 5))].into();
        let told = "Nodes: the API server lists 2 where there were 4".to_owned();
        let few = LeaseSnapshot { incomplete: Some(told.clone()), ..(*snapshot(&bench.others)).clone() };
        let mut pass = |snapshot| {
            bench.reconciler.set_snapshot(snapshot);
            bench.reconciler.pass(Cause::NewDesired, Instant::now());
            let routes = Command::new("ip").args(["route", "show", "dev", "flannel.1"]).output().unwrap();
            let status = bench.reconciler.status("kube".into(), None);
            (String::from_utf8(routes.stdout).unwrap().lines().count(), status.ready, status.error)
        };
        assert_eq!(pass(Arc::new(few)), (4, true, Some(told)));
        assert_eq!(pass(snapshot(&[(5, lease(5, 5))].into())), (1, true, None));
    };
    Netns::create().unwrap().run(lose).unwrap();
}

#[test]
fn a_peer_that_fails_delays_no_other() {
    let fail = || {
        let mut bench = Bench::new(3);
        bench.cost(|_| {});
        // Its gateway is an address of this node: the kernel refuses the route.
        let ip = |command: &str| assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success());
        ip("address add 10.0.7.0/32 dev eth0");
        bench.others.extend([6, 7, 8].map(|number| (number, lease(number, number))));
        bench.reconciler.set_snapshot(snapshot(&bench.others));
        let begin = Instant::now();
        bench.reconciler.pass(Cause::NewDesired, begin);
        let routes = || {
            let routes = Command::new("ip").args(["route", "show", "dev", "flannel.1"]).output().unwrap();
            String::from_utf8(routes.stdout).unwrap().lines().count()
        };
        let failed: Vec<_> = bench.reconciler.retries.errors().map(|(task, _)| *task).collect();
        assert_eq!(failed, [Task::Kernel(Family::V4, Subject::Peer("10.0.7.0/24".parse().unwrap()))]);
        assert_eq!((routes(), bench.reconciler.is_ready()), (5, true));
        // It is tried again on its own.
        ip("address delete 10.0.7.0/32 dev eth0");
        bench.reconciler.pass(Cause::Event, bench.reconciler.next_time().unwrap());
        assert_eq!((routes(), bench.reconciler.retries.errors().count()), (6, 0));
    };
    Netns::create().unwrap().run(fail).unwrap();
}
