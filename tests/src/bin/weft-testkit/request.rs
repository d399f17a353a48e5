//! `request`: a number of requests by parallel clients, and who answered.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use weft_tests::{Answers, Failure, Protocol};

use crate::client::{self, Answer};

/// Make requests, and report who answered.
#[derive(Args)]
pub(crate) struct Request {
    /// Transport.
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// How many requests.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How many clients share them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    parallel: u64,
    /// Payload length.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// Time a request may take.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
    /// Where to.
    target: SocketAddr,
}

/// One result and when it came.
type Timed = (Instant, Result<Answer, Failure>);

impl Request {
    pub(crate) fn run(self) -> Result<()> {
        crate::report(&self.answers())
    }

    pub(crate) fn answers(&self) -> Answers {
        let start = Instant::now();
        let mut results: Vec<Timed> = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..self.parallel).map(|client| scope.spawn(move || self.client(client, start))).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect()
        });
        results.sort_by_key(|(at, _)| *at);
        let mut answers = Answers::default();
        for (_, result) in results {
            record(&mut answers, result);
        }
        answers
    }

    /// The share of one client: as even as it goes.
    fn client(&self, client: u64, start: Instant) -> Vec<Timed> {
        let share = self.count / self.parallel + u64::from(client < self.count % self.parallel);
        let timeout = Duration::from_millis(self.timeout_ms);
        (0..share)
            .map(|_| {
                let result = client::request(self.protocol, self.target, self.bytes, timeout);
                (Instant::now(), result.map_err(|error| error.into_failure(start)))
            })
            .collect()
    }
}

fn record(answers: &mut Answers, result: Result<Answer, Failure>) {
    match result {
        Ok(answer) => {
            *answers.by_name.entry(answer.name.clone()).or_default() += 1;
            *answers.sources.entry(answer.source.ip().to_string()).or_default() += 1;
            *answers.peers.entry(answer.peer.to_string()).or_default() += 1;
            answers.order.push(answer.name);
        }
        Err(failure) => answers.failures.push(failure),
    }
}
