//! SCTP, without sockets.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::{
    EXTERNAL,
    node::{node_port, pod, vip},
    node_with,
    support::{Net, SERVER_PORT},
    web,
};
use weft_proxy::{
    model::{IpFamily, Protocol},
    plan::Frontend,
};

/// SCTP has no sockets in every kernel, so an INIT is made by hand and looked at where it arrives.
#[test]
fn sctp_is_balanced_at_every_frontend_in_every_scope() {
    let mut node = node_with(EXTERNAL);
    for family in [IpFamily::V4, IpFamily::V6] {
        let mut plan = web(Protocol::Sctp, family, &[2, 3]);
        plan.frontends.insert(0, Frontend::ClusterIp(vip(family)));
        node.put(&plan);
        for to in [vip(family), node_port(family)] {
            let seen: std::collections::BTreeSet<String> = (0..2)
                .map(|n| {
                    let (from, to) = (40000 + n + to.port() % 7, to);
                    sctp_init(&node.net, from, to)
                })
                .collect();
            let expected = [2, 3].map(|last| format!("{} {SERVER_PORT}", pod(family, last)));
            assert_eq!(seen, expected.into(), "{to}");
        }
    }
}

/// Sends an INIT from the client; returns address and port at which it arrives among the pods.
fn sctp_init(net: &Net, from: u16, to: SocketAddr) -> String {
    let receive = "
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); s.settimeout(10)
print('ready', flush=True)
while True:
    p = s.recv(2048)
    if p[0] >> 4 == 4 and p[9] == 132: print(socket.inet_ntoa(p[16:20]), struct.unpack('!H', p[22:24])[0]); break
    if p[0] >> 4 == 6 and p[6] == 132:
        print(socket.inet_ntop(socket.AF_INET6, p[24:40]), struct.unpack('!H', p[42:44])[0]); break
";
    let send = "
import socket, struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
address, source, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
init = struct.pack('!BBHIIHHI', 1, 0, 20, 7, 65536, 1, 1, 7)
header = struct.pack('!HHI', source, port, 0)
packet = header + struct.pack('<I', crc32c(header + bytes(4) + init)) + init
family = socket.AF_INET6 if ':' in address else socket.AF_INET
socket.socket(family, socket.SOCK_RAW, 132).sendto(packet, (address, 0))
";
    let mut receiver =
        net.pods.run(|| Command::new("python3").args(["-c", receive]).stdout(Stdio::piped()).spawn().unwrap()).unwrap();
    let mut lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let arguments = ["-c", send, &to.ip().to_string(), &from.to_string(), &to.port().to_string()];
    let sent = net.client.run(|| Command::new("python3").args(arguments).status().unwrap()).unwrap();
    assert!(sent.success());
    let seen = lines.next().expect("it arrives").unwrap();
    receiver.wait().unwrap();
    seen
}
