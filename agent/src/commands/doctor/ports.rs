//! Ports the agent listens at, or the kernel for it, that somebody else has.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    Context,
    finding::{Area, Finding},
};
use crate::status::HealthCheckStatus;

const AREA: Area = Area::Ports;

/// Names of the agent's process, of which the kernel keeps 15 bytes.
const AGENT: &str = "weft";

/// TCP_LISTEN, and the state of a UDP socket that is not connected, as `/proc/net` shows them (include/net/tcp_states.h).
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// What is listened at, with what for.
const TCP: [(u16, &str, &str); 2] =
    [(10256, "health", "--healthz-bind-address"), (10249, "metrics", "--metrics-bind-address")];

/// flannel's port of VXLAN.
const VXLAN: u16 = 8472;

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Name of the process; `None`: the kernel, as for a tunnel.
    process: Option<String>,
}

/// All of them.
pub(super) fn check(context: &Context) -> Vec<Finding> {
    let listening = |file: &str, state| {
        let text = ["", "6"].map(|family| fs::read_to_string(format!("/proc/thread-self/net/{file}{family}")));
        text.into_iter().flatten().flat_map(|text| sockets(&text, state)).collect::<Vec<_>>()
    };
    let (tcp, udp) = (listening("tcp", LISTENING), listening("udp", UNCONNECTED));
    let wanted = |port: u16| TCP.iter().any(|(number, ..)| *number == port) || port == VXLAN;
    let processes = if tcp.iter().chain(&udp).any(|(port, _)| wanted(*port)) { processes() } else { BTreeMap::new() };
    let owners = |sockets: &[(u16, u64)], port: u16| -> Vec<Owner> {
        let found = sockets.iter().filter(|(number, _)| *number == port);
        found.map(|(_, inode)| Owner { process: processes.get(inode).cloned() }).collect()
    };
    let mut findings: Vec<Finding> =
        TCP.into_iter().map(|(port, what, flag)| tcp_port(port, what, flag, &owners(&tcp, port))).collect();
    findings.push(vxlan_port(VXLAN, &owners(&udp, VXLAN)));
    let checks = context.status.as_ref().and_then(|status| status.proxy.as_ref()).map(|proxy| &proxy.health_checks[..]);
    findings.extend(health_checks(checks.unwrap_or_default()));
    findings
}

fn tcp_port(port: u16, what: &str, flag: &str, owners: &[Owner]) -> Finding {
    let foreign = owners.iter().find(|owner| owner.process.as_deref() != Some(AGENT));
    let seen = match (owners.is_empty(), foreign) {
        (true, _) => return Finding::ok(AREA, "port", format!("{port}/tcp ({what}) is free")),
        (false, None) => return Finding::ok(AREA, "port", format!("{port}/tcp ({what}) is the agent's")),
        (false, Some(owner)) => format!("{port}/tcp ({what}) is taken by {}", name(owner)),
    };
    let advice = match foreign.and_then(|owner| owner.process.as_deref()) {
        Some("kube-proxy") => "take kube-proxy off this node before Weft's agent starts".to_owned(),
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

/// Local port and inode of the sockets in this state: proc_net(5), columns `local_address`, `st` and `inode`.
fn sockets(table: &str, state: &str) -> Vec<(u16, u64)> {
    let row = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (_, port) = columns.get(1)?.rsplit_once(':')?;
        let found = (u16::from_str_radix(port, 16).ok()?, columns.get(9)?.parse().ok()?);
        (columns.get(3) == Some(&state)).then_some(found)
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Names of processes by the inodes of their sockets.
fn processes() -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else { continue };
        let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        let inodes: Vec<u64> = targets.filter_map(|target| inode(&target)).collect();
        if inodes.is_empty() {
            continue;
        }
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        names.extend(inodes.into_iter().map(|inode| (inode, name.trim().to_owned())));
    }
    names
}

fn inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100 0 0 10 0
   1: 0100007F:2810 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 20 4 30 10 -1
";

    #[test]
    fn listening_sockets_are_read() {
        assert_eq!(sockets(TABLE, LISTENING), [(10256, 4711)]);
        assert_eq!(sockets("sl\n 0: x\n", LISTENING), []);
        assert_eq!(inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(inode(Path::new("/dev/null")), None);
    }

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
}
