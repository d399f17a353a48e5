//! The data plane on tables in memory: rules one by one, what a change costs, properties.

mod changes;
mod properties;
mod refusals;
mod rules;

use std::{sync::Arc, time::Duration};

use super::{Iptables, fake::FakeXtables, names::Table};
use crate::{
    dataplane::{Changed, DataPlane, Desired},
    model::IpFamily,
    nftables::testing::{endpoints, key, plan},
    plan::{Endpoint, Frontend, LocalTraffic, Outcome, PacketSettings, PlanKey, ServicePortPlan},
};

struct Bench {
    tables: FakeXtables,
    plane: Iptables,
    settings: PacketSettings,
    desired: Desired,
}

impl Bench {
    fn new(settings: PacketSettings) -> Self {
        Self::on(FakeXtables::new(false), settings)
    }

    /// On tables that are there already.
    fn on(tables: FakeXtables, settings: PacketSettings) -> Self {
        let plane = Iptables::with(settings.clone(), Box::new(tables.clone()));
        let node_port_addresses = ["172.30.0.1", "fd30::1"].map(|a| a.parse().unwrap()).into();
        Self { tables, plane, settings, desired: Desired { node_port_addresses, ..Desired::default() } }
    }

    /// A started plane with one Service port.
    fn with(settings: PacketSettings, plan: ServicePortPlan) -> Self {
        let mut bench = Self::new(settings);
        bench.apply(&Changed::Everything);
        bench.put(plan);
        bench
    }

    fn restart(&mut self) {
        self.plane = Iptables::with(self.settings.clone(), Box::new(self.tables.clone()));
        self.apply(&Changed::Everything);
    }

    fn apply(&mut self, changed: &Changed) {
        self.plane.apply(&self.desired, changed).unwrap();
        assert_eq!(self.tables.unreferenced(), Vec::<String>::new());
    }

    /// Sets or removes plans, applies just that, and returns what was run.
    fn change(&mut self, changes: &[(PlanKey, Option<ServicePortPlan>)]) -> Vec<String> {
        self.tables.take_inputs();
        for (key, plan) in changes {
            match plan {
                Some(plan) => self.desired.ports.insert(key.clone(), Arc::new(plan.clone())),
                None => self.desired.ports.remove(key),
            };
        }
        self.apply(&Changed::Ports(changes.iter().map(|(key, _)| key.clone()).collect()));
        self.tables.take_inputs()
    }

    fn put(&mut self, plan: ServicePortPlan) -> Vec<String> {
        self.change(&[(plan.key.clone(), Some(plan))])
    }

    fn nat(&self, chain: &str) -> Vec<String> {
        self.rules(Table::Nat, chain)
    }

    fn filter(&self, chain: &str) -> Vec<String> {
        self.rules(Table::Filter, chain)
    }

    fn rules(&self, table: Table, chain: &str) -> Vec<String> {
        self.tables.rules(IpFamily::V4, table, &long(chain)).iter().map(|rule| short(rule)).collect()
    }
}

/// Without NodePorts at 127.0.0.1, which only add to every dump.
fn settings() -> PacketSettings {
    PacketSettings { localhost_node_ports: false, ..PacketSettings::default() }
}

fn pods_in(cidr: &str) -> PacketSettings {
    let v4 = Some(cidr.parse().unwrap());
    PacketSettings { local_traffic: LocalTraffic::Cidrs { v4, v6: None }, ..settings() }
}

const TWO: [&str; 2] = ["10.244.1.2:80", "10.244.2.2:80"];
const THREE: [&str; 3] = ["10.244.1.2:80", "10.244.1.3:80", "10.244.2.2:80"];

fn cluster_ip() -> Frontend {
    Frontend::ClusterIp("10.96.0.1:80".parse().unwrap())
}

fn external_ip() -> Frontend {
    Frontend::ExternalIp("192.0.2.1:80".parse().unwrap())
}

fn load_balancer() -> Frontend {
    Frontend::LoadBalancer("192.0.2.2:80".parse().unwrap())
}

/// `default/web` with a ClusterIP.
fn web(addresses: &[&str]) -> ServicePortPlan {
    let mut plan = plan(key("web"), endpoints(addresses));
    plan.frontends = vec![cluster_ip()];
    plan
}

/// The same, reachable from outside too.
fn open_web(addresses: &[&str]) -> ServicePortPlan {
    let mut plan = web(addresses);
    plan.frontends = vec![cluster_ip(), external_ip(), load_balancer(), Frontend::NodePort(30080)];
    plan
}

/// externalTrafficPolicy Local with one of the endpoints on this node.
fn local_web() -> ServicePortPlan {
    let mut plan = open_web(&TWO);
    plan.external = endpoints(&TWO[..1]);
    plan.masquerade_external = false;
    plan
}

/// Short forms of the hashes of `default/web` and its endpoints, which `names` tests.
const HASHES: [(&str, &str); 4] = [
    ("LOLE4ISW44XBNF3G", "web"),
    ("MQ4W7Q2CV67URU6Q", "1.2"),
    ("MHDQ23KUGG7EGFMW", "1.3"),
    ("QHWUG6SOC7OJ2BZK", "2.2"),
];

fn short(text: &str) -> String {
    HASHES.iter().fold(text.to_owned(), |text, (hash, name)| text.replace(hash, name))
}

fn long(text: &str) -> String {
    HASHES.iter().fold(text.to_owned(), |text, (hash, name)| text.replace(&format!("-{name}"), &format!("-{hash}")))
}
