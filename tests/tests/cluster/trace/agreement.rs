//! A thousand random pairs of client and target, of both families, in each mode: what `weft trace` says, and what happens.

use std::{collections::BTreeMap, net::SocketAddr, thread};

use anyhow::{Context, Result, bail, ensure};
use weft_tests::{Answers, Cluster, Protocol, Request, Trace, eventually, secs};

use super::places::{Client, clients, more_services, targets};
use crate::fixture::Serving;

/// How many connections are traced and made.
const PAIRS: usize = 1_000;

/// What a dropped connection waits for; every other one is answered long before, if slowly on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(2_500);

/// Networks of the pods.
const CLUSTER_CIDRS: &str = "10.244.0.0/16,2001:db8:42::/56";

#[test]
fn a_thousand_connections_go_where_trace_says_in_ebpf_mode() -> Result<()> {
    agrees("ebpf", 1)
}

#[test]
fn a_thousand_connections_go_where_trace_says_in_nftables_mode() -> Result<()> {
    agrees("nftables", 2)
}

#[test]
fn a_thousand_connections_go_where_trace_says_in_iptables_mode() -> Result<()> {
    agrees("iptables", 3)
}

/// One connection and what was said of it.
struct Pair {
    /// Index of the client.
    client: usize,
    from: String,
    target: SocketAddr,
    protocol: Protocol,
    /// What the agents on its way say, in order.
    traces: Vec<Trace>,
}

fn agrees(mode: &str, seed: u64) -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", mode).agent_flag("--cluster-cidr", CLUSTER_CIDRS);
    let serving = Serving::dual_stack_on(builder)?;
    more_services(&serving)?;
    sctp_is_traced(&serving)?;
    let clients = clients(&serving)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let targets = targets(&serving)?;
    let mut pairs: Vec<Pair> = (0..PAIRS)
        .map(|_| {
            let client = random.usize(..clients.len());
            // Who is outside knows no way to pods and ClusterIPs.
            let outside = clients[client].node.is_none();
            let reachable: Vec<_> =
                targets.iter().filter(|(at, _)| !outside || node_of(&serving, *at).is_some()).collect();
            let (target, protocol) = *reachable[random.usize(..reachable.len())];
            Pair { client, from: clients[client].side(target).name.clone(), target, protocol, traces: Vec::new() }
        })
        .collect();
    ask_all(&serving, &clients, &mut pairs)?;
    ask_next_nodes(&serving, &clients, &mut pairs)?;
    let answers = connect_all(&clients, &pairs)?;
    let names = servers(&serving);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (pair, answers) in pairs.iter().zip(answers) {
        let kind = judge(pair, &clients[pair.client], &answers, &names).with_context(|| {
            let (from, to) = (&pair.from, pair.target);
            format!("{from} to {to} {:?}: traced {:#?}, but got {answers:?}", pair.protocol, pair.traces)
        })?;
        *seen.entry(kind).or_default() += 1;
    }
    eprintln!("{PAIRS} connections: {seen:?}");
    for kind in
        ["endpoints", "reject", "drop", "untouched"].iter().flat_map(|kind| [4, 6].map(|v| format!("IPv{v} {kind}")))
    {
        let count: usize = seen.iter().filter(|(seen, _)| seen.starts_with(&kind)).map(|(_, count)| count).sum();
        ensure!(count >= 10, "few {kind}: {seen:?}");
    }
    drop(clients);
    serving.shutdown()
}

/// Sockets of SCTP are not in every kernel, and so no connections; the plan and the kernel's rules are there to be compared.
fn sctp_is_traced(serving: &Serving) -> Result<()> {
    for target in ["10.96.1.5:80", "[2001:db8:96::1:5]:80"] {
        let question = [("node".to_owned(), format!("{target}/sctp"))];
        eventually(secs(10), || {
            let traces = serving.cluster.node(1).agent().trace(&question)?;
            let trace = traces.first().context("an answer")?;
            ensure!(trace.error.is_none() && trace.findings.is_empty(), "{trace:?}");
            ensure!(trace.verdict == "endpoints" && trace.endpoints.len() == 3, "{trace:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn node_of(serving: &Serving, at: SocketAddr) -> Option<usize> {
    serving.cluster.nodes().iter().position(|node| at.ip() == node.v4() || at.ip() == node.v6())
}

/// Asks the agent of each client's node; for who is outside, that of the node it connects to.
fn ask_all(serving: &Serving, clients: &[Client], pairs: &mut [Pair]) -> Result<()> {
    let started = std::time::Instant::now();
    for (index, node) in serving.cluster.nodes().iter().enumerate() {
        let mut mine: Vec<&mut Pair> = pairs
            .iter_mut()
            .filter(|pair| clients[pair.client].node.or(node_of(serving, pair.target)) == Some(index))
            .collect();
        let questions: Vec<_> = mine.iter().map(|pair| (pair.from.clone(), to(pair))).collect();
        let traces = node.agent().trace(&questions)?;
        ensure!(traces.len() == mine.len(), "{} answers to {} questions", traces.len(), mine.len());
        for (pair, trace) in mine.iter_mut().zip(traces) {
            pair.traces.push(trace);
        }
    }
    eprintln!("{} traces took {:?}", pairs.len(), started.elapsed());
    Ok(())
}

/// A packet that no Service of the first node takes may be to another node, which has its own say.
fn ask_next_nodes(serving: &Serving, clients: &[Client], pairs: &mut [Pair]) -> Result<()> {
    for pair in pairs {
        let (Some(here), Some(there)) = (clients[pair.client].node, node_of(serving, pair.target)) else { continue };
        let first = &pair.traces[0];
        if here == there || first.verdict != "untouched" {
            continue;
        }
        let masqueraded = first.endpoints.first().is_some_and(|endpoint| endpoint.masqueraded.is_some());
        let node = &serving.cluster.nodes()[here];
        let of_node = if pair.target.is_ipv6() { node.v6().to_string() } else { node.v4().to_string() };
        let source = match &clients[pair.client].side(pair.target).address {
            Some(address) if !masqueraded => address.clone(),
            _ => of_node,
        };
        let second = serving.cluster.nodes()[there].agent().trace(&[(source, to(pair))])?;
        pair.traces.extend(second);
    }
    Ok(())
}

fn to(pair: &Pair) -> String {
    let protocol = if pair.protocol == Protocol::Tcp { "tcp" } else { "udp" };
    format!("{}/{protocol}", pair.target)
}

fn connect_all(clients: &[Client], pairs: &[Pair]) -> Result<Vec<Answers>> {
    let mut answers: Vec<Option<Result<Answers>>> = pairs.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let size = pairs.len().div_ceil(50);
        for (pairs, answers) in pairs.chunks(size).zip(answers.chunks_mut(size)) {
            scope.spawn(move || {
                for (pair, answer) in pairs.iter().zip(answers) {
                    let request = Request::new(pair.protocol, pair.target).timeout(PATIENCE);
                    *answer = Some(clients[pair.client].asker.ask(&request));
                }
            });
        }
    });
    answers.into_iter().map(|answer| answer.context("every pair was connected")?).collect()
}

/// Servers by address.
fn servers(serving: &Serving) -> BTreeMap<String, String> {
    let addresses = serving.web.iter().flat_map(|pod| pod.addresses().iter().map(move |address| (address, pod.name())));
    addresses.map(|(address, name)| (address.to_string(), name.to_owned())).collect()
}

/// Compares what was said with what happened; returns what it was.
fn judge(pair: &Pair, client: &Client, answers: &Answers, names: &BTreeMap<String, String>) -> Result<String> {
    for trace in &pair.traces {
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "{:?} {:?}", trace.error, trace.findings);
    }
    let last = pair.traces.last().context("it was traced")?;
    let error = answers.failures.first().map(|failure| failure.error.clone()).unwrap_or_default();
    let family = if pair.target.is_ipv6() { "IPv6" } else { "IPv4" };
    let kind = format!("{family} {} by {}", last.verdict, last.decided_by);
    match last.verdict.as_str() {
        "reject" => ensure!(error.contains("ConnectionRefused"), "refused, it was said"),
        "drop" => ensure!(error.contains("TimedOut") || error.contains("WouldBlock"), "dropped, it was said"),
        "endpoints" => {
            let eligible: Vec<&String> =
                last.endpoints.iter().filter_map(|endpoint| names.get(&endpoint.address.to_string())).collect();
            let server = answers.order.first().context("an endpoint should answer")?;
            ensure!(eligible.contains(&server), "{server} is not among {eligible:?}");
            if let Some(next) = last.next.as_ref().filter(|next| next.why.contains("only one")) {
                ensure!(names.get(&next.address.to_string()) == Some(server), "{next:?}");
            }
            source(pair, client, answers, names)?;
        }
        "untouched" => match names.get(&pair.target.ip().to_string()).filter(|_| pair.target.port() == 8080) {
            Some(server) => {
                ensure!(answers.order.first() == Some(server), "{server} itself, it was said");
                source(pair, client, answers, names)?;
            }
            None => ensure!(!error.is_empty(), "nobody is there"),
        },
        other => bail!("verdict {other:?}"),
    }
    Ok(kind)
}

/// Who is not masqueraded anywhere keeps its address, and who is does not.
fn source(pair: &Pair, client: &Client, answers: &Answers, names: &BTreeMap<String, String>) -> Result<()> {
    let (Some(address), Some(server)) = (&client.side(pair.target).address, answers.order.first()) else {
        return Ok(());
    };
    let kept = answers.sources.contains_key(address);
    let masqueraded = pair.traces.iter().any(|trace| {
        let of_server = |endpoint: &&weft_tests::TracedEndpoint| {
            trace.endpoints.len() == 1 || names.get(&endpoint.address.to_string()) == Some(server)
        };
        trace.endpoints.iter().find(of_server).is_some_and(|endpoint| endpoint.masqueraded.is_some())
    });
    ensure!(kept != masqueraded, "masqueraded {masqueraded}, the server saw {:?}", answers.sources);
    Ok(())
}
