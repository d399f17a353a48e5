//! Who may use the load balancer addresses of a Service: kube-proxy.md 9.6 and 9.7.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Frontend;
use crate::model::{IpFamily, Service};

/// Allowed sources of the family, sorted, each once. None at all, or one that spans the whole family, means everybody (9.6).
///
/// If they let this node in, they also let in the Service's own VIPs: where a VIP is bound to an interface of the node, the
/// node's packets to it come from it (9.7). Adding them here spares every data plane the exception.
pub(super) fn source_ranges(
    service: &Service,
    frontends: &[Frontend],
    family: IpFamily,
    node_ip: Option<IpAddr>,
) -> Vec<IpNetwork> {
    let guarded = frontends.iter().any(|frontend| matches!(frontend, Frontend::LoadBalancer(_)));
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: Vec<_> = ranges.filter(|range| guarded && IpFamily::of(range.ip()) == family).collect();
    if ranges.iter().any(|range| range.prefix() == 0) {
        return Vec::new();
    }
    if node_ip.is_some_and(|ip| ranges.iter().any(|range| range.contains(ip))) {
        let vips = service.load_balancer_vips.iter().copied();
        ranges.extend(vips.filter(|vip| IpFamily::of(*vip) == family).map(IpNetwork::from));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}
