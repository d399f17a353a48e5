//! Where clients reach a Service port: kube-proxy.md section 2.

use std::net::{IpAddr, SocketAddr};

use super::{Frontend, PlannerConfig};
use crate::model::{IpFamily, Service, ServicePort};

/// Frontends of one port in one family: sorted, each address once. Empty without a ClusterIP of that family (14.6).
pub(super) fn frontends(
    service: &Service,
    port: &ServicePort,
    family: IpFamily,
    config: &PlannerConfig,
) -> Vec<Frontend> {
    let Some(cluster_ip) = service.cluster_ip(family) else { return Vec::new() };
    let at = |ip: IpAddr| SocketAddr::new(ip, port.port);
    let mut frontends = vec![Frontend::ClusterIp(at(cluster_ip))];
    if config.external_ips_allowed {
        frontends.extend(of_family(&service.external_ips, family).map(at).map(Frontend::ExternalIp));
    }
    frontends.extend(of_family(&service.load_balancer_vips, family).map(at).map(Frontend::LoadBalancer));
    frontends.extend(port.node_port.map(Frontend::NodePort));
    frontends.sort_unstable();
    // An address that is there in two roles keeps the first, ClusterIP before external IP before load balancer,
    // which is the order in which iptables mode meets them (2.7).
    let mut seen = Vec::with_capacity(frontends.len());
    frontends.retain(|frontend| match frontend.address() {
        Some(address) if seen.contains(&address) => false,
        Some(address) => {
            seen.push(address);
            true
        }
        None => true,
    });
    frontends
}

fn of_family(ips: &[IpAddr], family: IpFamily) -> impl Iterator<Item = IpAddr> {
    ips.iter().copied().filter(move |ip| IpFamily::of(*ip) == family)
}
