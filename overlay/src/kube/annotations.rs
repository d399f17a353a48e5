//! A lease as annotations of a Node, with flannel's keys and bytes (flannel.md 5.1). Pure.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

use super::node::WatchedNode;
use crate::{
    family::{self, Family},
    lease::{Lease, LeaseAttributes, LeaseError, Rejection, StoredSettings, Subnets, VtepData},
    netconf::NetConf,
    plan::VXLAN,
};

const MANAGED: &str = "kube-subnet-manager";
const BACKEND_TYPE: &str = "backend-type";

/// Keys of one family.
struct Keys {
    backend_data: &'static str,
    public_ip: &'static str,
    /// Set by an administrator: published instead of the node's own address.
    overwrite: &'static str,
    /// Set by an administrator: the same as `--public-ip`.
    node_public_ip: &'static str,
}

const fn keys(family: Family) -> Keys {
    match family {
        Family::V4 => Keys {
            backend_data: "backend-data",
            public_ip: "public-ip",
            overwrite: "public-ip-overwrite",
            node_public_ip: "node-public-ip",
        },
        Family::V6 => Keys {
            backend_data: "backend-v6-data",
            public_ip: "public-ipv6",
            overwrite: "public-ipv6-overwrite",
            node_public_ip: "node-public-ipv6",
        },
    }
}

/// What all annotation keys start with: `--kube-annotation-prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationPrefix(String);

impl Default for AnnotationPrefix {
    /// flannel's.
    fn default() -> Self {
        Self("flannel.alpha.coreos.com/".into())
    }
}

impl fmt::Display for AnnotationPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An annotation prefix that flannel would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a domain, or a domain and the start of a name, such as flannel.alpha.coreos.com or example.org/net-a")]
pub struct AnnotationPrefixError;

impl FromStr for AnnotationPrefix {
    type Err = AnnotationPrefixError;

    /// flannel's rules: a slash is added after a domain, a dash after the start of a name.
    fn from_str(text: &str) -> Result<Self, AnnotationPrefixError> {
        let (domain, start) = text.split_once('/').unwrap_or((text, ""));
        let allowed = |part: &str| {
            let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            !part.is_empty() && part.chars().all(of_name)
        };
        let labels: Vec<&str> = domain.split('.').collect();
        if labels.len() < 2 || !labels.into_iter().all(allowed) {
            return Err(AnnotationPrefixError);
        }
        let start = start.strip_suffix('-').unwrap_or(start);
        match start {
            "" if text.ends_with("/-") => Err(AnnotationPrefixError),
            "" => Ok(Self(format!("{domain}/"))),
            start if allowed(start) => Ok(Self(format!("{domain}/{start}-"))),
            _ => Err(AnnotationPrefixError),
        }
    }
}

impl AnnotationPrefix {
    fn get<'a>(&self, node: &'a WatchedNode, key: &str) -> Option<&'a str> {
        node.annotations().get(&format!("{self}{key}")).map(String::as_str)
    }

    /// The annotations that publish `attributes`, as flannel writes them: a family that is off has none, and a backend
    /// without payload has `null`.
    pub(super) fn publish(&self, attributes: &LeaseAttributes) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut set = |key: &str, value: String| all.insert(format!("{self}{key}"), value);
        set(MANAGED, "true".into());
        set(BACKEND_TYPE, attributes.backend_type.clone());
        for family in Family::ALL {
            let Some(address) = attributes.public_address(family) else { continue };
            let data = serde_json::to_string(&attributes.vtep(family)).expect("numbers and strings are always JSON");
            set(keys(family).backend_data, data);
            set(keys(family).public_ip, address.to_string());
        }
        all
    }

    /// What has to change so that the Node publishes `attributes` and nothing else. A family that was switched off goes:
    /// peers would send into a tunnel that has no end. (flannel leaves it.)
    pub(super) fn corrections(
        &self,
        node: &WatchedNode,
        attributes: &LeaseAttributes,
    ) -> BTreeMap<String, Option<String>> {
        let wanted = self.publish(attributes);
        let present = |key: &String| node.annotations().contains_key(key);
        let unwanted = self.published_keys().into_iter().filter(|key| present(key) && !wanted.contains_key(key));
        let mut all: BTreeMap<_, _> = unwanted.map(|key| (key, None)).collect();
        let wrong = wanted.into_iter().filter(|(key, value)| node.annotations().get(key) != Some(value));
        all.extend(wrong.map(|(key, value)| (key, Some(value))));
        all
    }

    /// Every key that [`Self::publish`] may write.
    pub(super) fn published_keys(&self) -> Vec<String> {
        let of_families =
            Family::ALL.into_iter().flat_map(|family| [keys(family).backend_data, keys(family).public_ip]);
        [MANAGED, BACKEND_TYPE].into_iter().chain(of_families).map(|key| format!("{self}{key}")).collect()
    }

    /// The addresses an administrator gave this node.
    pub(super) fn settings(&self, node: &WatchedNode) -> Result<StoredSettings, LeaseError> {
        let mut settings = StoredSettings::default();
        for family in Family::ALL {
            match self.address(node, family, keys(family).node_public_ip)? {
                Some(IpAddr::V4(address)) => settings.public_ip = Some(address),
                Some(IpAddr::V6(address)) => settings.public_ipv6 = Some(address),
                None => {}
            }
        }
        Ok(settings)
    }

    /// What this Node publishes instead of `attributes`: an administrator's addresses, and only families it has a subnet of.
    pub(super) fn overwrite(
        &self,
        node: &WatchedNode,
        subnets: Subnets,
        attributes: &LeaseAttributes,
    ) -> Result<LeaseAttributes, LeaseError> {
        let mut attributes = attributes.clone();
        for family in Family::ALL {
            match self.address(node, family, keys(family).overwrite)? {
                Some(IpAddr::V4(address)) => attributes.public_ip = Some(address),
                Some(IpAddr::V6(address)) => attributes.public_ipv6 = Some(address),
                None => {}
            }
        }
        if subnets.of(Family::V4).is_none() {
            (attributes.public_ip, attributes.backend_data) = (None, None);
        }
        if subnets.of(Family::V6).is_none() {
            (attributes.public_ipv6, attributes.backend_v6_data) = (None, None);
        }
        Ok(attributes)
    }

    fn address(&self, node: &WatchedNode, family: Family, key: &str) -> Result<Option<IpAddr>, LeaseError> {
        let Some(value) = self.get(node, key).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.parse::<IpAddr>() {
            Ok(address) if Family::of(address) == family => Ok(Some(address)),
            _ => Err(LeaseError::Annotation { key: format!("{self}{key}"), value: value.to_owned(), family }),
        }
    }

    /// The lease a Node publishes; `None` if its network is somebody else's.
    ///
    /// A family without annotations or without a subnet is left out: the node has the other (flannel-defects.md B.3).
    pub(super) fn read(&self, node: &WatchedNode) -> Option<Result<Lease, Rejection>> {
        if self.get(node, MANAGED) != Some("true") {
            return None;
        }
        let assigned = assigned(node);
        let rejected =
            |reason: String| Err(Rejection { reason, subnets: Subnets::from_networks(assigned.iter().copied()) });
        let mut attributes = LeaseAttributes {
            public_ip: None,
            public_ipv6: None,
            backend_type: self.get(node, BACKEND_TYPE).unwrap_or_default().to_owned(),
            backend_data: None,
            backend_v6_data: None,
        };
        let mut subnets = Vec::new();
        for family in Family::ALL {
            let Some(subnet) = assigned.iter().find(|subnet| Family::of(subnet.ip()) == family) else { continue };
            match self.family(node, family, &attributes.backend_type) {
                Ok(None) => continue,
                Ok(Some((IpAddr::V4(address), data))) => {
                    (attributes.public_ip, attributes.backend_data) = (Some(address), data);
                }
                Ok(Some((IpAddr::V6(address), data))) => {
                    (attributes.public_ipv6, attributes.backend_v6_data) = (Some(address), data);
                }
                Err(reason) => return Some(rejected(reason)),
            }
            subnets.push(*subnet);
        }
        Some(match Subnets::from_networks(subnets) {
            Some(subnets) => Ok(Lease { subnets, attributes }),
            None if assigned.is_empty() => rejected("has no pod CIDR".into()),
            None => rejected(format!("has no {self}{} for its pod CIDR", keys(Family::V4).public_ip)),
        })
    }

    /// What a Node publishes of a family.
    fn family(
        &self,
        node: &WatchedNode,
        family: Family,
        backend_type: &str,
    ) -> Result<Option<(IpAddr, Option<VtepData>)>, String> {
        let address = match self.address(node, family, keys(family).public_ip) {
            Ok(Some(address)) if !address.is_unspecified() => address,
            Ok(_) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let key = keys(family).backend_data;
        let data = match self.get(node, key).filter(|_| backend_type == VXLAN) {
            None => None,
            Some(text) => serde_json::from_str(text).map_err(|error| format!("{self}{key}: {text:?}: {error}"))?,
        };
        Ok(Some((address, data)))
    }
}

/// The pod CIDRs of a Node; what is none is left out.
fn assigned(node: &WatchedNode) -> Vec<IpNetwork> {
    let network =
        |text: &String| text.parse::<IpNetwork>().ok().and_then(|net| family::network(net.ip(), net.prefix()));
    node.pod_cidrs().iter().filter_map(network).collect()
}

/// The subnets assigned to this Node, of the families that are on.
pub(super) fn own_subnets(name: &str, node: &WatchedNode, conf: &NetConf) -> Result<Subnets, LeaseError> {
    let mut subnets = Vec::new();
    for subnet in assigned(node) {
        let Some(network) = conf.network(Family::of(subnet.ip())).map(|network| network.network) else { continue };
        if !family::covers(network, subnet) {
            return Err(LeaseError::OutsideNetwork { node: name.into(), subnet, network });
        }
        subnets.push(subnet);
    }
    Subnets::from_networks(subnets).ok_or_else(|| LeaseError::NoPodCidr { node: name.into() })
}

#[cfg(test)]
mod tests;
