//! Who FROM and TO are: names become addresses, addresses become pods of this node.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use weft_cni::Pod;
use weft_netlink::{Netlink, Netns};
use weft_proxy::{
    live::Client,
    model::{IpFamily, Protocol},
    plan::{Frontend, ServicePortPlan},
    udp_sockets::namespaces,
};

use super::{
    From, To, TraceError,
    answer::{Asked, Party},
    decide::Index,
    way::Ways,
};

/// Who is on this node.
pub(super) struct Places {
    pods: Vec<Pod>,
    /// Addresses of this node's interfaces.
    pub(super) node: Vec<IpAddr>,
}

/// A question with names and addresses found.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) from: Party,
    pub(super) to: Party,
    pub(super) client: Client,
    pub(super) address: IpAddr,
    /// `None`: only the way is asked for.
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
    /// Whether the destination is an address of this node.
    pub(super) to_node: bool,
}

impl Places {
    pub(super) fn look(networks: &Path) -> Result<Self, TraceError> {
        let kernel = |error: &dyn std::fmt::Display| TraceError::Kernel(error.to_string());
        let pods = weft_cni::pods(networks).map_err(|error| kernel(&error))?;
        let addresses = Netlink::open().and_then(|netlink| netlink.addresses(None)).map_err(|error| kernel(&error))?;
        Ok(Self { pods, node: addresses.into_iter().map(|address| address.address.ip()).collect() })
    }

    pub(super) fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.addresses.contains(&address))
    }

    pub(super) fn resolve(
        &self,
        asked: &Asked,
        index: &Index<'_>,
        ways: &mut Ways<'_>,
    ) -> Result<Resolved, TraceError> {
        let (from, to): (From, To) = (asked.from.parse()?, asked.to.parse()?);
        let (family, from_pod) = match &from {
            From::Node => (None, None),
            From::Address(address) => (Some(IpFamily::of(*address)), None),
            From::Pod(name) => (None, Some(self.named(name)?)),
        };
        let of_pod =
            |v4: bool| from_pod.is_none_or(|pod: &Pod| pod.addresses.iter().any(|address| address.is_ipv4() == v4));
        let mut party = Party { asked: asked.to.clone(), kind: "address".to_owned(), ..Party::default() };
        let (address, port, protocol) = match &to {
            To::Address { address, port, protocol } => (*address, *port, *protocol),
            To::Name { name, port, protocol } => {
                let usable = |of: IpFamily| family.is_none_or(|family| family == of) && of_pod(of == IpFamily::V4);
                party.name = Some(name.clone());
                let ports: Vec<_> = index.service(name).filter(|plan| usable(plan.key.family)).collect();
                if ports.is_empty() {
                    party.kind = "pod".to_owned();
                    self.pod_target(name, port.as_deref(), *protocol, usable)?
                } else {
                    party.kind = "Service".to_owned();
                    let (at, protocol) = service_port(name, &ports, port.as_deref(), *protocol)?;
                    (at.ip(), Some(at.port()), protocol)
                }
            }
        };
        (party.address, party.port, party.protocol) = (Some(address), port, port.map(|_| protocol));
        let to_node = self.node.contains(&address) || address.is_loopback();
        let source = match &from {
            From::Node => None,
            From::Address(source) => Some(*source),
            From::Pod(name) => {
                let pod = self.named(name)?;
                let of_family = pod.addresses.iter().find(|of| of.is_ipv4() == address.is_ipv4());
                Some(*of_family.ok_or_else(|| {
                    TraceError::Unknown(format!("pod {name} has no {} address", IpFamily::of(address)))
                })?)
            }
        };
        if let Some(source) = source.filter(|source| source.is_ipv4() != address.is_ipv4()) {
            return Err(TraceError::Unknown(format!("{source} and {address} are not of one family")));
        }
        let kernel = |error: weft_netlink::Error| TraceError::Kernel(error.to_string());
        let (client, from) = match source.filter(|source| !self.node.contains(source)) {
            None => {
                let way = ways.to(address, false).map_err(kernel)?;
                let known = source.or(way.source);
                // Without a way there nothing has an address of the node: as if it asked itself.
                let source = known.unwrap_or(address);
                let client =
                    Client { address: source, interface: None, at_socket: true, of_node: true, netns_cookie: None };
                let party = Party { kind: "node".to_owned(), address: known, ..Party::default() };
                (client, party)
            }
            Some(source) => self.somebody(source, ways)?,
        };
        let from = Party { asked: asked.from.clone(), ..from };
        Ok(Resolved { from, to: party, client, address, port, protocol, to_node })
    }

    /// A pod of this node, or somebody whose packets come in from outside.
    fn somebody(&self, source: IpAddr, ways: &mut Ways<'_>) -> Result<(Client, Party), TraceError> {
        let pod = self.pod_at(source).cloned();
        let way = ways.to(source, pod.is_some()).map_err(|error| TraceError::Kernel(error.to_string()))?;
        let interface = pod.as_ref().and_then(|pod| pod.host_interface.clone()).or(way.way.device);
        let interface = Some(interface.unwrap_or_else(|| "?".to_owned()));
        // By its reservation, or because it is behind an interface as pods are.
        let is_pod = pod.is_some() || way.way.kind == "pod";
        let client = Client {
            address: source,
            interface: interface.clone(),
            at_socket: is_pod,
            of_node: false,
            netns_cookie: None,
        };
        let kind = if is_pod { "pod" } else { "outside" };
        let name = pod.and_then(|pod| pod.name);
        Ok((client, Party { kind: kind.to_owned(), name, address: Some(source), interface, ..Party::default() }))
    }

    fn named(&self, name: &str) -> Result<&Pod, TraceError> {
        self.pods.iter().find(|pod| pod.name.as_deref() == Some(name)).ok_or_else(|| {
            TraceError::Unknown(format!("{name} is no pod that weft-cni made on this node (see `weft pods`)"))
        })
    }

    fn pod_target(
        &self,
        name: &str,
        port: Option<&str>,
        protocol: Option<Protocol>,
        usable: impl Fn(IpFamily) -> bool,
    ) -> Result<(IpAddr, Option<u16>, Protocol), TraceError> {
        let Some(pod) = self.pods.iter().find(|pod| pod.name.as_deref() == Some(name)) else {
            return Err(TraceError::Unknown(format!(
                "{name} is neither a Service that is served here nor a pod of this node"
            )));
        };
        let address = pod.addresses.iter().find(|address| usable(IpFamily::of(**address)));
        let address =
            *address.ok_or_else(|| TraceError::Unknown(format!("pod {name} has no address of this family")))?;
        let port = port.map(|port| {
            port.parse().map_err(|_| TraceError::Unknown(format!("port {port:?} of pod {name} is not a number")))
        });
        Ok((address, port.transpose()?, protocol.unwrap_or_default()))
    }
}

/// Numbers of the network namespaces of all processes below a cgroup, by the addresses in them: what session affinity at the
/// socket goes by. Takes a thread for each.
pub(super) fn cookies(cgroup: &Path) -> HashMap<IpAddr, u64> {
    let found = namespaces(cgroup).map(|namespaces| namespaces.found).unwrap_or_default();
    let mut cookies = HashMap::new();
    for namespace in found {
        if let (addresses, Some(cookie)) = look_into(&namespace) {
            cookies.extend(addresses.into_iter().map(|address| (address, cookie)));
        }
    }
    cookies
}

fn look_into(namespace: &Netns) -> (Vec<IpAddr>, Option<u64>) {
    let look = || {
        let addresses = Netlink::open().and_then(|netlink| netlink.addresses(None)).unwrap_or_default();
        let addresses = addresses.into_iter().map(|address| address.address.ip());
        (addresses.filter(|address| !address.is_loopback()).collect(), weft_ebpf::netns_cookie().ok())
    };
    namespace.run(look).unwrap_or_default()
}

/// The ClusterIP of the Service port that is meant.
fn service_port(
    name: &str,
    ports: &[&ServicePortPlan],
    port: Option<&str>,
    protocol: Option<Protocol>,
) -> Result<(SocketAddr, Protocol), TraceError> {
    let cluster_ip = |plan: &ServicePortPlan| {
        plan.frontends.iter().find_map(|frontend| match frontend {
            Frontend::ClusterIp(at) => Some(*at),
            _ => None,
        })
    };
    let all: Vec<_> = ports.iter().filter_map(|plan| Some((*plan, cluster_ip(plan)?))).collect();
    let is_meant = |(plan, at): &&(&ServicePortPlan, SocketAddr)| {
        port.is_none_or(|port| *plan.key.port.port == *port || at.port().to_string() == port)
            && protocol.is_none_or(|protocol| plan.key.port.protocol == protocol)
    };
    let mut meant: Vec<_> = all.iter().filter(is_meant).collect();
    // Of both families the first one.
    let first = meant.first().map(|(plan, _)| plan.key.family);
    meant.retain(|(plan, _)| Some(plan.key.family) == first);
    // TCP, where a number stands for two protocols, as of DNS.
    if meant.len() > 1 && port.is_some() && protocol.is_none() {
        meant.retain(|(plan, _)| plan.key.port.protocol == Protocol::Tcp);
    }
    match meant[..] {
        [(plan, at)] => Ok((*at, plan.key.port.protocol)),
        _ => {
            let list: Vec<String> = all
                .iter()
                .map(|(plan, at)| format!("{}{}/{}", plan.key.port.port, at.port(), plan.key.port.protocol.lowercase()))
                .collect();
            Err(TraceError::Unknown(format!("say which port of Service {name}: it has {}", list.join(", "))))
        }
    }
}
