use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use nix::libc::{ECONNABORTED, EDESTADDRREQ};
use weft_netlink::{ConnectedUdp, Listing, SockDiag};

use super::in_new_netns;

fn connected(from: &str, to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
    socket
}

fn list() -> Vec<ConnectedUdp> {
    let mut sockets = Vec::new();
    let listing = SockDiag::open().unwrap().for_each_connected_udp(|socket| sockets.push(*socket)).unwrap();
    assert_eq!(listing, Listing::Complete);
    sockets.sort_unstable_by_key(|socket| (socket.peer, socket.local));
    sockets
}

#[test]
fn only_connected_sockets_are_listed_with_their_peers() {
    in_new_netns(|_| {
        let v4 = connected("127.0.0.1:0", "127.0.0.2:53");
        let v6 = connected("[::1]:0", "[::1]:53");
        // An IPv6 socket that speaks IPv4.
        let mapped = connected("[::]:0", "[::ffff:127.0.0.3]:53");
        let _unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let seen: Vec<_> = list().iter().map(|socket| (socket.peer.to_string(), socket.local.port())).collect();
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let expected = [("127.0.0.2:53", port(&v4)), ("127.0.0.3:53", port(&mapped)), ("[::1]:53", port(&v6))];
        assert_eq!(seen, expected.map(|(peer, port)| (peer.to_owned(), port)));
    });
}

#[test]
fn a_destroyed_socket_has_no_peer_and_can_connect_again() {
    in_new_netns(|_| {
        for (from, to) in
            [("127.0.0.1:0", "127.0.0.2:53"), ("[::1]:0", "[::1]:53"), ("[::]:0", "[::ffff:127.0.0.3]:53")]
        {
            let victim = connected(from, to);
            let bystander = connected(from, &to.replace(":53", ":54"));
            let target = *list().iter().find(|socket| socket.peer.port() == 53).unwrap();
            let mut diag = SockDiag::open().unwrap();
            diag.destroy(&target).unwrap();
            diag.destroy(&target).unwrap();
            assert_eq!(victim.send(b"?").unwrap_err().raw_os_error(), Some(EDESTADDRREQ), "{to}");
            assert_eq!(victim.take_error().unwrap().unwrap().raw_os_error(), Some(ECONNABORTED));
            assert!(victim.peer_addr().is_err());
            assert!(bystander.peer_addr().is_ok());
            assert_eq!(list().len(), 1);
            victim.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
            victim.send(b"?").unwrap();
        }
    });
}

#[test]
fn ss_sees_the_same() {
    in_new_netns(|_| {
        let _sockets: Vec<_> = (0..20).map(|_| connected("127.0.0.1:0", "127.0.0.2:53")).collect();
        let ss = Command::new("ss").args(["-Hnu", "state", "established"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ss.stdout).lines().count(), list().len());
    });
}
