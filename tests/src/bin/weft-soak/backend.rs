//! `backend`: every endpoint of the soak in one process. Answers with the address it was reached at.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::Builder,
};

use crate::addresses::{BACKEND_PORTS, UDP_HOSTS, backend};

/// Serves until it is killed. The namespace has to take all of the backends' addresses for its own.
pub(crate) fn run() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        for port in BACKEND_PORTS {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).context("socket")?;
            socket.set_only_v6(false).context("IPV6_V6ONLY")?;
            socket.set_reuse_address(true).context("SO_REUSEADDR")?;
            bound(&socket, SocketAddr::from(([0_u16; 8], port)))?;
            socket.listen(4096).context("listen")?;
            tokio::spawn(accept(TcpListener::from_std(socket.into()).context("listener")?));
        }
        for (host, v6) in (2..=UDP_HOSTS).flat_map(|host| [(host, false), (host, true)]) {
            let address = SocketAddr::new(backend(host, v6), BACKEND_PORTS[0]);
            let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).context("socket")?;
            bound(&socket, address)?;
            tokio::spawn(answer_datagrams(UdpSocket::from_std(socket.into()).context("UDP socket")?, address));
        }
        crate::say_ready();
        std::future::pending().await
    })
}

fn bound(socket: &Socket, address: SocketAddr) -> Result<()> {
    socket.set_nonblocking(true).context("nonblocking")?;
    socket.bind(&address.into()).with_context(|| format!("bind {address}"))
}

async fn accept(listener: TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A client that goes away is no event here.
            tokio::spawn(answer(stream));
        }
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let at = stream.local_addr()?;
    let at = SocketAddr::new(at.ip().to_canonical(), at.port());
    stream.write_all(format!("{at}\n").as_bytes()).await?;
    // Until the client ends the connection, so that it does, and no port waits here.
    stream.read(&mut [0]).await.map(drop)
}

async fn answer_datagrams(socket: UdpSocket, at: SocketAddr) {
    let answer = at.to_string();
    let mut buffer = [0; 64];
    loop {
        // An ICMP error of an earlier answer is reported here; it concerns a client that is gone.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(answer.as_bytes(), peer).await;
        }
    }
}
