//! What clients ask for and what they report. The same types are printed by `weft-testkit` and read by
//! the tests.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Asker, Background, Place};

/// Transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// One connection a request.
    Tcp,
    /// One connected socket a request.
    Udp,
    /// One unconnected socket a request: sendto and recvfrom.
    UdpUnconnected,
}

/// Requests that wait for each answer; see [`Place::request`].
#[derive(Clone, Debug)]
pub struct Request {
    protocol: Protocol,
    target: SocketAddr,
    count: u64,
    parallel: u64,
    bytes: usize,
    timeout: Duration,
}

impl Request {
    /// One TCP connection.
    pub fn tcp(target: SocketAddr) -> Self {
        Self::new(Protocol::Tcp, target)
    }

    /// One datagram on a connected socket.
    pub fn udp(target: SocketAddr) -> Self {
        Self::new(Protocol::Udp, target)
    }

    /// One request of any protocol.
    pub fn new(protocol: Protocol, target: SocketAddr) -> Self {
        Self { protocol, target, count: 1, parallel: 1, bytes: 0, timeout: Duration::from_secs(3) }
    }

    /// How many requests, each on a socket of its own.
    pub fn count(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// How many clients share them; each works off its share one after the other.
    pub fn parallel(mut self, parallel: u64) -> Self {
        self.parallel = parallel;
        self
    }

    /// Payload sent and expected back unchanged: the length of the datagram for UDP, of the stream for
    /// TCP.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// How long a request may take; 3 s unless told.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Arguments that make `weft-testkit` do this where the kit itself cannot start it; it prints [`Answers`] as JSON.
    pub fn arguments(&self) -> Vec<String> {
        let protocol = self.protocol.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        vec![
            "request".into(),
            format!("--protocol={protocol}"),
            format!("--count={}", self.count),
            format!("--parallel={}", self.parallel),
            format!("--bytes={}", self.bytes),
            format!("--timeout-ms={}", self.timeout.as_millis()),
            self.target.to_string(),
        ]
    }
}

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// Answers of each server.
    pub by_name: BTreeMap<String, u64>,
    /// Servers in the order of their answers.
    pub order: Vec<String>,
    /// Client addresses (without port) that the servers saw, with their number.
    pub sources: BTreeMap<String, u64>,
    /// Addresses that getpeername (or recvfrom) told the client, with their number.
    pub peers: BTreeMap<String, u64>,
    /// Requests without a good answer.
    pub failures: Vec<Failure>,
}

impl Answers {
    /// The same, if no request failed.
    ///
    /// # Errors
    /// The failures.
    pub fn all_good(self) -> Result<Self> {
        if self.failures.is_empty() {
            return Ok(self);
        }
        let total = self.order.len() + self.failures.len();
        bail!("{} of {total} requests failed: {}", self.failures.len(), some(&self.failures))
    }

    /// `web-1 200, web-2 200, web-3 200`.
    pub fn counts(&self) -> String {
        let parts: Vec<_> = self.by_name.iter().map(|(name, n)| format!("{name} {n}")).collect();
        parts.join(", ")
    }
}

/// A request that got no good answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Milliseconds since the client started.
    pub at_ms: u64,
    /// `std::io::ErrorKind` by name (`ConnectionRefused`, `TimedOut`, ...), then what was being done.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} ms)", self.error, self.at_ms)
    }
}

/// New TCP connections at a steady rate; see [`Place::load`].
#[derive(Clone, Debug)]
pub struct Load {
    target: SocketAddr,
    rate: u32,
    parallel: u32,
    time: Option<Duration>,
}

impl Load {
    /// `rate` new connections a second (0: as many as go) until finished.
    pub fn new(target: SocketAddr, rate: u32) -> Self {
        Self { target, rate, parallel: 4, time: None }
    }

    /// How many threads make them; 4 unless told.
    pub fn parallel(mut self, parallel: u32) -> Self {
        self.parallel = parallel;
        self
    }

    /// Ends by itself after this time.
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    fn arguments(&self) -> Vec<String> {
        let mut words = vec!["load".into(), format!("--rate={}", self.rate), format!("--parallel={}", self.parallel)];
        if let Some(time) = self.time {
            words.push(format!("--milliseconds={}", time.as_millis()));
        }
        words.push(self.target.to_string());
        words
    }
}

/// What a load did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Connections that got their answer.
    pub good: u64,
    /// Connections that did not.
    pub failed: u64,
    /// The first hundred of those.
    pub failures: Vec<Failure>,
    /// Answers of each server.
    pub by_name: BTreeMap<String, u64>,
    /// When each server was seen, for the time a change takes.
    pub seen: BTreeMap<String, Seen>,
    /// Seconds it ran.
    pub seconds: f64,
    /// Good connections a second.
    pub rate: f64,
    /// Latency of connect, answer and close at the 10th percentile, in microseconds.
    pub p10_us: u64,
    /// The same, median.
    pub p50_us: u64,
    /// The same at the 99th percentile.
    pub p99_us: u64,
    /// The slowest connection, in microseconds.
    pub max_us: u64,
    /// `p50_us`, in nanoseconds.
    pub p50_ns: u64,
    /// `p99_us`, in nanoseconds.
    pub p99_ns: u64,
}

/// First and last connection that a server answered, in microseconds since 1970 (the clocks of a machine agree).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Begin of the first one.
    pub first_us: u64,
    /// Begin of the last one.
    pub last_us: u64,
}

impl LoadReport {
    /// The same, if no connection failed.
    ///
    /// # Errors
    /// The failures.
    pub fn all_good(self) -> Result<Self> {
        if self.failed == 0 {
            return Ok(self);
        }
        let total = self.good + self.failed;
        bail!("{} of {total} connections failed: {}", self.failed, some(&self.failures))
    }
}

/// One long connection that is asked for an echo again and again; see [`Place::hold`].
#[derive(Clone, Debug)]
pub struct Hold {
    target: SocketAddr,
    pause: Duration,
}

impl Hold {
    /// A round trip every 5 ms.
    pub fn new(target: SocketAddr) -> Self {
        Self { target, pause: Duration::from_millis(5) }
    }

    /// Pause between round trips.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    fn arguments(&self) -> Vec<String> {
        vec!["hold".into(), format!("--pause-us={}", self.pause.as_micros()), self.target.to_string()]
    }
}

/// What became of a long connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldReport {
    /// Server at the other end.
    pub name: String,
    /// Echoes that came back.
    pub round_trips: u64,
    /// The slowest of them, in microseconds.
    pub slowest_us: u64,
    /// Median round trip, in microseconds.
    pub p50_us: u64,
    /// The same, in nanoseconds.
    pub p50_ns: u64,
    /// Why it broke, if it did.
    pub broken: Option<Failure>,
}

/// A client that connects again and again and tells when another server answers; dropping it kills it.
#[derive(Debug)]
pub struct Follower {
    process: Background,
}

/// Another server than before answers now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    /// Its name.
    pub name: String,
    /// Begin of the first connection it answered, in microseconds since 1970.
    pub at_us: u64,
}

impl Follower {
    /// Waits for the next other server, half a minute at most.
    ///
    /// # Errors
    /// It stays the same.
    pub fn wait(&mut self) -> Result<Followed> {
        self.process.next()
    }
}

/// A client at work; dropping it kills it.
#[derive(Debug)]
pub struct Running<T> {
    process: Background,
    report: PhantomData<T>,
}

impl<T: DeserializeOwned> Running<T> {
    /// Asks it to finish, and returns its report.
    ///
    /// # Errors
    /// It was killed or could not work at all.
    pub fn finish(self) -> Result<T> {
        self.process.finish()
    }
}

/// A server at work; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Background,
}

impl Server {
    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Lets it run on, until its run is removed.
    pub fn keep(self) {
        self.process.keep();
    }
}

impl Place {
    /// Makes requests and waits for the answers. A request that fails is part of the answer.
    ///
    /// # Errors
    /// The client itself cannot run.
    pub fn request(&self, request: &Request) -> Result<Answers> {
        let text = self.output(self.testkit(&request.arguments()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts a client that can be asked for many requests at once.
    ///
    /// # Errors
    /// The client cannot run.
    pub fn asker(&self) -> Result<Asker> {
        Asker::start(self)
    }

    /// Starts a load; returns when its first connection was made.
    ///
    /// # Errors
    /// The client cannot run or cannot connect at all.
    pub fn load(&self, load: &Load) -> Result<Running<LoadReport>> {
        self.start(&load.arguments())
    }

    /// Starts a long connection; returns when it is established.
    ///
    /// # Errors
    /// The client cannot run or cannot connect.
    pub fn hold(&self, hold: &Hold) -> Result<Running<HoldReport>> {
        self.start(&hold.arguments())
    }

    /// Starts a client that makes a connection every `pause`; returns when the first server has answered.
    ///
    /// # Errors
    /// The client cannot run or cannot connect at all.
    pub fn follow(&self, target: SocketAddr, pause: Duration) -> Result<Follower> {
        let arguments = ["follow".into(), format!("--pause-us={}", pause.as_micros()), target.to_string()];
        Ok(Follower { process: self.background(&arguments)? })
    }

    /// Starts a server for TCP and UDP, IPv4 and IPv6, that answers with `name`; returns when it
    /// listens.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve_as(&self, name: &str, port: u16) -> Result<Server> {
        self.serve_ports(name, &[port])
    }

    /// The same for several ports.
    ///
    /// # Errors
    /// One of them is taken.
    pub fn serve_ports(&self, name: &str, ports: &[u16]) -> Result<Server> {
        let mut arguments = vec!["serve".to_owned(), format!("--name={name}")];
        arguments.extend(ports.iter().flat_map(|port| [format!("--tcp={port}"), format!("--udp={port}")]));
        Ok(Server { process: self.background(&arguments)? })
    }

    fn start<T>(&self, arguments: &[String]) -> Result<Running<T>> {
        Ok(Running { process: self.background(arguments)?, report: PhantomData })
    }
}

fn some(failures: &[Failure]) -> String {
    let first: Vec<_> = failures.iter().take(3).map(ToString::to_string).collect();
    first.join("; ")
}
