//! Status and Services as tables that fit 100 columns.

use std::fmt::{self, Write};

use jiff::Timestamp;
use weft_overlay::{OverlayStatus, PeerState};

use crate::status::{EndpointStatus, FrontendStatus, ProxyStatus, ServiceStatus, Status, Verdict};

use super::table::Table;

/// The answer of `weft status` for a terminal.
pub(crate) fn status(status: &Status) -> String {
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = print_status(status, &mut text);
    text
}

fn print_status(status: &Status, out: &mut String) -> fmt::Result {
    let ready = if status.ready { "ready" } else { "NOT READY" };
    writeln!(out, "Node {}: {ready}", status.node)?;
    let up = duration(status.uptime_seconds);
    writeln!(out, "  weft {}, up {up}, components {}", status.version, status.components.join(", "))?;
    for mistake in &status.configuration.mistakes {
        writeln!(out, "  problem: the changed configuration is not used: {mistake}")?;
    }
    if !status.configuration.restart_needed.is_empty() {
        let fields = status.configuration.restart_needed.join(", ");
        writeln!(out, "  problem: the configuration changed; restart the agent for {fields}")?;
    }
    for error in status.servers.iter().filter_map(|server| server.error.as_ref()) {
        writeln!(out, "  problem: {error}")?;
    }
    if let Some(overlay) = &status.overlay {
        out.push('\n');
        print_overlay(overlay, out)?;
    }
    if let Some(proxy) = &status.proxy {
        let synced = if proxy.synced { "in sync" } else { "NOT IN SYNC" };
        writeln!(out, "\nServices: {synced}, data plane {}", proxy.mode)?;
        let (services, ports, endpoints) = (proxy.services, proxy.service_ports, proxy.endpoints);
        writeln!(out, "  {services} Services, {ports} service ports, {endpoints} endpoints")?;
        let changed = proxy.last_sync.as_deref().map_or_else(|| "never".to_owned(), ago);
        writeln!(out, "  last change {changed}, {} repairs", proxy.repairs)?;
        if let Some(error) = &proxy.last_error {
            writeln!(out, "  problem: {error}")?;
        }
        print_proxy_problems(proxy, out)?;
    }
    if let Some(source) = &status.source {
        let synced = if source.synced { "listed completely" } else { "WAITING for the first full list" };
        writeln!(out, "\nSource: {} {}, {synced}", source.kind, source.location)?;
        for warning in &source.warnings {
            writeln!(out, "  warning: {warning}")?;
        }
        for rejected in &source.rejected {
            writeln!(out, "  skipped {}: {}", rejected.object, rejected.reason)?;
        }
    }
    Ok(())
}

/// What an operator should do something about, though Services are in sync.
fn print_proxy_problems(proxy: &ProxyStatus, out: &mut String) -> fmt::Result {
    // A map that is nearly full is soon too small.
    for map in proxy.maps.iter().filter(|map| u64::from(map.used) * 10 >= u64::from(map.max) * 9) {
        let remedy = map.flag.as_ref().map(|flag| format!("; raise {flag}")).unwrap_or_default();
        writeln!(out, "  problem: map {} has {} of {} elements{remedy}", map.name, map.used, map.max)?;
    }
    for check in &proxy.health_checks {
        if let Some(error) = &check.error {
            writeln!(out, "  problem: health checks of {}: {error}", check.service)?;
        }
    }
    for rules in &proxy.kube_proxy {
        writeln!(out, "  problem: a kube-proxy left {rules}; --take-over-kube-proxy removes them")?;
    }
    let failed = proxy.conntrack.iter().filter(|parameter| parameter.error.is_some()).map(|parameter| &*parameter.name);
    let failed: Vec<&str> = failed.collect();
    if !failed.is_empty() {
        writeln!(out, "  kernel parameters not set: {}; `weft doctor` says why", failed.join(", "))?;
    }
    Ok(())
}

fn print_overlay(overlay: &OverlayStatus, out: &mut String) -> fmt::Result {
    let ready = if overlay.ready { "up" } else { "NOT UP" };
    writeln!(out, "Pod network: {ready}, backend {}, leases from {}", overlay.backend, overlay.subnet_manager)?;
    for family in [Some(&overlay.ipv4), overlay.ipv6.as_ref()].into_iter().flatten() {
        let Some(network) = &family.network else { continue };
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        writeln!(out, "  subnet {} of {network}, public IP {}", known(&family.subnet), known(&family.public_ip))?;
        writeln!(out, "  device {}, MAC {}", known(&family.device), known(&family.vtep_mac))?;
    }
    let mtu = overlay.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string());
    writeln!(out, "  MTU {mtu}, {} peers, {} repairs", overlay.peers.len(), overlay.repairs)?;
    if let Some(error) = &overlay.error {
        writeln!(out, "  problem: {error}")?;
    }
    for rejected in &overlay.rejected {
        writeln!(out, "  skipped {}: {}", rejected.object, rejected.reason)?;
    }
    if overlay.peers.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(["  PEER SUBNET", "PUBLIC IP", "VTEP MAC", "STATE"]);
    for peer in &overlay.peers {
        let state = match (peer.state, &peer.error) {
            (PeerState::Up, _) => "up".to_owned(),
            (PeerState::Failed, error) => format!("FAILED: {}", error.as_deref().unwrap_or("unknown")),
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        table.row([format!("  {}", peer.subnet), text(&peer.public_ip), text(&peer.vtep_mac), state]);
    }
    out.push_str(&table.render());
    Ok(())
}

/// The answer of `weft services` for a terminal: a line a Service port, a line an endpoint.
pub(crate) fn services(services: &[ServiceStatus]) -> String {
    if services.is_empty() {
        return "No Services.\n".to_owned();
    }
    let mut table = Table::new(["SERVICE", "FRONTENDS", "ENDPOINTS", "CONNECTIONS"]);
    for service in services {
        let frontends: Vec<String> = service.frontends.iter().map(frontend).collect();
        let first_endpoint = service.endpoints.first();
        let verdict = || match service.internal {
            Verdict::Endpoints => String::new(),
            Verdict::Reject => "none: refused".to_owned(),
            Verdict::Drop => "none here: dropped".to_owned(),
        };
        let lines = frontends.len().max(service.endpoints.len()).max(1);
        for line in 0..lines {
            let name = if line == 0 { service_name(service) } else { String::new() };
            let endpoint = service.endpoints.get(line);
            table.row([
                name,
                frontends.get(line).cloned().unwrap_or_default(),
                match (endpoint, first_endpoint) {
                    (Some(endpoint), _) => endpoint_name(endpoint),
                    (None, None) if line == 0 => verdict(),
                    _ => String::new(),
                },
                endpoint.map(|endpoint| endpoint.connections.to_string()).unwrap_or_default(),
            ]);
        }
    }
    table.render()
}

fn service_name(service: &ServiceStatus) -> String {
    let port = if service.port.is_empty() { String::new() } else { format!(":{}", service.port) };
    format!("{}/{}{port} {}", service.namespace, service.name, service.protocol)
}

fn frontend(frontend: &FrontendStatus) -> String {
    match frontend.address {
        Some(address) => format!("{} {}", frontend.kind, std::net::SocketAddr::new(address, frontend.port)),
        None => format!("{} {}", frontend.kind, frontend.port),
    }
}

fn endpoint_name(endpoint: &EndpointStatus) -> String {
    let place = if endpoint.local { " (here)" } else { "" };
    format!("{}{place}", std::net::SocketAddr::new(endpoint.address, endpoint.port))
}

/// How long ago an RFC 3339 time was, by this machine's clock, which is the agent's too.
fn ago(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => {
            let seconds = Timestamp::now().duration_since(time).as_secs();
            format!("{} ago", duration(seconds.try_into().unwrap_or(0)))
        }
        Err(_) => time.to_owned(),
    }
}

/// Seconds as `3d4h`, `5m20s`, as kubectl shows ages.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests;
