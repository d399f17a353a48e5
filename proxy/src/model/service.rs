//! A Service as the planner uses it: addresses parsed, defaults filled in, policies decided.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnetwork::IpNetwork;

use super::{
    IpFamily, ObjectError, Protocol, ServiceName, address, api,
    check::{object_name, optional_port, port, port_name, protocol},
    error::{Check, Problem},
};

/// A Service with this label belongs to another proxy (1.1).
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where none is given (7.2).
const DEFAULT_AFFINITY_SECONDS: i64 = 10_800;

/// A Service that gets traffic: not headless, not ExternalName, not another proxy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) ports: Box<[ServicePort]>,
    pub(crate) cluster_ipv4: Option<Ipv4Addr>,
    pub(crate) cluster_ipv6: Option<Ipv6Addr>,
    /// `spec.externalIPs`, both families, as ordered there.
    pub(crate) external_ips: Box<[IpAddr]>,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP, both families.
    pub(crate) load_balancer_vips: Box<[IpAddr]>,
    /// `spec.loadBalancerSourceRanges`, both families, host bits cleared.
    pub(crate) source_ranges: Box<[IpNetwork]>,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `externalTrafficPolicy: Local`, on a Service of a type for which it counts (1.10).
    pub(crate) external_local: bool,
    /// `sessionAffinity: ClientIP` with its timeout.
    pub(crate) affinity: Option<Duration>,
    /// `healthCheckNodePort`, where it counts: type LoadBalancer and externalTrafficPolicy Local (11.3).
    pub(crate) health_check_node_port: Option<u16>,
}

/// `spec.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

impl Service {
    /// The ClusterIP of a family; without one the Service has nothing in that family (14.6).
    pub(crate) fn cluster_ip(&self, family: IpFamily) -> Option<IpAddr> {
        match family {
            IpFamily::V4 => self.cluster_ipv4.map(IpAddr::V4),
            IpFamily::V6 => self.cluster_ipv6.map(IpAddr::V6),
        }
    }

    /// Checks a Service; `None` means that it is none of ours (1.1, 1.8, 1.9).
    pub(crate) fn check(object: &api::Service, check: &mut Check) -> Result<Option<Self>, ObjectError> {
        let name = object_name(check)?;
        let spec = &object.spec;
        let proxied_by_others = object.metadata.labels.contains_key(SERVICE_PROXY_NAME);
        if proxied_by_others || spec.service_type == "ExternalName" || is_headless(spec, check) {
            return Ok(None);
        }
        let (cluster_ipv4, cluster_ipv6) = cluster_ips(spec, check)?;
        let external_local = is_local(check, "spec.externalTrafficPolicy", &spec.external_traffic_policy)
            && match spec.service_type.as_str() {
                "LoadBalancer" | "NodePort" => true,
                _ => !spec.external_ips.is_empty(),
            };
        Ok(Some(Self {
            name,
            ports: ports(spec, check)?,
            cluster_ipv4,
            cluster_ipv6,
            external_ips: external_ips(spec, check),
            load_balancer_vips: load_balancer_vips(&object.status, check),
            source_ranges: source_ranges(spec, check)?,
            internal_local: is_local(check, "spec.internalTrafficPolicy", &spec.internal_traffic_policy),
            external_local,
            affinity: affinity(spec, check)?,
            health_check_node_port: health_check_node_port(spec, external_local, check)?,
        }))
    }
}

/// The texts of the ClusterIPs. The API server keeps `clusterIP` equal to `clusterIPs[0]`; a manifest may give only one of the two.
fn cluster_ip_texts(spec: &api::ServiceSpec) -> &[String] {
    match spec.cluster_ips.as_slice() {
        [] => std::slice::from_ref(&spec.cluster_ip),
        texts => texts,
    }
}

/// An API server allocates a ClusterIP where none is given. For a manifest nobody does, which its author should hear of.
fn is_headless(spec: &api::ServiceSpec, check: &mut Check) -> bool {
    let texts = cluster_ip_texts(spec);
    if spec.cluster_ip == "None" || texts.iter().any(|text| text == "None") {
        return true;
    }
    let absent = texts.iter().all(String::is_empty);
    if absent {
        check.skip("spec.clusterIP", Problem::Missing { allowed: "an IP address, or None for a headless Service" });
    }
    absent
}

/// The address of a family is the one at the index of that family in `ipFamilies`; without those, its own family counts (14.6).
fn cluster_ips(spec: &api::ServiceSpec, check: &Check) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), ObjectError> {
    let (mut v4, mut v6) = (None, None);
    for (i, text) in cluster_ip_texts(spec).iter().enumerate() {
        let field =
            if spec.cluster_ips.is_empty() { "spec.clusterIP".to_owned() } else { format!("spec.clusterIPs[{i}]") };
        let allowed = match spec.ip_families.get(i).map(String::as_str) {
            None => "an IP address",
            Some("IPv4") => "an IPv4 address, as spec.ipFamilies says",
            Some("IPv6") => "an IPv6 address, as spec.ipFamilies says",
            Some(other) => {
                let problem = Problem::invalid(other, "IPv4 or IPv6");
                return Err(check.refuse(format!("spec.ipFamilies[{i}]"), problem));
            }
        };
        let ip = address::parse_ip(text).ok_or_else(|| check.refuse(&field, Problem::invalid(text, allowed)))?;
        if let Some(kind) = address::special(ip) {
            let problem = Problem::invalid(format_args!("{kind} {text}"), "an address of no machine");
            return Err(check.refuse(field, problem));
        }
        if spec.ip_families.get(i).is_some_and(|family| *family != IpFamily::of(ip).to_string()) {
            return Err(check.refuse(field, Problem::invalid(text, allowed)));
        }
        let taken = match ip {
            IpAddr::V4(ip) => v4.replace(ip).is_some(),
            IpAddr::V6(ip) => v6.replace(ip).is_some(),
        };
        if taken {
            return Err(check.refuse(field, Problem::invalid(text, "of another family than the ClusterIP before it")));
        }
    }
    Ok((v4, v6))
}

fn ports(spec: &api::ServiceSpec, check: &Check) -> Result<Box<[ServicePort]>, ObjectError> {
    let mut identities = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut node_ports = BTreeSet::new();
    let mut ports = Vec::with_capacity(spec.ports.len());
    for (i, entry) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let checked = ServicePort {
            name: port_name(check, &field, &entry.name)?,
            protocol: protocol(check, &field, &entry.protocol)?,
            port: port(check, format!("{field}.port"), entry.port)?,
            node_port: optional_port(check, &format!("{field}.nodePort"), entry.node_port)?,
        };
        // Two entries of one identity (1.13), or at one number, would fight for the same place in the kernel.
        if !identities.insert((checked.name.clone(), checked.protocol)) {
            return Err(check.refuse(format!("{field}.name"), Problem::duplicate(&checked.name)));
        }
        if !numbers.insert((checked.port, checked.protocol)) {
            return Err(check.refuse(format!("{field}.port"), Problem::duplicate(checked.port)));
        }
        if checked.node_port.is_some_and(|number| !node_ports.insert((number, checked.protocol))) {
            return Err(check.refuse(format!("{field}.nodePort"), Problem::duplicate(entry.node_port)));
        }
        ports.push(checked);
    }
    Ok(ports.into())
}

/// Empty entries are skipped silently, others with a warning (1.12).
fn external_ips(spec: &api::ServiceSpec, check: &mut Check) -> Box<[IpAddr]> {
    let mut ips = Vec::with_capacity(spec.external_ips.len());
    for (i, text) in spec.external_ips.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        ips.extend(external_address(check, format!("spec.externalIPs[{i}]"), text));
    }
    ips.into()
}

/// `ipMode: Proxy` means that the traffic must reach the load balancer itself (2.3).
fn load_balancer_vips(status: &api::ServiceStatus, check: &mut Check) -> Box<[IpAddr]> {
    let mut vips = Vec::with_capacity(status.load_balancer.ingress.len());
    for (i, ingress) in status.load_balancer.ingress.iter().enumerate() {
        let is_vip = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        if is_vip && !ingress.ip.is_empty() {
            vips.extend(external_address(check, format!("status.loadBalancer.ingress[{i}].ip"), &ingress.ip));
        }
    }
    vips.into()
}

fn external_address(check: &mut Check, field: String, text: &str) -> Option<IpAddr> {
    let Some(ip) = address::parse_ip(text) else {
        check.skip(field, Problem::invalid(text, "an IP address"));
        return None;
    };
    if let Some(kind) = address::special(ip) {
        check.skip(field, Problem::invalid(format_args!("{kind} {text}"), "an address of other machines"));
        return None;
    }
    Some(ip)
}

/// A range that cannot be read refuses the whole Service: without it, its family might count as unrestricted (9.6).
/// The API server lets no such Service through, so this is stricter than kube-proxy only for manifests.
fn source_ranges(spec: &api::ServiceSpec, check: &Check) -> Result<Box<[IpNetwork]>, ObjectError> {
    let ranges = spec.load_balancer_source_ranges.iter().enumerate();
    ranges
        .map(|(i, text)| {
            address::parse_cidr(text).ok_or_else(|| {
                let problem = Problem::invalid(text, "an address range such as 10.0.0.0/8");
                check.refuse(format!("spec.loadBalancerSourceRanges[{i}]"), problem)
            })
        })
        .collect()
}

/// An unknown policy counts as Cluster, as in kube-proxy, so that a policy invented later does not cost the whole Service.
fn is_local(check: &mut Check, field: &str, policy: &str) -> bool {
    match policy {
        "Local" => true,
        "" | "Cluster" => false,
        other => {
            check.skip(field, Problem::invalid(other, "Cluster or Local"));
            false
        }
    }
}

/// A number on a Service of another type or policy is ignored, so it is not looked at either.
fn health_check_node_port(
    spec: &api::ServiceSpec,
    external_local: bool,
    check: &Check,
) -> Result<Option<u16>, ObjectError> {
    if spec.service_type != "LoadBalancer" || !external_local {
        return Ok(None);
    }
    optional_port(check, "spec.healthCheckNodePort", spec.health_check_node_port)
}

fn affinity(spec: &api::ServiceSpec, check: &mut Check) -> Result<Option<Duration>, ObjectError> {
    match spec.session_affinity.as_str() {
        "ClientIP" => {}
        "" | "None" => return Ok(None),
        other => {
            check.skip("spec.sessionAffinity", Problem::invalid(other, "None or ClientIP"));
            return Ok(None);
        }
    }
    let seconds = spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(DEFAULT_AFFINITY_SECONDS);
    match u64::try_from(seconds) {
        Ok(seconds @ 1..=86_400) => Ok(Some(Duration::from_secs(seconds))),
        _ => {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            Err(check.refuse(field, Problem::invalid(seconds, "1 to 86400")))
        }
    }
}
