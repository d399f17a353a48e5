//! An EndpointSlice as the planner uses it. There may be 100,000 endpoints on a node, so they are kept small.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    IpFamily, ObjectError, Protocol, ServiceName, address, api,
    check::{is_object_name, object_name, optional_port, port_name, protocol},
    error::{Check, Problem},
};

/// Ties a slice to its Service, and nothing else does (1.2).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The mirrored slices of a headless Service (1.2).
const HEADLESS: &str = "service.kubernetes.io/headless";

/// A slice that belongs to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointSlice {
    pub(crate) service: ServiceName,
    pub(crate) family: IpFamily,
    pub(crate) ports: Box<[EndpointPort]>,
    pub(crate) endpoints: Box<[SliceEndpoint]>,
}

/// `ports[]`: every endpoint of the slice has each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointPort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// `endpoints[]`, seen from one node: node names are compared once, here, and not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// `nodeName` is this node (4.7).
    pub(crate) local: bool,
    pub(crate) node_hint: NodeHint,
    /// `hints.forZones`, sorted; `None` without any. Endpoints of a slice with the same zones share one list.
    pub(crate) zone_hints: Option<ZoneHints>,
}

/// Names of zones, sorted. In a box, for then the reference to it is half as large.
pub(crate) type ZoneHints = Arc<Box<[Arc<str>]>>;

/// What `hints.forNodes` says about this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeHint {
    /// There is no node hint.
    Absent,
    /// Only other nodes are named.
    Elsewhere,
    /// This node is named.
    Here,
}

impl EndpointSlice {
    /// Checks a slice for the node `node_name`; `None` means that it is none of ours (1.2, 4.9).
    pub(crate) fn check(
        object: &api::EndpointSlice,
        node_name: &str,
        check: &mut Check,
    ) -> Result<Option<Self>, ObjectError> {
        const ALLOWED: &str = "IPv4, IPv6 or FQDN";
        let own_name = object_name(check)?;
        let labels = &object.metadata.labels;
        if labels.contains_key(HEADLESS) {
            return Ok(None);
        }
        let Some(service) = labels.get(SERVICE_NAME).filter(|name| is_object_name(name)) else { return Ok(None) };
        let family = match object.address_type.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            "" => return Err(check.refuse("addressType", Problem::Missing { allowed: ALLOWED })),
            other => {
                check.skip("addressType", Problem::invalid(other, "IPv4 or IPv6 to be used for Services"));
                return Ok(None);
            }
        };
        Ok(Some(Self {
            service: ServiceName { namespace: own_name.namespace, name: service.as_str().into() },
            family,
            ports: ports(object, check)?,
            endpoints: endpoints(object, family, node_name, check),
        }))
    }
}

/// A port without a number is ignored: it does not mean all ports (1.13).
fn ports(object: &api::EndpointSlice, check: &Check) -> Result<Box<[EndpointPort]>, ObjectError> {
    let mut ports = Vec::with_capacity(object.ports.len());
    for (i, entry) in object.ports.iter().enumerate() {
        let field = format!("ports[{i}]");
        let name = port_name(check, &field, &entry.name)?;
        let protocol = protocol(check, &field, &entry.protocol)?;
        let port = optional_port(check, &format!("{field}.port"), entry.port)?;
        ports.extend(port.map(|port| EndpointPort { name, protocol, port }));
    }
    Ok(ports.into())
}

fn endpoints(
    object: &api::EndpointSlice,
    family: IpFamily,
    node_name: &str,
    check: &mut Check,
) -> Box<[SliceEndpoint]> {
    let mut zone_lists = BTreeSet::new();
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for (i, entry) in object.endpoints.iter().enumerate() {
        let Some(address) = endpoint_address(entry, i, family, check) else { continue };
        endpoints.push(SliceEndpoint {
            address,
            ready: entry.conditions.ready.unwrap_or(true),
            serving: entry.conditions.serving.unwrap_or(true),
            terminating: entry.conditions.terminating.unwrap_or(false),
            local: entry.node_name == node_name,
            node_hint: node_hint(&entry.hints.for_nodes, node_name),
            zone_hints: zone_hints(&entry.hints.for_zones, &mut zone_lists),
        });
    }
    endpoints.into()
}

/// Only the first address counts (4.8). An entry that cannot be used costs only itself.
fn endpoint_address(entry: &api::Endpoint, i: usize, family: IpFamily, check: &mut Check) -> Option<IpAddr> {
    let field = || format!("endpoints[{i}].addresses[0]");
    let allowed = match family {
        IpFamily::V4 => "an IPv4 address, as addressType says",
        IpFamily::V6 => "an IPv6 address, as addressType says",
    };
    let Some(text) = entry.addresses.first() else {
        check.skip(field(), Problem::Missing { allowed });
        return None;
    };
    match address::parse_ip(text) {
        Some(ip) if IpFamily::of(ip) == family => match address::special(ip) {
            None => Some(ip),
            Some(kind) => {
                check.skip(field(), Problem::invalid(format_args!("{kind} {text}"), "the address of a pod or machine"));
                None
            }
        },
        _ => {
            check.skip(field(), Problem::invalid(text, allowed));
            None
        }
    }
}

fn node_hint(for_nodes: &[api::HintTarget], node_name: &str) -> NodeHint {
    match for_nodes {
        [] => NodeHint::Absent,
        nodes if nodes.iter().any(|node| node.name == node_name) => NodeHint::Here,
        _ => NodeHint::Elsewhere,
    }
}

fn zone_hints(for_zones: &[api::HintTarget], known: &mut BTreeSet<ZoneHints>) -> Option<ZoneHints> {
    let mut names: Vec<Arc<str>> = for_zones.iter().map(|zone| zone.name.as_str().into()).collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    let names = names.into_boxed_slice();
    if let Some(list) = known.get(&names) {
        return Some(list.clone());
    }
    let list = ZoneHints::new(names);
    known.insert(list.clone());
    Some(list)
}
