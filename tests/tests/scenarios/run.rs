//! Runs groups in a world, several at a time, and tells what did not happen as it must.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use weft_tests::{Answers, Protocol, Request, eventually, secs};

use crate::{
    objects::{At, Family, Port},
    scenario::{Client, Flags, Group, Mode, Order, Outcome, Row, Source, Step, Target},
    table,
    world::World,
};

/// Groups at a time; most of them wait for something.
const WORKERS: usize = 12;
/// A row that is not silence must be over by then, on a busy machine too.
const PATIENCE: Duration = secs(5);
/// Long enough for a SYN and its answer, shorter than its first retransmission.
const SILENCE: Duration = Duration::from_millis(700);

/// Runs all groups with these flags in one mode.
///
/// # Errors
/// Every row that failed, or what kept the world from being built.
pub(crate) fn run(mode: Mode, flags: Flags, api_server: bool) -> Result<()> {
    let all = table::all();
    let groups: Vec<(u8, &Group)> = (1..).zip(&all).filter(|(_, group)| group.flags == flags).collect();
    let start = std::time::Instant::now();
    let world = World::build(mode, flags, api_server, &groups)?;
    let built = start.elapsed();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((number, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = run_group(&world, *number, group);
                    failures.lock().expect("no worker panics").extend(failed);
                }
            });
        }
    });
    eprintln!("{} with {flags:?}: built in {built:?}, run in {:?}", mode.name(), start.elapsed() - built);
    let mut failures = failures.into_inner().expect("no worker panics");
    failures.sort();
    if failures.is_empty() {
        return world.shutdown();
    }
    let mut text = format!("{} scenarios failed in mode {} with {flags:?}:\n", failures.len(), mode.name());
    for failure in failures {
        let _ = writeln!(text, "{failure}");
    }
    bail!(text)
}

/// Runs the rows in order, each in both families at once.
fn run_group(world: &World, number: u8, group: &Group) -> Vec<String> {
    let failures = RefCell::new(Vec::new());
    let note = |result: Result<()>| {
        if let Err(error) = result {
            failures.borrow_mut().push(format!("s{number} {}: {error:#}", group.given));
        }
    };
    // Who answered the row before, by family.
    let mut before: HashMap<Family, String> = HashMap::new();
    let mut changed = false;
    let mut services = &group.services;
    for step in &group.steps {
        let row = match step {
            Step::Row(row) => row,
            Step::Change(now) => {
                (services, changed) = (now, true);
                note(world.change(number, now));
                continue;
            }
            Step::Zone(zone) => {
                changed = true;
                note(world.move_n1(zone));
                continue;
            }
        };
        thread::sleep(row.pause);
        let results: Vec<(Family, Result<Option<String>>)> = thread::scope(|scope| {
            let instances: Vec<_> = row
                .families
                .iter()
                .map(|&family| {
                    let last = before.get(&family).cloned();
                    let at = At { group: number, service: row.service };
                    let ports = &services[usize::from(row.service)].ports;
                    scope.spawn(move || (family, run_row(world, &at, row, ports, family, last.as_deref(), changed)))
                })
                .collect();
            instances.into_iter().map(|instance| instance.join().expect("a row does not panic")).collect()
        });
        for (family, result) in results {
            match result {
                Ok(Some(name)) => drop(before.insert(family, name)),
                Ok(None) => {}
                Err(error) => failures.borrow_mut().push(format!(
                    "s{number} {} {} {}: {} | given {}; {} -> {} | expected: {} | {error:#}",
                    row.rule,
                    world.mode.name(),
                    family.name(),
                    row.name,
                    group.given,
                    row.client,
                    row.target,
                    row.outcome(world.mode),
                )),
            }
        }
    }
    failures.into_inner()
}

/// Which port of the group's Service a row is about.
pub(crate) fn port_index(row: &Row, group: &Group) -> usize {
    index_of(row, &group.services[usize::from(row.service)].ports)
}

fn index_of(row: &Row, ports: &[Port]) -> usize {
    let protocol = row.protocol.map(|protocol| if protocol == Protocol::Tcp { "TCP" } else { "UDP" });
    let asked = |port: &Port| {
        row.port.is_none_or(|number| number == port.number) && protocol.is_none_or(|protocol| protocol == port.protocol)
    };
    ports.iter().position(asked).unwrap_or(0)
}

fn run_row(
    world: &World,
    at: &At,
    row: &Row,
    ports: &[Port],
    family: Family,
    before: Option<&str>,
    changed: bool,
) -> Result<Option<String>> {
    let index = index_of(row, ports);
    let port = &ports[index];
    let address = world.address(row.target, at, family)?;
    let port_number = if row.target.is_node_port() { at.node_port(index) } else { row.port.unwrap_or(port.number) };
    let protocol = row.protocol.unwrap_or(if port.protocol == "UDP" { Protocol::Udp } else { Protocol::Tcp });
    let expected = row.outcome(world.mode);
    let (count, timeout) = match expected {
        Outcome::Answer { by, .. } => (2 * by.len().max(2), PATIENCE),
        Outcome::Silence => (1, SILENCE),
        Outcome::Refused | Outcome::RefusedToSend | Outcome::Untouched => (1, PATIENCE),
    };
    let target = SocketAddr::new(address, port_number);
    let request = Request::new(protocol, target).count(u64::try_from(count)?).timeout(timeout);
    let attempt = || {
        let answers = world.client(row.client).ask(&request)?;
        check(world, row.client, family, expected, before, &answers)
            .map_err(|wrong| anyhow::anyhow!("seen: {wrong} | {protocol:?} to {target}"))?;
        Ok::<_, anyhow::Error>(answers.order.last().cloned())
    };
    if changed { Ok(eventually(secs(10), attempt)?.0) } else { attempt() }
}

/// Compares; the error is what was seen.
fn check(
    world: &World,
    client: Client,
    family: Family,
    expected: &Outcome,
    before: Option<&str>,
    answers: &Answers,
) -> Result<(), String> {
    let failures: Vec<&str> = answers.failures.iter().map(|failure| failure.error.as_str()).collect();
    let seen = || match failures.first() {
        Some(first) => format!(
            "{} of {} failed: {first}; answers {:?}",
            failures.len(),
            failures.len() + answers.order.len(),
            answers.order
        ),
        None => format!("{} from {:?}", answers.order.join(" "), answers.sources.keys()),
    };
    let all_fail = |kinds: &[&str]| {
        answers.order.is_empty() && failures.iter().all(|error| kinds.iter().any(|kind| error.starts_with(kind)))
    };
    let good = match expected {
        Outcome::Answer { by, order, source } => {
            failures.is_empty()
                && in_order(by, *order, before, &answers.order)
                && sources(world, client, family, *source, answers)
        }
        Outcome::Refused => all_fail(&["ConnectionRefused"]),
        Outcome::RefusedToSend => all_fail(&["PermissionDenied"]),
        // UDP says WouldBlock when its time is up.
        Outcome::Silence => all_fail(&["TimedOut", "WouldBlock"]),
        Outcome::Untouched => {
            failures.is_empty() && answers.order.iter().all(|name| ["gateway", "n1"].contains(&name.as_str()))
        }
    };
    if good { Ok(()) } else { Err(seen()) }
}

fn in_order(by: &[String], order: Order, before: Option<&str>, answers: &[String]) -> bool {
    let Some(first) = answers.first() else { return false };
    let all_first = answers.iter().all(|name| name == first) && by.contains(first);
    match order {
        Order::Turns => {
            let round = &answers[..by.len().min(answers.len())];
            let distinct: BTreeSet<&String> = round.iter().collect();
            distinct == by.iter().collect() && answers.iter().zip(round.iter().cycle()).all(|(one, other)| one == other)
        }
        Order::One => all_first,
        Order::Same => all_first && before == Some(first),
        Order::Other => all_first && before.is_some_and(|before| before != first),
    }
}

fn sources(world: &World, client: Client, family: Family, source: Source, answers: &Answers) -> bool {
    let allowed = |ip: &IpAddr| match source {
        Source::Any => true,
        Source::Client => world.own(client, family).contains(ip),
        Source::N1 => world.own(Client::Node, family).contains(ip),
        Source::N2 => world.n2().contains(ip),
    };
    answers.sources.keys().all(|ip| ip.parse().is_ok_and(|ip| allowed(&ip)))
}

impl Target {
    pub(crate) const fn is_node_port(self) -> bool {
        matches!(
            self,
            Self::NodePort
                | Self::NodePortSecond
                | Self::NodePortTunnel
                | Self::NodePortLoopback
                | Self::NodePortElsewhere
        )
    }
}
