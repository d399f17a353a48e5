//! The cluster that scenarios run in: two nodes, servers and clients everywhere, a gateway that shows what nobody took.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_tests::{Asker, Cluster, OUTSIDE_V4, OUTSIDE_V6, Place, Pod, Request, eventually, secs};

use crate::{
    objects::{At, Family, Server, service},
    scenario::{Client, Flags, Group, Mode, Outcome, Step, Target},
};

/// Ports of the gateway: all that scenarios send to at addresses of Services.
const GATEWAY_PORTS: [u16; 3] = [80, 81, 82];
/// Networks that Services' addresses come from.
const SERVICE_NETWORKS: [&str; 6] =
    ["10.96.0.0/16", "198.51.0.0/16", "203.0.0.0/16", "2001:db8:96::/48", "2001:db8:51::/48", "2001:db8:113::/48"];
/// Second addresses of n1.
pub(crate) const SECOND: [&str; 2] = ["192.0.2.101", "2001:db8::1:101"];
/// The last group: its Service tells that all before it are there.
const CANARY: At = At { group: 255, service: 0 };

/// Addresses of the servers.
#[derive(Debug, Default)]
pub(crate) struct Addresses(HashMap<(Server, Family), IpAddr>);

impl Addresses {
    pub(crate) fn of(&self, server: Server, family: Family) -> IpAddr {
        self.0[&(server, family)]
    }
}

/// A cluster with all objects of some groups.
pub(crate) struct World {
    pub(crate) mode: Mode,
    addresses: Addresses,
    clients: HashMap<Client, Asker>,
    /// Own addresses of the clients.
    own: HashMap<(Client, Family), BTreeSet<IpAddr>>,
    n2: BTreeSet<IpAddr>,
    _servers: Vec<weft_tests::Server>,
    _pods: Vec<Pod>,
    cluster: Cluster,
}

impl World {
    /// Builds it; agents get their objects from an API server if asked for.
    pub(crate) fn build(mode: Mode, flags: Flags, api_server: bool, groups: &[(u8, &Group)]) -> Result<Self> {
        let mut builder = Cluster::builder().nodes(2).dual_stack().host("gateway").without_agents();
        builder = builder.agent_flag("--proxy-mode", mode.name());
        for (name, value) in flags.of_agents() {
            builder = builder.agent_flag(name, value);
        }
        if api_server {
            builder = builder.api_server();
        }
        let cluster = builder.build()?;
        // Before the agents, some of which read their Node when they start.
        cluster.manifests().apply("nodes.yaml", &nodes(&cluster, "z1"))?;
        cluster.start_agents()?;
        route(&cluster)?;
        for (group, _) in groups.iter().filter(|(_, group)| group.load_balancer_on_n1) {
            for address in (At { group: *group, service: 0 }).both(At::load_balancer) {
                let address = address.to_string();
                cluster.node(1).run("ip", &["address", "add", &address, "dev", "lo"])?;
            }
        }
        let mut pods = Vec::new();
        for (node, name) in [(1, "a1"), (1, "a2"), (1, "client-1"), (2, "b1"), (2, "b2"), (2, "client-2")] {
            pods.push(cluster.node(node).pod(name)?);
        }
        let mut servers = vec![cluster.host("gateway").0.serve_ports("gateway", &GATEWAY_PORTS)?];
        for pod in pods.iter().filter(|pod| !pod.name().starts_with("client")) {
            servers.push(pod.serve_ports(pod.name(), &[8080])?);
            servers.push(pod.serve_ports(&format!("{}:8081", pod.name()), &[8081])?);
        }
        let mut host_ports = vec![8080];
        host_ports.extend(node_ports(groups));
        servers.push(cluster.node(1).serve_ports("n1", &host_ports)?);

        let addresses = server_addresses(&cluster, &pods)?;
        let places: [(Client, &Place); 5] = [
            (Client::Pod, &pods[2]),
            (Client::PodElsewhere, &pods[5]),
            (Client::PodA1, &pods[0]),
            (Client::Node, cluster.node(1)),
            (Client::Outside, cluster.outside()),
        ];
        let mut own = HashMap::new();
        let mut clients = HashMap::new();
        for (client, place) in places {
            let all = if client == Client::Outside {
                BTreeSet::from([OUTSIDE_V4.into(), OUTSIDE_V6.into()])
            } else {
                own_addresses(place)?
            };
            for family in Family::BOTH {
                let of_family = all.iter().copied().filter(|ip| ip.is_ipv6() == (family == Family::V6));
                own.insert((client, family), of_family.collect());
            }
            clients.insert(client, place.asker()?);
        }
        let n2 = own_addresses(cluster.node(2))?;
        let world = Self { mode, addresses, clients, own, n2, _servers: servers, _pods: pods, cluster };
        world.apply_all(groups)?;
        Ok(world)
    }

    pub(crate) fn client(&self, client: Client) -> &Asker {
        &self.clients[&client]
    }

    /// Addresses that the client has itself.
    pub(crate) fn own(&self, client: Client, family: Family) -> &BTreeSet<IpAddr> {
        &self.own[&(client, family)]
    }

    /// Addresses of n2, of both families.
    pub(crate) fn n2(&self) -> &BTreeSet<IpAddr> {
        &self.n2
    }

    /// The address a target means.
    pub(crate) fn address(&self, target: Target, at: &At, family: Family) -> Result<IpAddr> {
        let v4 = family == Family::V4;
        let node = |number: usize| {
            let node = self.cluster.node(number);
            if v4 { IpAddr::V4(node.v4()) } else { node.v6().into() }
        };
        Ok(match target {
            Target::ClusterIp => at.cluster_ip(family),
            Target::ExternalIp => at.external(family),
            Target::LoadBalancer => at.load_balancer(family),
            Target::UnusedClusterIp => At { service: at.service + 100, ..*at }.cluster_ip(family),
            Target::NodePort => node(1),
            Target::NodePortElsewhere => node(2),
            Target::NodePortSecond => SECOND[usize::from(!v4)].parse()?,
            Target::NodePortLoopback => if v4 { "127.0.0.1" } else { "::1" }.parse()?,
            Target::NodePortTunnel => {
                let device = if v4 { "flannel.1" } else { "flannel-v6.1" };
                let text =
                    self.cluster.node(1).run("ip", &["-j", "address", "show", "dev", device, "scope", "global"])?;
                let links: Value = serde_json::from_str(&text)?;
                let ip = links.pointer("/0/addr_info/0/local").and_then(Value::as_str).unwrap_or_default();
                ip.parse()?
            }
        })
    }

    /// Replaces the objects of one group.
    pub(crate) fn change(&self, group: u8, services: &[crate::objects::Service]) -> Result<()> {
        self.cluster.manifests().apply(&format!("group-{group}.yaml"), &self.yaml(group, services))
    }

    /// Puts n1 into another zone.
    pub(crate) fn move_n1(&self, zone: &str) -> Result<()> {
        self.cluster.manifests().apply("nodes.yaml", &nodes(&self.cluster, zone))
    }

    pub(crate) fn shutdown(self) -> Result<()> {
        drop((self.clients, self._servers));
        self._pods.into_iter().try_for_each(Pod::remove)?;
        self.cluster.shutdown()
    }

    fn apply_all(&self, groups: &[(u8, &Group)]) -> Result<()> {
        let mut all = String::new();
        for (number, group) in groups {
            if group.steps.iter().any(|step| matches!(step, Step::Change(_))) {
                self.change(*number, &group.services)?;
            } else {
                all += &self.yaml(*number, &group.services);
            }
        }
        self.cluster.manifests().apply("groups.yaml", &all)?;
        let canary = service().on([Server::A1]).node_port();
        self.cluster.manifests().apply("z.yaml", &documents(&canary.objects(&CANARY, &self.addresses)))?;
        for (client, target) in [
            (Client::Pod, Target::ClusterIp),
            (Client::PodElsewhere, Target::ClusterIp),
            (Client::Outside, Target::NodePort),
            (Client::Outside, Target::NodePortElsewhere),
        ] {
            for family in Family::BOTH {
                let port = if target == Target::ClusterIp { 80 } else { CANARY.node_port(0) };
                let address = (self.address(target, &CANARY, family)?, port).into();
                let request = Request::tcp(address).timeout(secs(1));
                eventually(secs(30), || {
                    let answers = self.client(client).ask(&request)?.all_good()?;
                    ensure!(answers.by_name.contains_key("a1"), "{}", answers.counts());
                    Ok::<_, anyhow::Error>(())
                })?;
            }
        }
        Ok(())
    }

    fn yaml(&self, group: u8, services: &[crate::objects::Service]) -> String {
        let services = (0..).zip(services);
        services.map(|(service, spec)| documents(&spec.objects(&At { group, service }, &self.addresses))).collect()
    }
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// What nodes do not take goes to the gateway, which answers at every address of Services. The host outside sends to those
/// by way of n1.
fn route(cluster: &Cluster) -> Result<()> {
    let (gateway, (gateway_v4, gateway_v6)) = cluster.host("gateway");
    let run = |place: &Place, script: &str| place.run("sh", &["-ec", script]).map(drop);
    for node in cluster.nodes() {
        // Many are refused at once here, and the kernel holds back ICMP errors to one client beyond one a second (icmp(7)).
        run(node, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")?;
        run(node, &format!("ip route replace default via {gateway_v4}; ip -6 route replace default via {gateway_v6}"))?;
    }
    let n1 = cluster.node(1);
    for host in [gateway, cluster.outside()] {
        // Or they would learn to send directly what is to pass n1.
        let all = ["ipv4", "ipv6"]
            .map(|ip| format!("sysctl -qw net.{ip}.conf.all.accept_redirects=0 net.{ip}.conf.eth0.accept_redirects=0"));
        run(host, &all.join("; "))?;
    }
    // Answers take the way of the questions, or conntrack of n1 would see one half of a connection.
    run(gateway, &format!("ip route add {OUTSIDE_V4} via {}; ip route add {OUTSIDE_V6} via {}", n1.v4(), n1.v6()))?;
    run(n1, &format!("ip address add {}/24 dev eth0; ip address add {}/64 dev eth0 nodad", SECOND[0], SECOND[1]))?;
    for network in SERVICE_NETWORKS {
        let via = if network.contains(':') { n1.v6().to_string() } else { n1.v4().to_string() };
        run(gateway, &format!("ip route add local {network} dev lo"))?;
        run(cluster.outside(), &format!("ip route add {network} via {via}"))?;
    }
    Ok(())
}

/// NodePorts at which a process of n1 must answer, since nothing else takes them.
fn node_ports(groups: &[(u8, &Group)]) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for (number, group) in groups {
        for row in group.rows().filter(|row| row.target.is_node_port()) {
            if group.listener || Mode::ALL.iter().any(|mode| *row.outcome(*mode) == Outcome::Untouched) {
                let index = crate::run::port_index(row, group);
                ports.insert(At { group: *number, service: row.service }.node_port(index));
            }
        }
    }
    ports
}

fn server_addresses(cluster: &Cluster, pods: &[Pod]) -> Result<Addresses> {
    let mut addresses = Addresses::default();
    for server in Server::ALL {
        let (v4, v6) = match pods.iter().find(|pod| pod.name() == server.name()) {
            Some(pod) => (pod.socket_v4(0)?.ip(), pod.socket_v6(0)?.ip()),
            None => (cluster.node(1).v4().into(), cluster.node(1).v6().into()),
        };
        addresses.0.insert((server, Family::V4), v4);
        addresses.0.insert((server, Family::V6), v6);
    }
    Ok(addresses)
}

fn own_addresses(place: &Place) -> Result<BTreeSet<IpAddr>> {
    let links: Vec<Value> = serde_json::from_str(&place.run("ip", &["-j", "address"])?)?;
    let all = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    Ok(all.filter_map(|address| address["local"].as_str()?.parse().ok()).collect())
}

/// The Node objects: n2 in zone z2. Their pod CIDRs are the whole network, since which part of it a node gets is not known yet.
fn nodes(cluster: &Cluster, zone_of_n1: &str) -> String {
    let nodes = cluster.nodes().iter().map(|node| {
        let zone = if node.name() == "n1" { zone_of_n1 } else { "z2" };
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name(), "labels": {"topology.kubernetes.io/zone": zone}},
            "spec": {"podCIDR": "10.244.0.0/16", "podCIDRs": ["10.244.0.0/16", "2001:db8:42::/56"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": node.v4()},
                {"type": "InternalIP", "address": node.v6()},
            ]},
        })
    });
    documents(&nodes.collect::<Vec<_>>())
}
