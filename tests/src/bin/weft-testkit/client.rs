//! One request, and how its failure is told.

use std::{
    fmt::Display,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::SockRef;
use weft_tests::{Failure, Protocol};

/// A good answer.
pub(crate) struct Answer {
    /// Name of the server.
    pub(crate) name: String,
    /// Address the server saw.
    pub(crate) source: SocketAddr,
    /// Address the client believes to talk to.
    pub(crate) peer: SocketAddr,
}

/// A failed step of a request.
pub(crate) struct RequestError {
    step: &'static str,
    source: io::Error,
}

impl RequestError {
    pub(crate) fn into_failure(self, start: Instant) -> Failure {
        Failure {
            at_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            error: format!("{:?}: {}: {}", self.source.kind(), self.step, self.source),
        }
    }
}

/// Names the step that an I/O error belongs to.
pub(crate) trait During<T> {
    fn during(self, step: &'static str) -> Result<T, RequestError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: &'static str) -> Result<T, RequestError> {
        self.map_err(|source| RequestError { step, source })
    }
}

/// Makes one request on a new socket.
pub(crate) fn request(
    protocol: Protocol,
    target: SocketAddr,
    bytes: usize,
    timeout: Duration,
) -> Result<Answer, RequestError> {
    match protocol {
        Protocol::Tcp => tcp(target, bytes, timeout),
        Protocol::Udp => udp(target, bytes, timeout),
        Protocol::UdpUnconnected => udp_unconnected(target, bytes, timeout),
    }
}

/// Connects and reads the greeting. The connection ends with RST, so that neither side keeps it in
/// TIME_WAIT: at thousands a second the client would run out of ports.
pub(crate) fn connect(target: SocketAddr, timeout: Duration) -> Result<(BufReader<TcpStream>, Answer), RequestError> {
    let stream = TcpStream::connect_timeout(&target, timeout).during("connect")?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).during("SO_LINGER")?;
    stream.set_nodelay(true).during("TCP_NODELAY")?;
    stream.set_read_timeout(Some(timeout)).during("SO_RCVTIMEO")?;
    stream.set_write_timeout(Some(timeout)).during("SO_SNDTIMEO")?;
    let peer = stream.peer_addr().during("getpeername")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).during("read")?;
    let (name, source) = parse(&line)?;
    Ok((reader, Answer { name, source, peer }))
}

fn tcp(target: SocketAddr, bytes: usize, timeout: Duration) -> Result<Answer, RequestError> {
    let (mut reader, answer) = connect(target, timeout)?;
    if bytes > 0 {
        let payload = payload(bytes);
        let mut writer = reader.get_ref().try_clone().during("clone")?;
        let mut echo = vec![0; bytes];
        // Both at once: the echo of a large payload fills the window while we still send.
        let (sent, received) = thread::scope(|scope| {
            let sender = scope.spawn(|| writer.write_all(&payload));
            let received = reader.read_exact(&mut echo);
            (sender.join(), received)
        });
        sent.unwrap_or_else(|_| Err(invalid("the sender panicked"))).during("write")?;
        received.during("read the echo")?;
        if echo != payload {
            return Err(invalid("the echo differs")).during("read the echo");
        }
    }
    Ok(answer)
}

fn udp(target: SocketAddr, bytes: usize, timeout: Duration) -> Result<Answer, RequestError> {
    let socket = udp_socket(target, timeout)?;
    socket.connect(target).during("connect")?;
    let peer = socket.peer_addr().during("getpeername")?;
    let payload = payload(bytes.max(1));
    socket.send(&payload).during("send")?;
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).during("receive")?;
    datagram_answer(&buffer[..length], &payload, peer)
}

fn udp_unconnected(target: SocketAddr, bytes: usize, timeout: Duration) -> Result<Answer, RequestError> {
    let socket = udp_socket(target, timeout)?;
    let payload = payload(bytes.max(1));
    socket.send_to(&payload, target).during("send")?;
    let mut buffer = vec![0; 65_536];
    let (length, peer) = socket.recv_from(&mut buffer).during("receive")?;
    datagram_answer(&buffer[..length], &payload, peer)
}

fn udp_socket(target: SocketAddr, timeout: Duration) -> Result<UdpSocket, RequestError> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = bind_fresh_port(any).during("bind")?;
    socket.set_read_timeout(Some(timeout)).during("SO_RCVTIMEO")?;
    Ok(socket)
}

/// Binds a port that this process has not used yet, as datagrams of different clients would come from different ports.
/// The kernel's choice is random, and repeats itself among 600 with near certainty; for the half minute that conntrack
/// remembers a port, it is the same flow and goes to the same endpoint.
fn bind_fresh_port(any: IpAddr) -> io::Result<UdpSocket> {
    static USED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes that follow each other start in different places. Above 32,767, as Linux has it: a node port is no
        // port that a client comes from.
        let number = std::process::id().wrapping_mul(640).wrapping_add(USED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(33_000 + number % 27_000).unwrap_or(0);
        match UdpSocket::bind((any, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

fn datagram_answer(answer: &[u8], payload: &[u8], peer: SocketAddr) -> Result<Answer, RequestError> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().unwrap_or_default();
    let (name, source) = parse(line)?;
    let echo = &answer[(line.len() + 1).min(answer.len())..];
    if !payload.starts_with(echo) {
        return Err(invalid("the echo differs")).during("receive");
    }
    Ok(Answer { name, source, peer })
}

fn parse(line: &str) -> Result<(String, SocketAddr), RequestError> {
    let parsed =
        line.trim_end().split_once(' ').and_then(|(name, source)| Some((name.to_owned(), source.parse().ok()?)));
    parsed.ok_or_else(|| invalid(format!("answer {line:?}"))).during("read")
}

/// A pattern in ASCII whose period is no power of two, so that a displaced segment shows.
fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|position| b'a' + u8::try_from(position % 23).unwrap_or(0)).collect()
}

fn invalid(text: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_string())
}
