//! Connections from one namespace to another.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use weft_netlink::Netns;

/// Connects from one namespace to a server in another and back; the address the server saw.
pub(crate) fn exchange(from: &Netns, to: &Netns, address: IpAddr) -> Result<IpAddr, String> {
    exchange_through(from, to, SocketAddr::new(address, 0), None)
}

/// The same, with the server at `listen` and the client connecting to `target`, if that is somewhere else.
pub(crate) fn exchange_through(
    from: &Netns,
    to: &Netns,
    listen: SocketAddr,
    target: Option<SocketAddr>,
) -> Result<IpAddr, String> {
    // The address may be about to come back.
    let listener =
        to.run(|| TcpListener::bind(listen)).unwrap().map_err(|error| format!("listen at {listen}: {error}"))?;
    let target = target.unwrap_or_else(|| listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        // More than one full-size segment each way.
        let mut data = vec![0; 10_000];
        stream.read_exact(&mut data).unwrap();
        stream.write_all(&data).unwrap();
        peer.ip()
    });
    let client = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_millis(800))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&[7; 10_000])?;
        stream.read_exact(&mut vec![0; 10_000])
    };
    match from.run(client).unwrap() {
        Ok(()) => Ok(server.join().unwrap()),
        Err(error) => Err(format!("{target}: {error}")),
    }
}
