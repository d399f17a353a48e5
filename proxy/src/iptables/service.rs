//! The chains each Service port has of its own, all in nat (kube-proxy.md 12.3).
//!
//! ```text
//! KUBE-FW   source ranges                          -> KUBE-EXT
//! KUBE-EXT  what comes by an external address      -> KUBE-MARK-MASQ, KUBE-SVC or KUBE-SVL
//! KUBE-SVC  round robin over the cluster's endpoints -> KUBE-SEP
//! KUBE-SVL  round robin over this node's endpoints   -> KUBE-SEP
//! KUBE-SEP  hairpin mark, DNAT to one endpoint
//! ```
//! Rules of SVC, SVL and SEP have no comments, as in kube-proxy's large-cluster mode (12.5): a comment costs 288 bytes of
//! kernel memory, which the legacy variant copies at every change. The chain names tell as much.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnetwork::IpNetwork;

use super::{
    layout::{Layout, comment, words},
    names::{MARK_MASQ, ServiceChains, comment_name},
};
use crate::{
    model::IpFamily,
    plan::{Endpoint, Frontend, Outcome, ServicePortPlan},
};

/// Rules of a chain, without `-A CHAIN`.
pub(crate) type Rules = Vec<String>;

/// What the plan of one Service port means in terms of chains.
pub(crate) struct PortRules<'a> {
    pub(crate) plan: &'a ServicePortPlan,
    pub(crate) names: ServiceChains,
    pub(crate) layout: &'a Layout,
}

impl<'a> PortRules<'a> {
    pub(crate) fn of(plan: &'a ServicePortPlan, layout: &'a Layout) -> Self {
        Self { plan, names: ServiceChains::of(&plan.key.port), layout }
    }

    pub(crate) fn protocol(&self) -> &'static str {
        self.plan.key.port.protocol.lowercase()
    }

    /// Where the ClusterIP leads; `None`: it is refused, or there is none.
    pub(crate) fn internal_chain(&self) -> Option<String> {
        let has_cluster_ip = self.plan.frontends.iter().any(|frontend| matches!(frontend, Frontend::ClusterIp(_)));
        match &self.plan.internal {
            _ if !has_cluster_ip => None,
            Outcome::Endpoints(_) if self.internal_is_local() => Some(self.names.local()),
            Outcome::Endpoints(_) => Some(self.names.cluster()),
            Outcome::Reject | Outcome::Drop => None,
        }
    }

    /// Where a node port or external IP leads; `None`: there is none, or nobody is served there.
    pub(crate) fn external_chain(&self) -> Option<String> {
        let plan = self.plan;
        let served = [&plan.external, &plan.external_from_node].into_iter().any(is_served);
        let externally_reachable = plan.frontends.iter().any(Frontend::is_external);
        (served && externally_reachable).then(|| self.names.external())
    }

    /// Where a load balancer address leads: the same, behind the source ranges if it has some.
    pub(crate) fn load_balancer_chain(&self) -> Option<String> {
        let external = self.external_chain()?;
        Some(if self.plan.source_ranges.is_empty() { external } else { self.names.firewall() })
    }

    /// A plan has two lists at most: the cluster's, which clients of this node get at external addresses, and the local one.
    fn internal_is_local(&self) -> bool {
        self.plan.internal != self.plan.external_from_node
    }

    fn external_is_local(&self) -> bool {
        !self.plan.masquerade_external
    }

    /// All chains, by name.
    pub(crate) fn chains(&self) -> BTreeMap<String, Rules> {
        let plan = self.plan;
        let mut chains = BTreeMap::new();
        let (internal, external) = (self.internal_chain(), self.external_chain());
        let internal_at = |local: bool| internal.is_some() && self.internal_is_local() == local;
        if internal_at(false) || external.is_some() && is_served(&plan.external_from_node) {
            let list = plan.external_from_node.endpoints();
            chains.insert(self.names.cluster(), self.balance(list, internal_at(false)));
        }
        let external_local = external.is_some() && self.external_is_local() && is_served(&plan.external);
        if internal_at(true) || external_local {
            chains.insert(self.names.local(), self.balance(self.local_list().endpoints(), internal_at(true)));
        }
        if let Some(external) = external {
            if self.load_balancer_chain().as_ref() != Some(&external) && self.has_load_balancer() {
                chains.insert(self.names.firewall(), self.firewall(&external));
            }
            chains.insert(external, self.external());
        }
        for endpoint in self.used_endpoints(&chains) {
            chains.insert(self.names.endpoint(&endpoint), self.endpoint(&endpoint));
        }
        chains
    }

    /// Both policies mean the same list by Local.
    fn local_list(&self) -> &Outcome {
        if self.external_is_local() { &self.plan.external } else { &self.plan.internal }
    }

    fn has_load_balancer(&self) -> bool {
        self.plan.frontends.iter().any(|frontend| matches!(frontend, Frontend::LoadBalancer(_)))
    }

    /// Endpoints that one of `chains` leads to.
    fn used_endpoints(&self, chains: &BTreeMap<String, Rules>) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        if chains.contains_key(&self.names.cluster()) {
            endpoints.extend_from_slice(self.plan.external_from_node.endpoints());
        }
        if chains.contains_key(&self.names.local()) {
            endpoints.extend_from_slice(self.local_list().endpoints());
        }
        endpoints
    }

    /// One connection each in turn. The first rule sees every connection and takes each Nth; the second sees what is left
    /// and takes each (N-1)th of those; so each takes exactly one of N, however many clients connect at once.
    fn balance(&self, endpoints: &[Endpoint], cluster_ip: bool) -> Rules {
        let mut rules = Vec::with_capacity(2 * endpoints.len() + 1);
        if cluster_ip {
            rules.extend(self.masquerade_cluster_ip());
        }
        let names: Vec<String> = endpoints.iter().map(|endpoint| self.names.endpoint(endpoint)).collect();
        if let Some(timeout) = self.plan.affinity {
            rules.extend(names.iter().map(|name| self.remembered(name, timeout)));
        }
        for (taken, name) in names.iter().enumerate() {
            rules.push(match names.len() - taken {
                1 => format!("-j {name}"),
                left => format!("-m statistic --mode nth --every {left} --packet 0 -j {name}"),
            });
        }
        rules
    }

    /// Clients whose answers would otherwise not come back through this node (8.1 to 8.4).
    fn masquerade_cluster_ip(&self) -> Rules {
        let rule = |frontend: &Frontend| {
            let Frontend::ClusterIp(at) = frontend else { return None };
            let to = destination(at.ip());
            let from = if self.layout.settings.masquerade_all {
                Some(to)
            } else {
                self.layout.detector().and_then(|detector| detector.other(&to))
            }?;
            let protocol = self.protocol();
            Some(format!("{from} -p {protocol} -m {protocol} --dport {} -j {MARK_MASQ}", at.port()))
        };
        self.plan.frontends.iter().filter_map(rule).collect()
    }

    /// `--reap` forgets clients that are past the timeout; a new record is made by the endpoint's own rule (7.3).
    fn remembered(&self, name: &str, timeout: Duration) -> String {
        let (seconds, record) = (timeout.as_secs(), self.record(name));
        format!("-m recent --rcheck --seconds {seconds} --reap {record} -j {name}")
    }

    /// Which list of clients to look in: by source address, one list an endpoint (7.1).
    fn record(&self, name: &str) -> String {
        let mask = match self.layout.family {
            IpFamily::V4 => "255.255.255.255",
            IpFamily::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        format!("--name {name} --mask {mask} --rsource")
    }

    fn endpoint(&self, endpoint: &Endpoint) -> Rules {
        let at = SocketAddr::new(endpoint.address, endpoint.port);
        let record =
            self.plan.affinity.map(|_| format!("-m recent --set {}", self.record(&self.names.endpoint(endpoint))));
        let protocol = self.protocol();
        vec![
            // Hairpin: the answer would otherwise not leave the pod (8.7).
            format!("-s {} -j {MARK_MASQ}", host(endpoint.address)),
            words(&["-p", protocol, record.as_deref().unwrap_or(""), "-j DNAT --to-destination", &at.to_string()]),
        ]
    }

    fn external(&self) -> Rules {
        let name = comment_name(&self.plan.key.port);
        let cluster = self.names.cluster();
        if !self.external_is_local() {
            let why = comment(&format!("masquerade traffic for {name} external destinations"));
            return vec![format!("{why} -j {MARK_MASQ}"), format!("-j {cluster}")];
        }
        let mut rules = Vec::new();
        if is_served(&self.plan.external_from_node) {
            if let Some(detector) = self.layout.detector() {
                let pods = comment(&format!("pod traffic for {name} external destinations"));
                rules.push(words(&[&detector.local(""), &pods, "-j", &cluster]));
            }
            let masquerade = comment(&format!("masquerade LOCAL traffic for {name} external destinations"));
            rules.push(format!("{masquerade} -m addrtype --src-type LOCAL -j {MARK_MASQ}"));
            let route = comment(&format!("route LOCAL traffic for {name} external destinations"));
            rules.push(format!("{route} -m addrtype --src-type LOCAL -j {cluster}"));
        }
        if is_served(&self.plan.external) {
            rules.push(format!("-j {}", self.names.local()));
        }
        rules
    }

    /// Who is in no range is not translated and meets KUBE-PROXY-FIREWALL.
    fn firewall(&self, external: &str) -> Rules {
        let why = comment(&format!("{} loadbalancer IP", comment_name(&self.plan.key.port)));
        let allow = |range: &IpNetwork| format!("-s {} {why} -j {external}", network(range));
        self.plan.source_ranges.iter().map(allow).collect()
    }
}

fn is_served(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Endpoints(_))
}

/// `10.0.0.1/32`.
pub(crate) fn host(address: IpAddr) -> String {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{prefix}")
}

/// `-d 10.0.0.1/32`.
pub(crate) fn destination(address: IpAddr) -> String {
    format!("-d {}", host(address))
}

pub(crate) fn network(network: &IpNetwork) -> String {
    format!("{}/{}", network.network(), network.prefix())
}
