//! Ports the agent listens at, or the kernel for it, that somebody else has.

use std::net::SocketAddr;

use super::{
    Context,
    finding::{Area, Finding},
};
use crate::{
    port_owners::{self, Owner},
    status::{HealthCheckStatus, ServerStatus},
};

const AREA: Area = Area::Ports;

/// Name of the agent's process.
const AGENT: &str = "weft";

/// The kernel's port of VXLAN, which flannel leaves as it is.
const VXLAN: u16 = 8472;

/// What is listened at: the name of the server, its usual port, and the flag for another.
const SERVERS: [(&str, u16, &str); 2] =
    [("health", 10256, "--healthz-bind-address"), ("metrics", 10249, "--metrics-bind-address")];

/// All of them.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (server, usual, flag) in SERVERS {
        if let Some(port) = port(context, server, usual) {
            findings.push(tcp_port(port, server, flag, &port_owners::tcp(port)));
        }
    }
    if let Some(port) = vxlan(context) {
        findings.push(vxlan_port(port, &port_owners::udp(port)));
    }
    let checks = context.status.as_ref().and_then(|status| status.proxy.as_ref()).map(|proxy| &proxy.health_checks[..]);
    findings.extend(health_checks(checks.unwrap_or_default()));
    findings
}

/// That of the running agent, else the configured one; `None`: there is to be none.
fn port(context: &Context, server: &str, usual: u16) -> Option<u16> {
    let running = context.status.as_ref().map(|status| &status.servers[..]).unwrap_or_default();
    if let Some(port) = port_of(running, server) {
        return Some(port);
    }
    let Some(configured) = &context.outline.servers else { return Some(usual) };
    let at = if server == "health" { configured.healthz } else { Some(configured.metrics) };
    at.map(|at| at.port())
}

fn port_of(running: &[ServerStatus], server: &str) -> Option<u16> {
    let status = running.iter().find(|running| running.name == server)?;
    status.address.parse::<SocketAddr>().ok().map(|at| at.port())
}

/// `None`: the pod network has no tunnel.
fn vxlan(context: &Context) -> Option<u16> {
    if !context.wants("overlay") {
        return None;
    }
    let net_conf = context.outline.overlay.as_ref().and_then(|overlay| overlay.net_conf.as_ref());
    let Some(net_conf) = net_conf else { return Some(VXLAN) };
    net_conf.backend.vxlan().map(|vxlan| if vxlan.port == 0 { VXLAN } else { vxlan.port })
}

fn tcp_port(port: u16, what: &str, flag: &str, owners: &[Owner]) -> Finding {
    let foreign = owners.iter().find(|owner| owner.process.as_deref() != Some(AGENT));
    let seen = match (owners.is_empty(), foreign) {
        (true, _) => return Finding::ok(AREA, "port", format!("{port}/tcp ({what}) is free")),
        (false, None) => return Finding::ok(AREA, "port", format!("{port}/tcp ({what}) is the agent's")),
        (false, Some(owner)) => format!("{port}/tcp ({what}) is taken by {}", name(owner)),
    };
    let advice = match foreign.and_then(|owner| owner.process.as_deref()) {
        Some("kube-proxy") => "take kube-proxy off this node: Weft's pod is not ready beside it".to_owned(),
        _ => format!("end it, or give the agent another address by {flag}"),
    };
    Finding::problem(AREA, "port", seen, advice)
}

/// Tunnels' sockets are the kernel's; several tunnels share one.
fn vxlan_port(port: u16, owners: &[Owner]) -> Finding {
    match owners.iter().find(|owner| owner.process.is_some()) {
        Some(owner) => Finding::problem(
            AREA,
            "port",
            format!("{port}/udp (VXLAN) is taken by {}: the tunnel gets no packets", name(owner)),
            "end it, or choose another Port for all nodes in net-conf.json",
        ),
        None if owners.is_empty() => Finding::ok(AREA, "port", format!("{port}/udp (VXLAN) is free")),
        None => Finding::ok(AREA, "port", format!("{port}/udp (VXLAN) is the kernel's, for a tunnel")),
    }
}

fn name(owner: &Owner) -> &str {
    owner.process.as_deref().unwrap_or("a process that is not seen from here")
}

fn health_checks(checks: &[HealthCheckStatus]) -> Vec<Finding> {
    let failed = checks.iter().filter_map(|check| Some((check, check.error.as_ref()?)));
    failed
        .map(|(check, error)| {
            let seen = format!("healthCheckNodePort {} of Service {}: {error}", check.port, check.service);
            let advice = format!("end what listens at {}/tcp: ss -ltnp sport = :{}", check.port, check.port);
            Finding::problem(AREA, "health-check-port", seen, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn ports_of_others_are_problems() {
        let owner = |name: &str| Owner { process: Some(name.to_owned()) };
        let verdict = |owners: &[Owner]| tcp_port(10256, "health", "--healthz-bind-address", owners).verdict;
        assert_eq!(verdict(&[]), Verdict::Ok);
        assert_eq!(verdict(&[owner("weft")]), Verdict::Ok);
        assert_eq!(verdict(&[owner("nginx")]), Verdict::Problem);
        assert_eq!(verdict(&[Owner { process: None }]), Verdict::Problem);
        assert_eq!(vxlan_port(8472, &[Owner { process: None }]).verdict, Verdict::Ok);
        assert_eq!(vxlan_port(8472, &[Owner { process: None }, owner("flanneld")]).verdict, Verdict::Problem);
        let taken = tcp_port(10256, "health", "--healthz-bind-address", &[owner("kube-proxy")]);
        assert!(taken.advice.unwrap().contains("take kube-proxy off"));
    }

    #[test]
    fn the_ports_are_those_of_the_agent_or_else_the_configured_ones() {
        let context = |flags: &[&str]| Context::without_agent(flags);
        let ports =
            |context: &Context| (SERVERS.map(|(server, usual, _)| port(context, server, usual)), vxlan(context));
        assert_eq!(ports(&context(&[])), ([Some(10256), Some(10249)], Some(8472)));
        let other = ["--healthz-bind-address=0.0.0.0:20256", "--metrics-port=20249", "--components=proxy"];
        assert_eq!(ports(&context(&other)), ([Some(20256), Some(20249)], None));
        assert_eq!(ports(&context(&["--healthz-port=0"])).0, [None, Some(10249)]);
        let running = [ServerStatus { name: "health".to_owned(), address: "[::]:30256".to_owned(), error: None }];
        assert_eq!((port_of(&running, "health"), port_of(&running, "metrics")), (Some(30256), None));
    }
}
