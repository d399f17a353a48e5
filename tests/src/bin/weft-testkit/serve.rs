//! `serve`: answer every connection and datagram with a name and the address it came from.
//!
//! TCP: `<name> <client address>\n` at once, then an echo of whatever comes. UDP: the same line, then
//! the payload, cut to the length of the question, so that a test chooses the size in both directions.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Builder,
};

/// Connections that wait for accept; more than a stalled second at test rates needs.
const BACKLOG: i32 = 4096;

/// Answer every connection and datagram with a name.
#[derive(Args)]
pub(crate) struct Serve {
    /// What to answer.
    #[arg(long)]
    name: String,
    /// TCP ports.
    #[arg(long)]
    tcp: Vec<u16>,
    /// UDP ports.
    #[arg(long)]
    udp: Vec<u16>,
}

impl Serve {
    pub(crate) fn run(self) -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build().context("runtime")?;
        runtime.block_on(async {
            let name: &'static str = self.name.leak();
            for port in self.tcp {
                let socket = bound(Type::STREAM, port)?;
                socket.listen(BACKLOG).context("listen")?;
                let listener = TcpListener::from_std(socket.into()).context("listener")?;
                tokio::spawn(accept(listener, name));
            }
            for port in self.udp {
                let socket = UdpSocket::from_std(bound(Type::DGRAM, port)?.into());
                tokio::spawn(answer_datagrams(socket.context("UDP socket")?, name));
            }
            crate::say_ready();
            std::future::pending::<()>().await;
            Ok(())
        })
    }
}

/// A socket for both families.
fn bound(kind: Type, port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, None).context("socket")?;
    socket.set_only_v6(false).context("IPV6_V6ONLY")?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true).context("SO_REUSEADDR")?;
    }
    socket.set_nonblocking(true).context("nonblocking")?;
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    socket.bind(&address.into()).with_context(|| format!("bind port {port}"))?;
    Ok(socket)
}

async fn accept(listener: TcpListener, name: &'static str) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(async move {
                    // A client that goes away is no event here.
                    let _ = answer(stream, peer, name).await;
                });
            }
            // Out of descriptors for a moment, or the client gave up before accept.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, peer: SocketAddr, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting(name, peer).as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn answer_datagrams(socket: UdpSocket, name: &str) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error of an earlier answer is reported here; it concerns a client that is gone.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let mut answer = greeting(name, peer).into_bytes();
        let room = length.saturating_sub(answer.len());
        answer.extend_from_slice(&buffer[..room.min(length)]);
        let _ = socket.send_to(&answer, peer).await;
    }
}

fn greeting(name: &str, peer: SocketAddr) -> String {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    format!("{name} {peer}\n")
}
