//! `load`: new connections at a steady rate.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::SocketAddr,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use weft_tests::{Failure, LoadReport, Seen, unix_us};

use crate::{client, latency::Latencies};

/// Failures reported in full.
const SHOWN_FAILURES: usize = 100;
/// Longer than two SYN retransmissions (1 s, then 2 s): a lost packet is slow, not failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Open new connections at a steady rate until standard input closes.
#[derive(Args)]
pub(crate) struct Load {
    /// Connections a second over all clients; 0: as many as go.
    #[arg(long)]
    rate: u32,
    /// Number of clients.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    parallel: u32,
    /// End by itself after this time.
    #[arg(long)]
    milliseconds: Option<u64>,
    /// Where to.
    target: SocketAddr,
}

/// What one client counted.
#[derive(Default)]
struct Tally {
    by_name: BTreeMap<String, u64>,
    seen: BTreeMap<String, Seen>,
    failed: u64,
    failures: Vec<Failure>,
    latencies: Latencies,
}

impl Load {
    pub(crate) fn run(self) -> Result<()> {
        let start = Instant::now();
        let stop = AtomicBool::new(false);
        let ready = Once::new();
        let mut total = Tally::default();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.parallel)
                .map(|number| {
                    let (load, stop, ready) = (&self, &stop, &ready);
                    scope.spawn(move || load.client(number, start, stop, ready))
                })
                .collect();
            match self.milliseconds {
                Some(time) => {
                    thread::sleep(Duration::from_millis(time));
                    // On a busy machine the first connection can take longer than that.
                    while !ready.is_completed() && start.elapsed() < TIMEOUT {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                None => wait_for_end_of_stdin(),
            }
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                total.merge(client.join().unwrap_or_default());
            }
        });
        crate::report(&total.into_report(start.elapsed()))
    }

    fn client(&self, number: u32, start: Instant, stop: &AtomicBool, ready: &Once) -> Tally {
        let mut tally = Tally::default();
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            self.wait_for_turn(number, turn, start);
            turn += 1;
            let (begin, now) = (Instant::now(), unix_us());
            match client::connect(self.target, TIMEOUT) {
                Ok((connection, answer)) => {
                    drop(connection);
                    tally.latencies.add(begin.elapsed());
                    tally.see(&answer.name, Seen { first_us: now, last_us: now });
                    *tally.by_name.entry(answer.name).or_default() += 1;
                    ready.call_once(crate::say_ready);
                }
                Err(error) => {
                    tally.failed += 1;
                    if tally.failures.len() < SHOWN_FAILURES {
                        tally.failures.push(error.into_failure(start));
                    }
                    // A refused connection costs microseconds; do not spin on it.
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        tally
    }

    /// Turns are on a fixed timetable: who was delayed catches up, so the rate is kept.
    fn wait_for_turn(&self, number: u32, turn: u32, start: Instant) {
        if self.rate == 0 {
            return;
        }
        let position = f64::from(turn) * f64::from(self.parallel) + f64::from(number);
        let due = Duration::from_secs_f64(position / f64::from(self.rate));
        let wait = due.saturating_sub(start.elapsed());
        // Sleeping is only exact to some 60 us (timer slack); below that catching up is cheaper.
        if wait > Duration::from_micros(100) {
            thread::sleep(wait);
        }
    }
}

impl Tally {
    fn see(&mut self, name: &str, seen: Seen) {
        let entry = self.seen.entry(name.to_owned()).or_insert(seen);
        entry.first_us = entry.first_us.min(seen.first_us);
        entry.last_us = entry.last_us.max(seen.last_us);
    }

    fn merge(&mut self, other: Self) {
        for (name, count) in other.by_name {
            *self.by_name.entry(name).or_default() += count;
        }
        for (name, seen) in other.seen {
            self.see(&name, seen);
        }
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(SHOWN_FAILURES);
        self.latencies.merge(other.latencies);
    }

    fn into_report(self, elapsed: Duration) -> LoadReport {
        let good: u64 = self.by_name.values().sum();
        let latencies = self.latencies.sorted();
        LoadReport {
            good,
            failed: self.failed,
            failures: self.failures,
            by_name: self.by_name,
            seen: self.seen,
            seconds: elapsed.as_secs_f64(),
            rate: good as f64 / elapsed.as_secs_f64(),
            p10_us: latencies.percentile(10),
            p50_us: latencies.percentile(50),
            p99_us: latencies.percentile(99),
            max_us: latencies.percentile(100),
            p50_ns: latencies.percentile_ns(50),
            p99_ns: latencies.percentile_ns(99),
        }
    }
}

/// The test closes our standard input when it has seen enough, and so does its end.
pub(crate) fn wait_for_end_of_stdin() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
