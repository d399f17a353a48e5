//! `client`: new connections to Services at random, without an end, one line for each attempt.
//!
//! A line of standard input names Services that have just changed; half of the attempts go to those.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fastrand::Rng;
use socket2::SockRef;
use weft_tests::unix_us;

use crate::{
    addresses::{Client as At, Frontend, is_dual_stack, is_udp},
    history::{Observation, Outcome},
};

/// Longer than the first three retransmissions of a SYN (1, 3 and 7 s): a lost packet is slow, not failed.
const TIMEOUT: Duration = Duration::from_secs(8);
/// A datagram that got no answer is sent again.
const RESEND: Duration = Duration::from_millis(500);
/// When it is given up: late, for on a busy machine whoever answers may have to wait for a processor.
const UDP_TIMEOUT: Duration = Duration::from_secs(6);
/// Services remembered as just changed.
const HOT: usize = 64;

/// Open new connections to Services at random.
#[derive(Args)]
pub(crate) struct Client {
    /// Where it is.
    #[arg(long, value_enum)]
    at: At,
    /// Number of Services.
    #[arg(long)]
    services: u32,
    /// Threads: attempts at once.
    #[arg(long, default_value_t = 64)]
    parallel: u32,
    /// Attempts a second over all threads.
    #[arg(long, default_value_t = 150)]
    rate: u32,
    /// Random number to begin with.
    #[arg(long)]
    seed: u64,
    /// Addresses of the node.
    #[arg(long)]
    node_v4: Ipv4Addr,
    /// The same for IPv6.
    #[arg(long)]
    node_v6: Ipv6Addr,
}

#[derive(Default)]
struct Shared {
    hot: Mutex<VecDeque<u32>>,
    stop: AtomicBool,
}

impl Client {
    pub(crate) fn run(self) -> Result<()> {
        let shared = Shared::default();
        crate::say_ready();
        thread::scope(|scope| {
            for number in 0..self.parallel {
                let (client, shared) = (&self, &shared);
                scope.spawn(move || client.work(number, shared));
            }
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let mut hot = shared.hot.lock().unwrap_or_else(PoisonError::into_inner);
                hot.extend(line.split(' ').filter_map(|number| number.parse::<u32>().ok()));
                let surplus = hot.len().saturating_sub(HOT);
                hot.drain(..surplus);
            }
            shared.stop.store(true, Ordering::Relaxed);
        });
        Ok(())
    }

    fn work(&self, number: u32, shared: &Shared) {
        let mut rng = Rng::with_seed(self.seed ^ u64::from(number));
        let pause = Duration::from_secs(1) * self.parallel / self.rate.max(1);
        thread::sleep(pause.mul_f64(rng.f64()));
        while !shared.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let seen = self.attempt(&mut rng, shared);
            // In one write, so that the lines of threads do not mix.
            if io::stdout().write_all(print(&seen).as_bytes()).is_err() {
                return;
            }
            thread::sleep(pause.saturating_sub(begin.elapsed()));
        }
    }

    fn attempt(&self, rng: &mut Rng, shared: &Shared) -> Observation {
        let hot = rng.bool().then(|| {
            let hot = shared.hot.lock().unwrap_or_else(PoisonError::into_inner);
            (!hot.is_empty()).then(|| hot[rng.usize(..hot.len())])
        });
        let service = hot.flatten().unwrap_or_else(|| rng.u32(..self.services));
        // The first is the one that every Service has.
        let frontends = self.at.frontends();
        let frontend = frontends[if rng.bool() { 0 } else { rng.usize(..frontends.len()) }];
        let v6 = is_dual_stack(service) && rng.bool();
        let target = frontend.address(service, v6, (self.node_v4, self.node_v6));
        let start = unix_us();
        let result = match (is_udp(service), rng.bool()) {
            (false, _) => tcp(target),
            (true, connected) => udp(target, connected),
        };
        let outcome = match result {
            Ok(address) => Outcome::Reached(address),
            Err(error) => Outcome::Failed(format!("{:?}", error.kind())),
        };
        Observation { client: self.at, service, frontend, v6, start, end: unix_us(), outcome }
    }
}

fn tcp(target: SocketAddr) -> io::Result<SocketAddr> {
    let stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    // Ends with RST, so that no port waits.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    parse_address(&line)
}

fn udp(target: SocketAddr, connected: bool) -> io::Result<SocketAddr> {
    let any = if target.is_ipv6() { SocketAddr::from(([0; 8], 0)) } else { SocketAddr::from(([0; 4], 0)) };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(RESEND))?;
    if connected {
        socket.connect(target)?;
    }
    let begin = Instant::now();
    let (mut buffer, mut stray) = ([0; 64], false);
    loop {
        if connected { socket.send(b"?") } else { socket.send_to(b"?", target) }?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == target => return parse_address(&String::from_utf8_lossy(&buffer[..length])),
            // A datagram that was under way when its endpoint went may be answered past the translation that is gone
            // (kube-proxy.md 10): lost. Twice is no chance.
            Ok((_, from)) if stray => return Err(io::Error::other(format!("answered by {from}"))),
            Ok(_) => stray = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < UDP_TIMEOUT => {}
            Err(error) => return Err(error),
        }
    }
}

fn parse_address(line: &str) -> io::Result<SocketAddr> {
    line.trim_end().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line.to_owned()))
}

/// `service frontend 4|6 start end address|kind`.
pub(crate) fn print(seen: &Observation) -> String {
    let frontend = Frontend::ALL.iter().position(|frontend| *frontend == seen.frontend).unwrap_or(0);
    let outcome = match &seen.outcome {
        Outcome::Reached(address) => address.to_string(),
        Outcome::Failed(kind) => kind.clone(),
    };
    let family = if seen.v6 { 6 } else { 4 };
    format!("{} {frontend} {family} {} {} {outcome}\n", seen.service, seen.start, seen.end)
}

/// Reads what [`print()`] wrote.
pub(crate) fn parse(client: At, line: &str) -> Result<Observation> {
    let parts: Vec<&str> = line.split(' ').collect();
    let &[service, frontend, family, start, end, outcome] = parts.as_slice() else { bail!("observation {line:?}") };
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("observation {line:?}"));
    let frontend = *Frontend::ALL.get(usize::try_from(number(frontend)?)?).context("frontend")?;
    let outcome = match outcome.parse() {
        Ok(address) => Outcome::Reached(address),
        Err(_) => Outcome::Failed(outcome.to_owned()),
    };
    let service = u32::try_from(number(service)?)?;
    Ok(Observation { client, service, frontend, v6: family == "6", start: number(start)?, end: number(end)?, outcome })
}
