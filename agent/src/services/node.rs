//! What of the configuration depends on the Node object and on the node's addresses, followed: where NodePorts and health-check
//! ports are served, and with `detectLocalMode: NodeCIDR` what counts as local traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use tracing::{info, warn};
use weft_proxy::{
    model::{IpFamily, NodeIps, PodCidrs},
    plan::{LocalTraffic, Planner},
};

use super::planes::Planes;
use crate::{
    config::{NodePortAddresses, ProxyConfig},
    data_planes::PacketPlane,
};

/// How long nothing is written for want of something that the Node object will say: kube-proxy's limit (14.2). The rules of a
/// former agent serve meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// Follows the Node.
pub(crate) struct NodeSettings {
    allowed: NodePortAddresses,
    local_traffic_of_node: bool,
    packets: PacketPlane,
    /// Of all interfaces; `None` until they are known.
    addresses: Option<BTreeSet<IpAddr>>,
    /// What the packet plane was made with.
    pod_cidrs: PodCidrs,
    waiting_since: Option<Instant>,
}

impl NodeSettings {
    /// Nothing is known yet.
    pub(crate) fn new(proxy: &ProxyConfig, packets: PacketPlane) -> Self {
        Self {
            allowed: proxy.node_port_addresses.clone(),
            local_traffic_of_node: proxy.local_traffic_of_node,
            packets,
            addresses: None,
            pod_cidrs: PodCidrs::default(),
            waiting_since: None,
        }
    }

    /// Accepts NodePorts at other addresses from now on.
    pub(crate) fn allow(&mut self, allowed: NodePortAddresses) {
        self.allowed = allowed;
    }

    /// Takes note of the addresses of all interfaces.
    pub(crate) fn addresses_are(&mut self, addresses: BTreeSet<IpAddr>) {
        self.addresses = Some(addresses);
    }

    /// Whether enough is known, or was waited for long enough, to write anything. To be asked once the Node was listed.
    pub(crate) fn is_known(&mut self, planner: &Planner) -> bool {
        let missing = if self.addresses.is_none() {
            "the addresses of the node"
        } else if self.allowed.follows_node() && planner.node_ips() == NodeIps::default() {
            "status.addresses of the Node, for nodePortAddresses: primary"
        } else if self.local_traffic_of_node && planner.pod_cidrs() == PodCidrs::default() {
            "spec.podCIDRs of the Node, for detectLocalMode: NodeCIDR"
        } else {
            return true;
        };
        let Some(since) = self.waiting_since else {
            info!(missing, patience = ?PATIENCE, "waiting");
            self.waiting_since = Some(Instant::now());
            return false;
        };
        let impatient = self.addresses.is_some() && since.elapsed() >= PATIENCE;
        if impatient {
            warn!(missing, "going on without; it is heeded when it comes");
            self.waiting_since = since.checked_sub(PATIENCE);
        }
        impatient
    }

    /// What counts as local traffic, where the Node says it.
    pub(crate) fn local_traffic(&self) -> Option<LocalTraffic> {
        let PodCidrs { ipv4: v4, ipv6: v6 } = self.pod_cidrs;
        self.local_traffic_of_node.then_some(LocalTraffic::Cidrs { v4, v6 })
    }

    /// Hands on what is other than before.
    pub(crate) fn follow(&mut self, planner: &mut Planner, planes: &mut Planes) {
        let serving = self.select(planner.node_ips()).into_iter().filter(|address| !address.is_loopback()).collect();
        if planner.set_node_port_addresses(serving) {
            planes.node_port_addresses_changed();
        }
        let pod_cidrs = planner.pod_cidrs();
        if self.local_traffic_of_node && self.pod_cidrs != pod_cidrs {
            let PodCidrs { ipv4: v4, ipv6: v6 } = pod_cidrs;
            info!(?v4, ?v6, "pod CIDRs of the Node, for local traffic");
            planes.replace_last((self.packets)(LocalTraffic::Cidrs { v4, v6 }));
            self.pod_cidrs = pod_cidrs;
        }
    }

    /// The addresses to listen at for health checks, by family (6.8): one that stands for all, or each one that is meant.
    pub(crate) fn listening(&self, own: NodeIps) -> BTreeMap<IpFamily, Vec<IpAddr>> {
        let selected = self.select(own);
        let listening = |family| match self.allowed.of(family, own) {
            None if family == IpFamily::V4 => vec![Ipv4Addr::UNSPECIFIED.into()],
            None => vec![Ipv6Addr::UNSPECIFIED.into()],
            Some(_) => selected.iter().copied().filter(|address| IpFamily::of(*address) == family).collect(),
        };
        [IpFamily::V4, IpFamily::V6].map(|family| (family, listening(family))).into()
    }

    fn select(&self, own: NodeIps) -> BTreeSet<IpAddr> {
        self.addresses.as_ref().map(|addresses| self.allowed.select(addresses, own)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
