//! Round robin by the hundred: exact shares, while other Services change, and after endpoints came and went.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use weft_tests::{Protocol, Request, eventually, secs};

use crate::{
    objects::{
        At, Family,
        Server::{self, A1, A2, B1, B2},
        Service, service,
    },
    scenario::{Client, Flags, Mode, Target, by, given},
    world::World,
};

const REQUESTS: u64 = 600;

/// 600 connections over 3 endpoints are 200 each, from a pod and from outside, by TCP and UDP.
///
/// # Errors
/// A share that is not exact, or an unrelated change that was not applied.
pub(crate) fn shares_are_exact(mode: Mode) -> Result<()> {
    let subject = || service().port("datagrams", "UDP", 80, 8080).node_port();
    let one = given("the Service under test", [subject().on([A1, A2, B1])])
        .row("2.8", "", Client::Pod, Target::ClusterIp, by([A1, A2, B1]))
        // So that the Service is in a file of its own.
        .then([subject().on([A1, A2, B1])]);
    let world = World::build(mode, Flags::ClusterCidr, false, &[(1, &one)])?;
    let done = AtomicBool::new(false);
    let changes = AtomicUsize::new(0);
    thread::scope(|scope| {
        let others = scope.spawn(|| change_others(&world, &done, &changes));
        let measured = rounds(&world, &changes, &subject);
        done.store(true, Ordering::Relaxed);
        let changed = others.join().expect("it does not panic");
        measured.and(changed)
    })?;
    world.shutdown()
}

fn rounds(world: &World, changes: &AtomicUsize, subject: &dyn Fn() -> Service) -> Result<()> {
    let rounds: [&[Server]; 4] = [&[A1, A2, B1], &[A1, B1], &[A1, A2, B1, B2], &[A1, A2, B1]];
    for servers in rounds {
        world.change(1, &[subject().on(servers.iter().copied())])?;
        for client in [Client::Pod, Client::Outside] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let before = changes.load(Ordering::Relaxed);
                exact(world, client, protocol, servers)
                    .with_context(|| format!("{} {client} {protocol:?}", world.mode.name()))?;
                // Something else did change meanwhile, or soon does.
                eventually(secs(10), || {
                    ensure!(changes.load(Ordering::Relaxed) > before, "no unrelated change");
                    Ok::<_, anyhow::Error>(())
                })?;
            }
        }
    }
    Ok(())
}

fn exact(world: &World, client: Client, protocol: Protocol, servers: &[Server]) -> Result<()> {
    let at = At { group: 1, service: 0 };
    let index = usize::from(protocol == Protocol::Udp);
    let (target, port) = match client {
        Client::Outside => (Target::NodePort, at.node_port(index)),
        _ => (Target::ClusterIp, 80),
    };
    let request = Request::new(protocol, SocketAddr::new(world.address(target, &at, Family::V4)?, port));
    let count = u64::try_from(servers.len())?;
    let expected = |requests: u64| -> BTreeMap<String, u64> {
        servers.iter().map(|server| (server.name().to_owned(), requests / count)).collect()
    };
    // The change has arrived once all have their turn.
    eventually(secs(10), || {
        let answers = world.client(client).ask(&request.clone().count(4 * count))?.all_good()?;
        ensure!(answers.by_name == expected(4 * count), "{}", answers.counts());
        Ok::<_, anyhow::Error>(())
    })?;
    let answers = world.client(client).ask(&request.count(REQUESTS).parallel(4))?.all_good()?;
    ensure!(answers.by_name == expected(REQUESTS), "{} instead of {:?}", answers.counts(), expected(REQUESTS));
    Ok(())
}

/// Other Services come, go, and change their endpoints and ports all the time.
fn change_others(world: &World, done: &AtomicBool, changes: &AtomicUsize) -> Result<()> {
    let shapes = [
        vec![service().on([A1, B1]).node_port(), service().udp().on([A1, A2, B1])],
        vec![service().on([A1]).node_port()],
        vec![service().on([A1, A2, B1]).affinity(60), service()],
        vec![service().on([B1, B2]).external_ip().external_local(), service().on([A2]).load_balancer()],
    ];
    for shape in shapes.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        for group in [2, 3] {
            world.change(group, shape)?;
        }
        changes.fetch_add(1, Ordering::Relaxed);
        thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}
