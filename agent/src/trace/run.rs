//! From questions to answers: who is meant, what is planned, what the kernel would do, what differs.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf};

use weft_overlay::OverlayStatus;
use weft_proxy::{
    dataplane::DataPlaneError,
    ebpf, iptables,
    live::{Client, Live, NextReason, Probe, Verdict},
    nftables,
    plan::{Frontend, PacketSettings},
};

use super::{
    Basis, Mode, Snapshot, TraceError,
    answer::{Asked, EndpointTrace, FrontendTrace, NextTrace, Trace, TraceVerdict},
    compare,
    decide::{Decision, Fate, Index},
    place::{Places, Resolved, cookies},
    way::{Networks, Ways},
};
use crate::cgroup;

/// One answer a question, in order.
pub(crate) type Answers = Vec<Result<Trace, TraceError>>;

/// Answers all questions, by one look at the kernel.
///
/// # Errors
/// The kernel could not be asked.
pub(crate) fn run(
    basis: &Basis,
    snapshot: &Snapshot,
    overlay: Option<&OverlayStatus>,
    asked: &[Asked],
) -> Result<Answers, TraceError> {
    let networks = Networks::of(overlay, basis.ip_masq);
    let (mut ways, places) = (Ways::open(&networks).map_err(kernel)?, Places::look(&basis.networks)?);
    let index = Index::new(&snapshot.desired);
    let mut resolved: Vec<Result<Resolved, TraceError>> =
        asked.iter().map(|asked| places.resolve(asked, &index, &mut ways)).collect();
    let cgroup = cgroup_of(basis, snapshot)?;
    if let Some(cgroup) = &cgroup {
        find_cookies(&mut resolved, snapshot, &index, cgroup);
    }
    let probes: Vec<Probe> = resolved.iter().flatten().filter_map(probe).collect();
    let mut observed = observe(basis, snapshot, cgroup, &probes).map_err(kernel)?.into_iter();
    let mut look = |resolved: Resolved| {
        let seen = probe(&resolved).map(|probe| (index.decide(&probe, &snapshot.rules), observed.next()));
        assemble(resolved, seen, snapshot, &networks, &places, &mut ways)
    };
    Ok(resolved.into_iter().map(|one| one.and_then(&mut look)).collect())
}

fn kernel(error: impl std::error::Error) -> TraceError {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    TraceError::Kernel(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// Where the socket programs are attached, if there are any.
fn cgroup_of(basis: &Basis, snapshot: &Snapshot) -> Result<Option<PathBuf>, TraceError> {
    if snapshot.rules.mode != Mode::Ebpf {
        return Ok(None);
    }
    let mounted = || cgroup::mounted_root().map_err(|error| TraceError::Kernel(format!("{error:#}")));
    basis.cgroup_root.clone().map_or_else(mounted, Ok).map(Some)
}

/// `None`: without a port there is no connection, only a way.
fn probe(resolved: &Resolved) -> Option<Probe> {
    Some(Probe {
        client: resolved.client.clone(),
        destination: SocketAddr::new(resolved.address, resolved.port?),
        protocol: resolved.protocol,
        to_node: resolved.to_node,
    })
}

/// Looks for the clients' network namespaces, if one of them asks for a Service with session affinity.
fn find_cookies(
    resolved: &mut [Result<Resolved, TraceError>],
    snapshot: &Snapshot,
    index: &Index<'_>,
    cgroup: &std::path::Path,
) {
    let mut known: Option<HashMap<_, _>> = None;
    for one in resolved.iter_mut().flatten().filter(|one| one.client.at_socket && one.client.interface.is_some()) {
        let Some(probe) = probe(one) else { continue };
        let decision = index.decide(&probe, &snapshot.rules);
        if decision.frontend.is_some_and(|(plan, _)| plan.affinity.is_some()) {
            let known = known.get_or_insert_with(|| cookies(cgroup));
            one.client.netns_cookie = known.get(&one.client.address).copied();
        }
    }
}

/// What the kernel would do, and who decided.
struct Seen {
    live: Live,
    decided_by: &'static str,
}

/// Goes the way a connection goes: through the socket programs, if its socket is one of theirs, then through the packet path.
fn observe(
    basis: &Basis,
    snapshot: &Snapshot,
    cgroup: Option<PathBuf>,
    probes: &[Probe],
) -> Result<Vec<Seen>, DataPlaneError> {
    let mut at_socket: HashMap<usize, Live> = HashMap::new();
    if let Some(cgroup) = cgroup {
        let (places, of_sockets): (Vec<usize>, Vec<Probe>) =
            probes.iter().cloned().enumerate().filter(|(_, probe)| probe.client.at_socket).unzip();
        at_socket = places.into_iter().zip(ebpf::live(&basis.bpffs, &cgroup, &of_sockets)?).collect();
    }
    let ends_at_socket = |place: &usize| {
        at_socket.get(place).is_some_and(|live| matches!(live.verdict, Verdict::Endpoints(_) | Verdict::Reject))
    };
    let (places, packets): (Vec<usize>, Vec<Probe>) =
        probes.iter().cloned().enumerate().filter(|(place, _)| !ends_at_socket(place)).unzip();
    let lives = match snapshot.rules.mode {
        // 127.0.0.1 is the sockets' there (6.6).
        Mode::Ebpf => {
            let settings = PacketSettings { localhost_node_ports: false, ..snapshot.rules.packets.clone() };
            nftables::live(&settings, &packets)?
        }
        Mode::Nftables => nftables::live(&snapshot.rules.packets, &packets)?,
        Mode::Iptables => iptables::live(&packets)?,
    };
    let mut by_packet: HashMap<usize, Live> = places.into_iter().zip(lives).collect();
    let packet_path = snapshot.rules.mode.packet_path();
    let seen = |place: usize| match (at_socket.remove(&place), by_packet.remove(&place)) {
        (Some(live), None) => Seen { live, decided_by: "sockets" },
        (before, Some(mut live)) => {
            let decided_by = if live.verdict == Verdict::Untouched { "none" } else { packet_path };
            if let Some(mut socket) = before {
                socket.steps.append(&mut live.steps);
                socket.problems.append(&mut live.problems);
                (live.steps, live.problems) = (socket.steps, socket.problems);
            }
            Seen { live, decided_by }
        }
        (None, None) => unreachable!("every probe that did not end at the socket was given to the packet path"),
    };
    Ok((0..probes.len()).map(seen).collect())
}

fn assemble(
    resolved: Resolved,
    seen: Option<(Decision<'_>, Option<Seen>)>,
    snapshot: &Snapshot,
    networks: &Networks,
    places: &Places,
    ways: &mut Ways<'_>,
) -> Result<Trace, TraceError> {
    let mut trace = Trace {
        from: resolved.from.clone(),
        to: resolved.to.clone(),
        frontend: None,
        rule: "without a port only the way is traced".to_owned(),
        verdict: TraceVerdict::Untouched,
        decided_by: "none".to_owned(),
        endpoints: Vec::new(),
        next: None,
        steps: Vec::new(),
        findings: Vec::new(),
        notes: Vec::new(),
    };
    let mut to = vec![(resolved.address, resolved.port)];
    let mut local = Vec::new();
    let mut masquerade = None;
    if let Some((decision, Some(Seen { live, decided_by }))) = seen {
        let is_packet = decided_by != "sockets";
        trace.findings = compare::findings(&decision, &live, is_packet);
        trace.frontend = decision.frontend.map(|(plan, frontend)| frontend_of(plan, frontend));
        trace.rule = decision.rule;
        trace.decided_by = decided_by.to_owned();
        masquerade = (is_packet && live.masquerade).then_some("Services");
        if let Fate::Endpoints(endpoints) = &decision.fate {
            local = endpoints.iter().filter(|endpoint| endpoint.local).map(|endpoint| endpoint.address).collect();
        }
        (trace.verdict, to) = match live.verdict {
            Verdict::Untouched => (TraceVerdict::Untouched, to),
            Verdict::Reject => (TraceVerdict::Reject, Vec::new()),
            Verdict::Drop => (TraceVerdict::Drop, Vec::new()),
            Verdict::Endpoints(list) => {
                (TraceVerdict::Endpoints, list.into_iter().map(|at| (at.ip(), Some(at.port()))).collect())
            }
        };
        trace.next = live.next.map(|next| NextTrace {
            address: next.endpoint.ip(),
            port: next.endpoint.port(),
            why: why(next.reason),
        });
        if trace.next.is_none() && trace.verdict == TraceVerdict::Endpoints {
            trace.notes.push(format!("{decided_by} does not tell whose turn it is"));
        }
        trace.steps = live.steps;
    }
    let hairpin = trace.decided_by != "sockets";
    for (address, port) in to {
        let is_pod = local.contains(&address) || places.pod_at(address).is_some();
        let found = ways.to(address, is_pod).map_err(kernel)?;
        trace.findings.extend(
            found.findings.iter().filter(|finding| !trace.findings.contains(finding)).cloned().collect::<Vec<_>>(),
        );
        if found.way.kind == "none" && found.findings.is_empty() {
            trace.notes.push(format!("this node has no route to {address}"));
        }
        let client: &Client = &resolved.client;
        let itself = hairpin && trace.verdict == TraceVerdict::Endpoints && address == client.address;
        // The node's own packets have the address of the way they take.
        let source = if client.interface.is_none() { found.source.unwrap_or(client.address) } else { client.address };
        let by_network = || networks.masquerades(source, address) && !found.is_local;
        let masqueraded = masquerade.or(itself.then_some("hairpin")).or_else(|| by_network().then_some("pod network"));
        let pod = places.pod_at(address).and_then(|pod| pod.name.clone());
        let masqueraded = masqueraded.map(str::to_owned);
        trace.endpoints.push(EndpointTrace { address, port, pod, masqueraded, way: found.way });
    }
    if let Some(interface) = &resolved.client.interface
        && resolved.client.at_socket
        && let Ok(back) = ways.to(resolved.client.address, true)
    {
        if back.way.device.as_ref() != Some(interface) && back.findings.is_empty() && back.way.kind != "pod" {
            trace.findings.push(format!("answers to {} do not leave by {interface}", resolved.client.address));
        }
        trace.findings.extend(back.findings.iter().map(|finding| format!("the way back: {finding}")));
    }
    if let Some(error) = &snapshot.error {
        trace.notes.push(format!("the agent could not bring the kernel up to date: {error}"));
    }
    Ok(trace)
}

fn frontend_of(plan: &weft_proxy::plan::ServicePortPlan, frontend: Frontend) -> FrontendTrace {
    let kind = match frontend {
        Frontend::ClusterIp(_) => "ClusterIP",
        Frontend::ExternalIp(_) => "ExternalIP",
        Frontend::LoadBalancer(_) => "LoadBalancer",
        Frontend::NodePort(_) => "NodePort",
    };
    FrontendTrace {
        service: plan.key.port.service.to_string(),
        port: plan.key.port.port.to_string(),
        kind: kind.to_owned(),
        affinity_seconds: plan.affinity.map(|timeout| timeout.as_secs()),
    }
}

fn why(reason: NextReason) -> String {
    match reason {
        NextReason::Only => "it is the only one".to_owned(),
        NextReason::Turn { slot, of } => format!("it is its turn: number {} of {of}", slot + 1),
        NextReason::Affinity { left: None } => "session affinity: this client had it before".to_owned(),
        NextReason::Affinity { left: Some(left) } => {
            format!("session affinity: this client had it before, and keeps it for {} s", left.as_secs())
        }
    }
}
