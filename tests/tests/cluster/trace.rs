//! `weft trace` says what becomes of a connection; real connections tell whether that is true.

use std::{collections::BTreeMap, net::SocketAddr, thread};

use anyhow::{Context, Result, bail, ensure};
use weft_tests::{Answers, Asker, Cluster, ClusterBuilder, Protocol, Request, SlicePort, Trace, eventually, secs};

use crate::{
    fixture::{NAMES_NODE_PORT, Serving, WEB_NODE_PORT, names_vip, web_vip},
    single::Single,
};

/// How many connections are traced and made.
const PAIRS: usize = 1_000;

/// What a dropped connection waits for; every other one is answered long before, if slowly on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(2_500);

const LOCAL_NODE_PORT: u16 = 30081;
const EMPTY_NODE_PORT: u16 = 30082;
const STICKY_NODE_PORT: u16 = 30083;

#[test]
fn a_thousand_connections_go_where_trace_says_in_ebpf_mode() -> Result<()> {
    agrees(Cluster::builder().agent_flag("--cluster-cidr", "10.244.0.0/16"), 1)
}

#[test]
fn a_thousand_connections_go_where_trace_says_in_nftables_mode() -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", "nftables");
    agrees(builder.agent_flag("--cluster-cidr", "10.244.0.0/16"), 2)
}

#[test]
fn a_thousand_connections_go_where_trace_says_in_iptables_mode() -> Result<()> {
    let builder = Cluster::builder().agent_flag("--proxy-mode", "iptables");
    agrees(builder.agent_flag("--cluster-cidr", "10.244.0.0/16"), 3)
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

/// Somebody who connects.
struct Client {
    /// Index of the node whose agent is asked; of the node the packets go to, for who is outside.
    node: Option<usize>,
    /// FROM.
    name: String,
    /// The address its servers see, unless it is masqueraded.
    address: Option<String>,
    asker: Asker,
}

fn agrees(builder: ClusterBuilder, seed: u64) -> Result<()> {
    let serving = Serving::on(builder)?;
    more_services(&serving)?;
    let clients = clients(&serving)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let targets = targets(&serving)?;
    let mut pairs: Vec<Pair> = (0..PAIRS)
        .map(|_| {
            let client = random.usize(..clients.len());
            // Who is outside knows no way to pods and ClusterIPs.
            let outside = clients[client].node.is_none();
            let reachable: Vec<_> = targets.iter().filter(|(at, _)| !outside || is_node(*at)).collect();
            let (target, protocol) = *reachable[random.usize(..reachable.len())];
            Pair { client, from: clients[client].name.clone(), target, protocol, traces: Vec::new() }
        })
        .collect();
    ask_all(&serving, &clients, &mut pairs)?;
    ask_next_nodes(&serving, &clients, &mut pairs)?;
    let answers = connect_all(&clients, &pairs)?;
    let names = servers(&serving)?;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (pair, answers) in pairs.iter().zip(answers) {
        let kind = judge(pair, &clients[pair.client], &answers, &names).with_context(|| {
            let (from, to) = (&pair.from, pair.target);
            format!("{from} to {to} {:?}: traced {:#?}, but got {answers:?}", pair.protocol, pair.traces)
        })?;
        *seen.entry(kind).or_default() += 1;
    }
    eprintln!("{PAIRS} connections: {seen:?}");
    for kind in ["endpoints", "reject", "drop", "untouched"] {
        ensure!(seen.iter().any(|(seen, count)| seen.starts_with(kind) && *count >= 10), "few {kind}: {seen:?}");
    }
    drop(clients);
    serving.shutdown()
}

/// Policy Local, no endpoints, session affinity.
fn more_services(serving: &Serving) -> Result<()> {
    let manifests = serving.cluster.manifests();
    let http = [SlicePort::new("http", "TCP", 8080)];
    for (name, ip, node_port, spec, pods) in [
        ("local", "10.96.1.1", LOCAL_NODE_PORT, "externalTrafficPolicy: Local", &serving.web[..1]),
        ("empty", "10.96.1.2", EMPTY_NODE_PORT, "sessionAffinity: None", &[][..]),
        ("sticky", "10.96.1.3", STICKY_NODE_PORT, "sessionAffinity: ClientIP", &serving.web[..]),
        ("inner", "10.96.1.4", 30084, "internalTrafficPolicy: Local", &serving.web[1..2]),
    ] {
        manifests.endpoints(name, &http, &pods.iter().collect::<Vec<_>>())?;
        manifests.apply(
            &format!("{name}.yaml"),
            &format!(
                "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  type: NodePort
  clusterIP: {ip}
  clusterIPs: [{ip}]
  ipFamilies: [IPv4]
  {spec}
  ports:
  - {{name: http, protocol: TCP, port: 80, targetPort: 8080, nodePort: {node_port}}}
"
            ),
        )?;
    }
    for node in serving.cluster.nodes() {
        // Refusals are ICMP messages, of which the kernel sends each client one a second only (icmp(7)).
        node.run("sysctl", &["-qw", "net.ipv4.icmp_ratemask=0"])?;
        eventually(secs(20), || {
            let (services, status) = (node.agent().services()?, node.agent().status()?);
            ensure!(services.len() == 6 && status.ready, "{} of 6 ports, ready {}", services.len(), status.ready);
            ensure!(services.iter().all(|port| port.name != "sticky" || port.endpoints.len() == 3), "{services:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn clients(serving: &Serving) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (index, node) in serving.cluster.nodes().iter().enumerate() {
        clients.push(Client { node: Some(index), name: "node".to_owned(), address: None, asker: node.asker()? });
        for pod in [&serving.clients[index], &serving.web[index]] {
            let address = pod.socket_v4(0)?.ip().to_string();
            // By name and by address.
            let name = if pod.name().starts_with("web") { address.clone() } else { format!("default/{}", pod.name()) };
            clients.push(Client { node: Some(index), name, address: Some(address), asker: pod.asker()? });
        }
    }
    let address = weft_tests::OUTSIDE_V4.to_string();
    let asker = serving.cluster.outside().asker()?;
    clients.push(Client { node: None, name: address.clone(), address: Some(address), asker });
    Ok(clients)
}

fn targets(serving: &Serving) -> Result<Vec<(SocketAddr, Protocol)>> {
    use Protocol::{Tcp, Udp, UdpUnconnected};
    let at = |text: &str| text.parse::<SocketAddr>().context("an address");
    let mut targets = vec![
        (web_vip(), Tcp),
        (names_vip(), Udp),
        (names_vip(), UdpUnconnected),
        (at("10.96.1.1:80")?, Tcp),
        (at("10.96.1.2:80")?, Tcp),
        (at("10.96.1.3:80")?, Tcp),
        (at("10.96.1.4:80")?, Tcp),
        // Nobody's port of a ClusterIP.
        (at("10.96.1.1:81")?, Tcp),
    ];
    for node in serving.cluster.nodes() {
        for port in [WEB_NODE_PORT, LOCAL_NODE_PORT, EMPTY_NODE_PORT, STICKY_NODE_PORT, 30999] {
            targets.push((node.socket_v4(port), Tcp));
        }
        targets.push((node.socket_v4(NAMES_NODE_PORT), Udp));
    }
    for pod in &serving.web {
        targets.extend([(pod.socket_v4(8080)?, Tcp), (pod.socket_v4(8081)?, Tcp), (pod.socket_v4(8080)?, Udp)]);
    }
    Ok(targets)
}

fn is_node(at: SocketAddr) -> bool {
    at.ip().to_string().starts_with("192.0.2.")
}

fn node_of(serving: &Serving, at: SocketAddr) -> Option<usize> {
    serving.cluster.nodes().iter().position(|node| at.ip() == node.v4())
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
        let source = match &clients[pair.client].address {
            Some(address) if !masqueraded => address.clone(),
            _ => serving.cluster.nodes()[here].v4().to_string(),
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
fn servers(serving: &Serving) -> Result<BTreeMap<String, String>> {
    serving.web.iter().map(|pod| Ok((pod.socket_v4(0)?.ip().to_string(), pod.name().to_owned()))).collect()
}

/// Compares what was said with what happened; returns what it was.
fn judge(pair: &Pair, client: &Client, answers: &Answers, names: &BTreeMap<String, String>) -> Result<String> {
    for trace in &pair.traces {
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "{:?} {:?}", trace.error, trace.findings);
    }
    let last = pair.traces.last().context("it was traced")?;
    let error = answers.failures.first().map(|failure| failure.error.clone()).unwrap_or_default();
    let kind = format!("{} by {}", last.verdict, last.decided_by);
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
    let (Some(address), Some(server)) = (&client.address, answers.order.first()) else { return Ok(()) };
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

#[test]
fn who_is_next_is_told_and_true() -> Result<()> {
    let single = Single::start(Cluster::builder(), 3)?;
    single.apply_web("", "")?;
    next_is_true(&single, "turn", 20)?;
    // The client's network namespace is found by its processes.
    let _process = single.client.asker()?;
    single.apply_web("  sessionAffinity: ClientIP\n", "")?;
    eventually(secs(10), || {
        let trace = ask(&single, "default/client", "default/web:http")?;
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "{trace:?}");
        single.client.request(&Request::tcp(web_vip()))?.all_good()?;
        let trace = ask(&single, "default/client", "default/web:http")?;
        ensure!(trace.next.as_ref().is_some_and(|next| next.why.contains("affinity")), "{trace:?}");
        Ok(())
    })?;
    next_is_true(&single, "affinity", 3)?;
    single.shutdown()
}

fn next_is_true(single: &Single, why: &str, times: usize) -> Result<()> {
    eventually(secs(10), || {
        let trace = ask(single, "default/client", "default/web:http")?;
        ensure!(trace.endpoints.len() == 3, "{trace:?}");
        Ok(())
    })?;
    for _ in 0..times {
        let trace = ask(single, "default/client", "default/web:http")?;
        let next = trace.next.with_context(|| format!("nobody is next: {:?}", trace.steps))?;
        ensure!(next.why.contains(why), "{next:?}");
        let answers = single.client.request(&Request::tcp(web_vip()))?.all_good()?;
        let server = single.web.iter().find(|pod| pod.addresses().contains(&next.address)).context("a web pod")?;
        ensure!(answers.order == [server.name()], "{next:?}, but {:?} answered", answers.order);
    }
    Ok(())
}

fn ask(single: &Single, from: &str, to: &str) -> Result<Trace> {
    let mut traces = single.node().agent().trace(&[(from.to_owned(), to.to_owned())])?;
    traces.pop().context("an answer")
}

/// Waits until nothing is found, and then, after the damage, until something is.
fn finds(single: &Single, from: &str, to: &str, damage: impl FnOnce() -> Result<()>, text: &str) -> Result<()> {
    eventually(secs(10), || {
        let trace = ask(single, from, to)?;
        ensure!(trace.error.is_none() && trace.findings.is_empty(), "before the damage: {trace:?}");
        ensure!(trace.verdict == "endpoints" && !trace.endpoints.is_empty(), "before the damage: {trace:?}");
        Ok(())
    })?;
    damage()?;
    let trace = ask(single, from, to)?;
    ensure!(trace.findings.iter().any(|finding| finding.contains(text)), "no {text:?} in {trace:#?}");
    Ok(())
}

#[test]
fn a_lost_route_and_lost_elements_of_bpf_maps_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder(), 2)?;
    single.apply_web("  type: NodePort\n", ", nodePort: 30080")?;
    let (client, service) = ("default/client", "default/web:http");
    let pod = single.web[0].socket_v4(0)?.ip().to_string();
    let route = || single.node().run("ip", &["route", "delete", &pod]).map(drop);
    finds(&single, client, service, route, &pod)?;
    let device = ask_device(&single, &pod)?;
    single.node().run("ip", &["route", "add", &pod, "dev", &device])?;
    let pin = single.node().directory().join("bpf/weft/v2/SERVICES4").display().to_string();
    // 10.96.0.10, port 80, TCP, by address.
    let key = ["0x0a", "0x60", "0x00", "0x0a", "0x00", "0x50", "0x06", "0x00"];
    let delete = [&["map", "delete", "pinned", pin.as_str(), "key"][..], &key].concat();
    let element = || single.node().run("bpftool", &delete).map(drop);
    finds(&single, client, service, element, "the kernel says")?;
    single.shutdown()
}

/// Interface of a pod, by `weft pods`.
fn ask_device(single: &Single, pod: &str) -> Result<String> {
    let mut command = single.node().agent().command("pods");
    command.arg("--state-dir").arg(single.node().directory().join("state")).args(["-o", "json"]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pods: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let pods = pods.as_array().context("a list")?;
    ensure!(pods.iter().all(|pod| pod["name"].as_str().is_some_and(|name| name.starts_with("default/"))), "{pods:?}");
    let found = pods.iter().find(|one| one["addresses"][0] == pod).context("the pod is listed")?;
    Ok(found["hostInterface"].as_str().context("an interface")?.to_owned())
}

#[test]
fn lost_nftables_elements_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "nftables"), 2)?;
    single.apply_web("  type: NodePort\n", ", nodePort: 30080")?;
    let element = |map: &str, key: &str| {
        single.node().run("nft", &["delete", "element", "inet", "weft-proxy", map, &format!("{{ {key} }}")]).map(drop)
    };
    let endpoint = || element("endpoints4-tcp-2", "10.96.0.10 . 80 . 1");
    finds(&single, "default/client", "default/web:http", endpoint, "missing")?;
    let outside = weft_tests::OUTSIDE_V4.to_string();
    let node_port = single.node().socket_v4(30080).to_string();
    finds(&single, &outside, &node_port, || element("nodeports4", "6 . 30080"), "the kernel says")?;
    single.shutdown()
}

#[test]
fn lost_iptables_chains_are_found() -> Result<()> {
    let single = Single::start(Cluster::builder().agent_flag("--proxy-mode", "iptables"), 2)?;
    single.apply_web("", "")?;
    let damage = || {
        let rules = single.node().run("iptables-save", &["-t", "nat"])?;
        let chain = rules.lines().find_map(|line| line.strip_prefix(":KUBE-SEP-")?.split(' ').next());
        let chain = format!("KUBE-SEP-{}", chain.context("a chain of an endpoint")?);
        single.node().run("iptables", &["-t", "nat", "-F", &chain]).map(drop)
    };
    finds(&single, "default/client", "default/web:http", damage, "leads to no endpoint")?;
    single.shutdown()
}
