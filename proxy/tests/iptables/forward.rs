//! What is forwarded: KUBE-FORWARD, which only this mode has (9.12, 9.13).

use std::os::fd::AsRawFd;

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};
use weft_proxy::model::{IpFamily, Protocol};

use crate::{
    BOTH,
    node::{node_port, web},
    node_with,
    support::Net,
};

#[test]
fn rule_9_13_node_ports_work_where_forwarding_is_dropped() {
    for variant in BOTH {
        let mut node = node_with(variant);
        for (family, program) in [(IpFamily::V4, "iptables"), (IpFamily::V6, "ip6tables")] {
            let suffix = crate::suffix(variant);
            node.run(&format!("{program}-{suffix}"), "-P FORWARD DROP");
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                node.put(&web(protocol, family, &[2, 3]));
                for _ in 0..2 {
                    node.ask(protocol, node_port(family)).unwrap_or_else(|e| panic!("{variant:?} {protocol}: {e}"));
                }
            }
        }
    }
}

#[test]
fn rule_9_12_invalid_packets_are_not_forwarded() {
    for variant in BOTH {
        let mut node = node_with(variant);
        node.put(&web(Protocol::Tcp, IpFamily::V4, &[2]));
        assert_eq!(forwarded(&node.net), [SYN], "{variant:?}: the SYN alone");
        node.cleanup();
        // Conntrack goes on judging as long as somebody asks it.
        node.iptables(variant, "-t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE");
        assert_eq!(forwarded(&node.net), [NONE, SYN], "{variant:?}: without our rules both arrive");
    }
}

/// Sends a pod one TCP packet without any flag, which conntrack calls INVALID, then a SYN; returns the flags that arrive.
fn forwarded(net: &Net) -> Vec<u8> {
    let raw = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).unwrap();
    let (inside, outside) = (net.pods.run(raw).unwrap(), net.client.run(raw).unwrap());
    setsockopt(&inside, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
    for flags in [NONE, SYN] {
        let pod = SockaddrIn::new(10, 244, 1, 2, 0);
        sendto(outside.as_raw_fd(), &segment(flags), &pod, MsgFlags::empty()).unwrap();
    }
    let mut arrived = Vec::new();
    while arrived.last() != Some(&SYN) {
        let mut packet = [0; 128];
        recv(inside.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("the SYN arrives");
        let (source, flags) = (&packet[20..22], packet[33]);
        if source == SOURCE_PORT.to_be_bytes() {
            arrived.push(flags);
        }
    }
    arrived
}

const NONE: u8 = 0;
const SYN: u8 = 2;
const SOURCE_PORT: u16 = 40123;

/// A TCP header from 192.0.2.2 to 10.244.1.2, with the checksum of RFC 9293, 3.1: conntrack looks at it first.
fn segment(flags: u8) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    header[3] = 9;
    header[12] = 5 << 4;
    header[13] = flags;
    let pseudo_header = [192, 0, 2, 2, 10, 244, 1, 2, 0, 6, 0, 20];
    let words =
        pseudo_header.chunks(2).chain(header.chunks(2)).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a short header");
    header[16..18].copy_from_slice(&(!folded).to_be_bytes());
    header
}
