//! `hold`: one long connection, asked for an echo again and again.

use std::{
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use weft_tests::HoldReport;

use crate::{
    client::{self, During, RequestError},
    latency::Latencies,
    load::wait_for_end_of_stdin,
};

/// Longer than any retransmission that repairs a lost packet in a test.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keep one connection busy until standard input closes.
#[derive(Args)]
pub(crate) struct Hold {
    /// Pause between round trips.
    #[arg(long, default_value_t = 5000)]
    pause_us: u64,
    /// Where to.
    target: SocketAddr,
}

impl Hold {
    pub(crate) fn run(self) -> Result<()> {
        let start = Instant::now();
        let (mut connection, answer) =
            client::connect(self.target, TIMEOUT).map_err(|error| anyhow::anyhow!("{}", error.into_failure(start)))?;
        crate::say_ready();
        let stop = AtomicBool::new(false);
        let mut latencies = Latencies::default();
        let mut round_trips = 0;
        let mut broken = None;
        thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                wait_for_end_of_stdin();
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                let begin = Instant::now();
                if let Err(error) = round_trip(&mut connection) {
                    broken = Some(error.into_failure(start));
                    break;
                }
                latencies.add(begin.elapsed());
                round_trips += 1;
                thread::sleep(Duration::from_micros(self.pause_us));
            }
        });
        let latencies = latencies.sorted();
        crate::report(&HoldReport {
            name: answer.name,
            round_trips,
            slowest_us: latencies.percentile(100),
            p50_us: latencies.percentile(50),
            p50_ns: latencies.percentile_ns(50),
            broken,
        })
    }
}

/// 64 bytes there and back.
fn round_trip(connection: &mut BufReader<TcpStream>) -> Result<(), RequestError> {
    let mut buffer = [b'.'; 64];
    connection.get_mut().write_all(&buffer).during("write")?;
    connection.read_exact(&mut buffer).during("read")
}
