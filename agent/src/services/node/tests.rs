use std::sync::{Arc, Mutex};

use weft_proxy::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections},
    model::api::Node,
    plan::{Change, PlanKey, PlannerConfig},
};

use super::*;

/// A data plane that does nothing.
struct Idle;

impl DataPlane for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn apply(&mut self, _: &Desired, _: &Changed) -> Result<(), DataPlaneError> {
        Ok(())
    }

    fn connections(&self, _: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        Ok(Vec::new())
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        Ok(())
    }
}

struct Bench {
    settings: NodeSettings,
    planner: Planner,
    planes: Planes,
    /// What packet planes were made for.
    made: Arc<Mutex<Vec<LocalTraffic>>>,
}

impl Bench {
    fn new(allowed: NodePortAddresses, local_traffic_of_node: bool) -> Self {
        let made = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&made);
        let packets: PacketPlane = Box::new(move |local_traffic| {
            noted.lock().unwrap().push(local_traffic);
            Box::new(Idle)
        });
        Self {
            settings: NodeSettings {
                allowed,
                local_traffic_of_node,
                packets,
                addresses: None,
                pod_cidrs: PodCidrs::default(),
                waiting_since: None,
            },
            planner: Planner::new(PlannerConfig::new("n1")),
            planes: Planes::new(vec![Box::new(Idle)]),
            made,
        }
    }

    fn addresses(&mut self, addresses: &[&str]) {
        self.settings.addresses_are(addresses.iter().map(|ip| ip.parse().unwrap()).collect());
    }

    fn node(&mut self, yaml: &str) {
        let node: Node = serde_saphyr::from_str(yaml).unwrap();
        self.planner.apply(Change::Apply(node.into())).unwrap();
    }

    fn serving(&mut self) -> String {
        self.settings.follow(&mut self.planner, &mut self.planes);
        let addresses = &self.planner.desired().node_port_addresses;
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    fn is_known(&mut self) -> bool {
        self.settings.is_known(&self.planner)
    }
}

const V4: &str = "{metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.7}]}}";

#[test]
fn rule_6_3_primary_follows_the_node_and_its_interfaces() {
    let mut bench = Bench::new(NodePortAddresses::Primary, false);
    assert!(!bench.is_known(), "no addresses yet");
    bench.addresses(&["127.0.0.1", "::1", "172.30.0.1", "fd00::1"]);
    assert!(!bench.is_known(), "no Node yet");
    bench.node(V4);
    assert!(bench.is_known());
    assert_eq!(
        bench.serving(),
        "fd00::1",
        "its address is on no interface; the other family has all, without loopback"
    );
    bench.addresses(&["127.0.0.1", "192.0.2.7", "172.30.0.1"]);
    assert_eq!(bench.serving(), "192.0.2.7");
    bench.node("{metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 172.30.0.1}]}}");
    assert_eq!(bench.serving(), "172.30.0.1");
}

#[test]
fn nobody_waits_for_a_node_for_ever() {
    let mut bench = Bench::new(NodePortAddresses::Primary, true);
    bench.addresses(&["192.0.2.7"]);
    assert!(!bench.is_known());
    bench.settings.waiting_since = Instant::now().checked_sub(PATIENCE);
    assert!(bench.is_known() && bench.is_known());
    assert_eq!(bench.serving(), "192.0.2.7", "all");
    let mut bench = Bench::new(NodePortAddresses::default(), false);
    bench.addresses(&[]);
    assert!(bench.is_known(), "nothing depends on the Node");
}

#[test]
fn rule_8_8_node_cidr_makes_the_packet_plane_anew_only_when_it_changes() {
    let mut bench = Bench::new(NodePortAddresses::default(), true);
    bench.addresses(&["192.0.2.7"]);
    assert!(!bench.is_known());
    bench.node("{metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24, 'fd44::/64']}}");
    assert!(bench.is_known());
    for _ in 0..2 {
        bench.serving();
    }
    let cidrs = |v4: &str, v6: Option<&str>| LocalTraffic::Cidrs {
        v4: Some(v4.parse().unwrap()),
        v6: v6.map(|cidr| cidr.parse().unwrap()),
    };
    assert_eq!(*bench.made.lock().unwrap(), [cidrs("10.244.1.0/24", Some("fd44::/64"))]);
    bench.node("{metadata: {name: n1}, spec: {podCIDRs: [10.244.2.0/24]}}");
    bench.serving();
    assert_eq!(bench.made.lock().unwrap().last(), Some(&cidrs("10.244.2.0/24", None)));
    assert!(bench.planes.is_pending());
}

#[test]
fn rule_6_8_health_checks_listen_at_all_addresses_or_at_those_meant() {
    let mut bench =
        Bench::new(NodePortAddresses::parse(&["127.0.0.0/8".into(), "192.0.2.0/24".into()]).unwrap(), false);
    bench.addresses(&["127.0.0.1", "192.0.2.7", "172.30.0.1", "fd00::1"]);
    let listening = bench.settings.listening(NodeIps::default());
    assert_eq!(listening[&IpFamily::V4], ["127.0.0.1", "192.0.2.7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(listening[&IpFamily::V6], [IpAddr::from(Ipv6Addr::UNSPECIFIED)]);
}
