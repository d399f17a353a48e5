//! This Node as the planner uses it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{
    IpFamily, ObjectError, address, api,
    check::object_name,
    error::{Check, Problem},
};

/// The only label of a Node that is looked at (5.7).
const ZONE: &str = "topology.kubernetes.io/zone";

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeTopology {
    /// `None` until the Node is known, and while its label is absent or empty (5.4).
    pub(crate) zone: Option<Arc<str>>,
    /// Its own addresses.
    pub(crate) ips: NodeIps,
    /// The networks of its pods.
    pub(crate) pod_cidrs: PodCidrs,
}

impl NodeTopology {
    /// Checks a Node.
    pub(crate) fn check(object: &api::Node, check: &mut Check) -> Result<Self, ObjectError> {
        object_name(check)?;
        let zone = object.metadata.labels.get(ZONE).filter(|zone| !zone.is_empty());
        let zone = zone.map(|zone| zone.as_str().into());
        Ok(Self { zone, ips: NodeIps::check(object, check), pod_cidrs: PodCidrs::check(object, check) })
    }
}

/// This node's own address in each family, from `status.addresses` of its Node (14.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeIps {
    /// For IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Family of the address that is named first; `None` while none is known.
    pub primary: Option<IpFamily>,
}

impl NodeIps {
    /// The address of a family.
    pub fn of(&self, family: IpFamily) -> Option<IpAddr> {
        match family {
            IpFamily::V4 => self.ipv4.map(IpAddr::V4),
            IpFamily::V6 => self.ipv6.map(IpAddr::V6),
        }
    }

    /// The addresses that are known, the primary family's first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let families = match self.primary {
            Some(IpFamily::V6) => [IpFamily::V6, IpFamily::V4],
            _ => [IpFamily::V4, IpFamily::V6],
        };
        families.map(|family| self.of(family)).into_iter().flatten()
    }

    /// The same with the address that the configuration asks to go by: it takes the place of the one of its family, which
    /// becomes the primary one. The unspecified address changes nothing (14.2).
    pub(crate) fn bound_to(self, address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()).filter(|address| !address.is_unspecified()) {
            Some(IpAddr::V4(ip)) => Self { ipv4: Some(ip), primary: Some(IpFamily::V4), ..self },
            Some(IpAddr::V6(ip)) => Self { ipv6: Some(ip), primary: Some(IpFamily::V6), ..self },
            None => self,
        }
    }

    /// InternalIPs first, then ExternalIPs; of each family the first one counts.
    fn check(object: &api::Node, check: &mut Check) -> Self {
        let mut ips = Self::default();
        for wanted in ["InternalIP", "ExternalIP"] {
            for (i, entry) in object.status.addresses.iter().enumerate().filter(|(_, e)| e.address_type == wanted) {
                match address::parse_ip(&entry.address) {
                    Some(ip) => ips.add(ip),
                    None => check.skip(
                        format!("status.addresses[{i}].address"),
                        Problem::invalid(&entry.address, "an IP address"),
                    ),
                }
            }
        }
        ips
    }

    fn add(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => _ = self.ipv4.get_or_insert(ip),
            IpAddr::V6(ip) => _ = self.ipv6.get_or_insert(ip),
        }
        self.primary.get_or_insert(IpFamily::of(ip));
    }
}

/// The networks of this node's pods, from `spec.podCIDRs` of its Node: of each family the first one (8.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCidrs {
    /// For IPv4.
    pub ipv4: Option<Ipv4Network>,
    /// For IPv6.
    pub ipv6: Option<Ipv6Network>,
}

impl PodCidrs {
    fn check(object: &api::Node, check: &mut Check) -> Self {
        let mut cidrs = Self::default();
        for (i, text) in object.spec.pod_cidrs.iter().enumerate() {
            match address::parse_cidr(text) {
                Some(IpNetwork::V4(cidr)) => _ = cidrs.ipv4.get_or_insert(cidr),
                Some(IpNetwork::V6(cidr)) => _ = cidrs.ipv6.get_or_insert(cidr),
                None => check.skip(
                    format!("spec.podCIDRs[{i}]"),
                    Problem::invalid(text, "a CIDR such as 10.244.1.0/24 or fd44::/64"),
                ),
            }
        }
        cidrs
    }
}
