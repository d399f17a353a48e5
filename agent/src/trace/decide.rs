//! What the plan says about a connection: which frontend it asks for, which rule of the policy applies, who may answer.
//!
//! Pure. What the kernel says is read elsewhere and compared with this. Numbers are those of kube-proxy.md.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use weft_proxy::{
    dataplane::Desired,
    live::Probe,
    model::{IpFamily, Protocol},
    plan::{Endpoint, Frontend, Outcome, PacketSettings, ServicePortPlan},
};

/// What of the configuration decides, beside the plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    /// The data planes of this node.
    pub(crate) mode: Mode,
    /// In `ebpf` mode: whether packets are served ClusterIPs too.
    pub(crate) second_line: bool,
    /// Who counts as local traffic, and more.
    pub(crate) packets: PacketSettings,
}

/// The data planes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Sockets, and nftables for packets.
    Ebpf,
    /// nftables alone.
    Nftables,
    /// iptables alone.
    Iptables,
}

impl Mode {
    /// What decides about packets.
    pub(crate) const fn packet_path(self) -> &'static str {
        match self {
            Self::Ebpf | Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No Service is concerned.
    Untouched,
    /// It goes to one of these.
    Endpoints(Vec<Endpoint>),
    /// It is refused.
    Reject,
    /// It is dropped.
    Drop,
}

/// What the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    /// The Service port and the frontend of it that is asked for.
    pub(crate) frontend: Option<(&'a ServicePortPlan, Frontend)>,
    /// Why, in words.
    pub(crate) rule: String,
    pub(crate) fate: Fate,
    /// Whether Services make it leave with an address of this node.
    pub(crate) masquerade: bool,
    /// Whether that is for the socket programs to do.
    pub(crate) at_socket: bool,
}

/// The plan, to be asked for many frontends.
pub(crate) struct Index<'a> {
    desired: &'a Desired,
    addresses: HashMap<(SocketAddr, Protocol), (&'a ServicePortPlan, Frontend)>,
    node_ports: HashMap<(u16, Protocol, IpFamily), &'a ServicePortPlan>,
    cluster_ips: HashSet<IpAddr>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(desired: &'a Desired) -> Self {
        let (mut addresses, mut node_ports, mut cluster_ips) = (HashMap::new(), HashMap::new(), HashSet::new());
        for plan in desired.ports.values().map(AsRef::as_ref) {
            let protocol = plan.key.port.protocol;
            for frontend in &plan.frontends {
                match frontend {
                    Frontend::NodePort(port) => _ = node_ports.insert((*port, protocol, plan.key.family), plan),
                    Frontend::ClusterIp(at) | Frontend::ExternalIp(at) | Frontend::LoadBalancer(at) => {
                        addresses.insert((*at, protocol), (plan, *frontend));
                    }
                }
                if let Frontend::ClusterIp(at) = frontend {
                    cluster_ips.insert(at.ip());
                }
            }
        }
        Self { desired, addresses, node_ports, cluster_ips }
    }

    /// All ports of the Service `namespace/name`.
    pub(crate) fn service(&self, name: &str) -> impl Iterator<Item = &'a ServicePortPlan> {
        let (namespace, name) = name.split_once('/').unwrap_or_default();
        let plans = self.desired.ports.values().map(AsRef::as_ref);
        plans.filter(move |plan| {
            let service = &plan.key.port.service;
            *service.namespace == *namespace && *service.name == *name
        })
    }

    /// What becomes of a connection.
    pub(crate) fn decide(&self, probe: &Probe, rules: &Rules) -> Decision<'a> {
        let at = probe.destination;
        if let Some((plan, frontend)) = self.addresses.get(&(at, probe.protocol)) {
            return served(plan, *frontend, probe, rules);
        }
        let node_port = self.node_ports.get(&(at.port(), probe.protocol, probe.family()));
        if let Some(plan) = node_port.filter(|_| self.accepts_node_ports(probe, rules)) {
            return served(plan, Frontend::NodePort(at.port()), probe, rules);
        }
        let none = |rule: String, fate| Decision { frontend: None, rule, fate, masquerade: false, at_socket: false };
        let may_be_of_node = probe.to_node && probe.client.interface.is_some();
        if self.cluster_ips.contains(&at.ip()) && !may_be_of_node {
            return none(
                "the address is a ClusterIP, and the Service has no such port: refused".to_owned(),
                Fate::Reject,
            );
        }
        none("no Service has this address and port".to_owned(), Fate::Untouched)
    }

    fn accepts_node_ports(&self, probe: &Probe, rules: &Rules) -> bool {
        let at = probe.destination.ip();
        if !at.is_loopback() {
            return self.desired.node_port_addresses.contains(&at);
        }
        // Every namespace has its own loopback; only the node's leads to its ports (6.6).
        let from_node = probe.client.interface.is_none() && rules.packets.localhost_node_ports;
        from_node
            && match rules.mode {
                Mode::Ebpf => {
                    probe.protocol != Protocol::Sctp && [[127, 0, 0, 1].into(), IpAddr::V6(1.into())].contains(&at)
                }
                Mode::Nftables | Mode::Iptables => at.is_ipv4(),
            }
    }
}

fn served<'a>(plan: &'a ServicePortPlan, frontend: Frontend, probe: &Probe, rules: &Rules) -> Decision<'a> {
    let at_socket = at_socket(plan, frontend, probe, rules);
    let decision = |rule: String, outcome: &Outcome, masquerade: bool| {
        let fate = match outcome {
            Outcome::Endpoints(endpoints) => Fate::Endpoints(endpoints.to_vec()),
            Outcome::Reject => Fate::Reject,
            Outcome::Drop => Fate::Drop,
        };
        let masquerade = masquerade && matches!(fate, Fate::Endpoints(_));
        Decision {
            frontend: Some((plan, frontend)),
            rule: format!("{rule}: {}", words(outcome)),
            fate,
            masquerade,
            at_socket,
        }
    };
    let is_cluster_ip = matches!(frontend, Frontend::ClusterIp(_));
    if at_socket {
        return match is_cluster_ip {
            true => decision("internal traffic policy".to_owned(), &plan.internal, false),
            false => decision(
                "external address asked from this node, where policy Local binds nobody".to_owned(),
                &plan.external_from_node,
                false,
            ),
        };
    }
    // Refusals are only at the addresses of the interfaces (6.7); at localhost nobody answers anyway.
    if probe.destination.ip().is_loopback() && !matches!(plan.external_from_node, Outcome::Endpoints(_)) {
        let rule = "a NodePort without endpoints, which is not refused at localhost".to_owned();
        return Decision {
            frontend: Some((plan, frontend)),
            rule,
            fate: Fate::Untouched,
            masquerade: false,
            at_socket: false,
        };
    }
    let client = &probe.client;
    let is_local = rules.packets.local_traffic.includes(client.address, client.interface.as_deref());
    if is_cluster_ip {
        let behind = rules.mode == Mode::Ebpf && !rules.second_line;
        if behind && plan.key.port.protocol != Protocol::Sctp && plan.internal != Outcome::Drop {
            return decision(
                "packets are not served ClusterIPs (--ebpf-second-line=false)".to_owned(),
                &Outcome::Reject,
                false,
            );
        }
        let tells = rules.packets.local_traffic.tells(probe.family());
        let masquerade = rules.packets.masquerade_all || tells && !is_local;
        return decision("internal traffic policy".to_owned(), &plan.internal, masquerade);
    }
    let guarded = matches!(frontend, Frontend::LoadBalancer(_)) && !plan.source_ranges.is_empty();
    if guarded && !plan.source_ranges.iter().any(|range| range.contains(client.address)) {
        return decision("the source is not in loadBalancerSourceRanges".to_owned(), &Outcome::Drop, false);
    }
    if plan.masquerade_external {
        return decision("external traffic policy Cluster".to_owned(), &plan.external, true);
    }
    if is_local {
        return decision(
            "external traffic policy Local, which does not bind local traffic".to_owned(),
            &plan.external_from_node,
            false,
        );
    }
    if client.of_node {
        return decision(
            "external traffic policy Local, which does not bind the node itself".to_owned(),
            &plan.external_from_node,
            true,
        );
    }
    decision("external traffic policy Local".to_owned(), &plan.external, false)
}

/// Whether the socket programs see this client and serve this frontend.
fn at_socket(plan: &ServicePortPlan, frontend: Frontend, probe: &Probe, rules: &Rules) -> bool {
    let guarded = matches!(frontend, Frontend::LoadBalancer(_)) && !plan.source_ranges.is_empty();
    rules.mode == Mode::Ebpf && probe.client.at_socket && probe.protocol != Protocol::Sctp && !guarded
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Endpoints(endpoints) => match endpoints.len() {
            1 => "1 endpoint".to_owned(),
            many => format!("{many} endpoints in turn"),
        },
        Outcome::Reject => "refused, for there is no endpoint".to_owned(),
        Outcome::Drop => "dropped".to_owned(),
    }
}

#[cfg(test)]
mod tests;
