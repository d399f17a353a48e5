//! The chains that hold a few rules of every Service port: which address leads where, and what is refused.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    cluster_ips::ClusterIps,
    layout::{Layout, comment, words},
    names::{EXTERNAL_SERVICES, NODE_PORTS, NODE_PORTS_REFUSED, PROXY_FIREWALL, SERVICES, Table, comment_name},
    service::{PortRules, destination, host, network},
};
use crate::{
    model::IpFamily,
    plan::{Frontend, Outcome, ServicePortPlan},
};

/// One of them. A change of any of its rules rewrites the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SharedChain {
    /// filter KUBE-SERVICES: what clients of this node, and packets it forwards, are refused.
    RefusedServices,
    /// filter KUBE-EXTERNAL-SERVICES: what clients outside are refused.
    RefusedExternals,
    /// filter KUBE-NODEPORTS-REFUSED: the same of node ports.
    RefusedNodePorts,
    /// filter KUBE-PROXY-FIREWALL: load balancer addresses with source ranges.
    Firewall,
    /// filter KUBE-NODEPORTS: health check ports.
    HealthChecks,
    /// nat KUBE-SERVICES.
    Services,
    /// nat KUBE-NODEPORTS.
    NodePorts,
}

impl SharedChain {
    pub(crate) const ALL: [Self; 7] = [
        Self::RefusedServices,
        Self::RefusedExternals,
        Self::RefusedNodePorts,
        Self::Firewall,
        Self::HealthChecks,
        Self::Services,
        Self::NodePorts,
    ];

    pub(crate) const fn table(self) -> Table {
        match self {
            Self::Services | Self::NodePorts => Table::Nat,
            _ => Table::Filter,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Services | Self::RefusedServices => SERVICES,
            Self::NodePorts | Self::HealthChecks => NODE_PORTS,
            Self::RefusedExternals => EXTERNAL_SERVICES,
            Self::RefusedNodePorts => NODE_PORTS_REFUSED,
            Self::Firewall => PROXY_FIREWALL,
        }
    }

    /// All rules of the chain: those of each Service port in the order of keys, then those of the node.
    pub(crate) fn rules<'a>(
        self,
        ports: impl Iterator<Item = &'a Arc<ServicePortPlan>> + 'a,
        addresses: &'a BTreeSet<IpAddr>,
        cluster_ips: &'a ClusterIps,
        layout: &'a Layout,
    ) -> impl Iterator<Item = String> + 'a {
        let of_services = ports.flat_map(move |plan| self.rules_of(&PortRules::of(plan, layout)));
        // Last, so that an address and port of a Service beats a NodePort of the same number (2.7).
        of_services.chain(self.rules_of_node(addresses, cluster_ips, layout))
    }

    /// What one Service port has in it.
    pub(crate) fn rules_of(self, port: &PortRules<'_>) -> Vec<String> {
        match self {
            Self::Services => port.dispatched(),
            Self::NodePorts => port.dispatched_node_ports(),
            Self::RefusedServices => port.refused_services(),
            Self::RefusedExternals => port.refused_externals(),
            Self::RefusedNodePorts => port.refused_node_ports(),
            Self::Firewall => port.firewalled(),
            Self::HealthChecks => port.health_check(),
        }
    }

    fn rules_of_node(self, addresses: &BTreeSet<IpAddr>, cluster_ips: &ClusterIps, layout: &Layout) -> Vec<String> {
        let at = |to: &str, why: &str, chain: &str| words(&[to, &comment(why), "-j", chain]);
        let own = addresses.iter().filter(|address| IpFamily::of(**address) == layout.family);
        match self {
            Self::Services => {
                let why = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
                let mut rules: Vec<_> = own.map(|address| at(&destination(*address), why, NODE_PORTS)).collect();
                if layout.localhost_node_ports() {
                    let why = comment("kubernetes service nodeports on localhost");
                    rules.push(format!("-d 127.0.0.0/8 {why} -m addrtype --dst-type LOCAL -j {NODE_PORTS}"));
                }
                rules
            }
            Self::RefusedExternals => {
                own.map(|a| at(&destination(*a), "kubernetes service nodeports", NODE_PORTS_REFUSED)).collect()
            }
            // After what is refused or dropped for want of endpoints.
            Self::RefusedServices => cluster_ips.jumps(),
            _ => Vec::new(),
        }
    }
}

impl PortRules<'_> {
    fn name(&self) -> String {
        comment_name(&self.plan.key.port)
    }

    fn dispatched(&self) -> Vec<String> {
        let rule = |frontend: &Frontend| {
            let (why, chain) = match frontend {
                Frontend::ClusterIp(_) => ("cluster IP", self.internal_chain()),
                Frontend::ExternalIp(_) => ("external IP", self.external_chain()),
                Frontend::LoadBalancer(_) => ("loadbalancer IP", self.load_balancer_chain()),
                Frontend::NodePort(_) => return None,
            };
            Some(self.at(frontend, "", &format!("{} {why}", self.name()), &chain?))
        };
        self.plan.frontends.iter().filter_map(rule).collect()
    }

    fn dispatched_node_ports(&self) -> Vec<String> {
        let Some(chain) = self.external_chain() else { return Vec::new() };
        self.node_ports().map(|frontend| self.at(frontend, "", &self.name(), &chain)).collect()
    }

    fn node_ports(&self) -> impl Iterator<Item = &Frontend> {
        self.plan.frontends.iter().filter(|frontend| matches!(frontend, Frontend::NodePort(_)))
    }

    fn refused_services(&self) -> Vec<String> {
        let rule = |frontend: &Frontend| match frontend {
            Frontend::ClusterIp(_) => self.refused(frontend, &self.plan.internal),
            Frontend::ExternalIp(_) | Frontend::LoadBalancer(_) => {
                self.refused(frontend, &self.plan.external_from_node)
            }
            Frontend::NodePort(_) => None,
        };
        self.plan.frontends.iter().filter_map(rule).collect()
    }

    fn refused_externals(&self) -> Vec<String> {
        let vip = |frontend: &&Frontend| matches!(frontend, Frontend::ExternalIp(_) | Frontend::LoadBalancer(_));
        let vips = self.plan.frontends.iter().filter(vip);
        vips.filter_map(|frontend| self.refused(frontend, &self.plan.external)).collect()
    }

    fn refused_node_ports(&self) -> Vec<String> {
        self.node_ports().filter_map(|frontend| self.refused(frontend, &self.plan.external)).collect()
    }

    /// What was translated no longer has this destination and passes.
    fn refused(&self, frontend: &Frontend, outcome: &Outcome) -> Option<String> {
        let (why, verdict) = match outcome {
            Outcome::Endpoints(_) => return None,
            Outcome::Reject => ("has no endpoints", self.layout.reject()),
            Outcome::Drop => ("has no local endpoints", "DROP"),
        };
        Some(self.at(frontend, "", &format!("{} {why}", self.name()), verdict))
    }

    /// Lets load balancers ask whether this node serves, whatever the policy of INPUT (9.14).
    fn health_check(&self) -> Vec<String> {
        let rule = |port: u16| {
            let why = comment(&format!("{} health check node port", self.name()));
            format!("-p tcp {why} -m tcp --dport {port} -j ACCEPT")
        };
        self.plan.health_check_port.map(rule).into_iter().collect()
    }

    /// Who is in no range gets no answer. Who is in one, of a Service without endpoints, comes to its refusal (9.6, 9.8).
    fn firewalled(&self) -> Vec<String> {
        if self.plan.source_ranges.is_empty() {
            return Vec::new();
        }
        let why = format!("{} traffic not accepted by {}", self.name(), self.names.firewall());
        let mut rules = Vec::new();
        for frontend in self.plan.frontends.iter().filter(|f| matches!(f, Frontend::LoadBalancer(_))) {
            if self.external_chain().is_none() {
                let allowed = self.plan.source_ranges.iter().map(network);
                rules.extend(allowed.map(|from| self.at(frontend, &format!("-s {from}"), &self.name(), "RETURN")));
            }
            rules.push(self.at(frontend, "", &why, "DROP"));
        }
        rules
    }

    /// A rule for the packets to one frontend.
    fn at(&self, frontend: &Frontend, source: &str, why: &str, verdict: &str) -> String {
        let (to, port) = match frontend {
            Frontend::NodePort(port) => (String::new(), *port),
            Frontend::ClusterIp(at) | Frontend::ExternalIp(at) | Frontend::LoadBalancer(at) => {
                (format!("-d {}", host(at.ip())), at.port())
            }
        };
        let protocol = self.protocol();
        let (why, port) = (comment(why), port.to_string());
        words(&[source, &to, "-p", protocol, &why, "-m", protocol, "--dport", &port, "-j", verdict])
    }
}
