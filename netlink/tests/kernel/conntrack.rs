use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    process::Command,
};

use weft_netlink::{Conntrack, ConntrackEntry, Deleted, Family, Listing};

use super::in_new_netns;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Makes the kernel track connections, and translate one address of each family.
const RULES: &str = "
table inet t {
    chain out {
        type nat hook output priority -100
        ct state new accept comment \"tracks\"
    }
    chain early {
        type nat hook output priority -110
        ip daddr 10.96.0.10 udp dport 53 dnat ip to 127.0.0.2:5353
        ip6 daddr fd96::10 udp dport 53 dnat ip6 to [::1]:5353
    }
}
table inet zones {
    chain raw {
        type filter hook output priority -300
        udp dport 7007 ct zone set 7
        udp dport 7008 ct original zone set 8
    }
}";

fn track() {
    super::ip(&["route", "add", "10.96.0.0/16", "dev", "lo"]);
    super::ip(&["route", "add", "fd96::/64", "dev", "lo"]);
    let nft = Command::new("nft").arg(RULES).output().unwrap();
    assert!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
}

/// One datagram; returns where it came from.
fn send(to: &str) -> SocketAddr {
    let to: SocketAddr = to.parse().unwrap();
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    socket.local_addr().unwrap()
}

fn list(family: Family, protocol: u8) -> Vec<ConntrackEntry> {
    let mut entries = Vec::new();
    let listing = Conntrack::open().unwrap().for_each(family, protocol, |entry| entries.push(*entry)).unwrap();
    assert_eq!(listing, Listing::Complete);
    entries
}

fn the_one_to(destination: &str) -> ConntrackEntry {
    let destination: SocketAddr = destination.parse().unwrap();
    let entries = list(Family::of(destination.ip()), UDP);
    let matching: Vec<_> = entries.iter().filter(|entry| entry.original.destination == destination).collect();
    assert_eq!(matching.len(), 1, "{entries:?}");
    *matching[0]
}

#[test]
fn entries_show_both_directions() {
    in_new_netns(|_| {
        track();
        let source = send("10.96.0.10:53");
        let entry = the_one_to("10.96.0.10:53");
        assert_eq!(entry.original.source.port(), source.port());
        assert_eq!(entry.reply.source, "127.0.0.2:5353".parse().unwrap());
        assert_eq!((entry.zone, entry.protocol), (0, UDP));
        assert!(entry.id.is_some());
        // IPS_DST_NAT.
        assert_ne!(entry.status & (1 << 5), 0, "{:#x}", entry.status);

        send("[fd96::10]:53");
        assert_eq!(the_one_to("[fd96::10]:53").reply.source, "[::1]:5353".parse().unwrap());
        assert_eq!(list(Family::V4, UDP).len(), 1);

        send("127.0.0.9:999");
        assert_eq!(the_one_to("127.0.0.9:999").reply.source, "127.0.0.9:999".parse().unwrap());
    });
}

#[test]
fn only_the_protocol_asked_for() {
    in_new_netns(|_| {
        track();
        send("127.0.0.9:999");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(list(Family::V4, UDP).len(), 1);
        let tcp = list(Family::V4, TCP);
        assert_eq!(tcp.len(), 1);
        assert_eq!(tcp[0].original.destination, listener.local_addr().unwrap());
    });
}

#[test]
fn exactly_the_named_entry_is_deleted() {
    in_new_netns(|_| {
        track();
        for to in
            ["10.96.0.10:53", "10.96.0.10:53", "127.0.0.9:999", "127.0.0.9:7007", "127.0.0.9:7008", "[fd96::10]:53"]
        {
            send(to);
        }
        let all = list(Family::V4, UDP);
        assert_eq!(all.len(), 5);
        let mut conntrack = Conntrack::open().unwrap();
        let mut left: BTreeSet<_> = all.iter().map(|entry| entry.original).collect();
        for entry in &all {
            assert_eq!(conntrack.delete(entry).unwrap(), Deleted::Yes, "{entry}");
            assert_eq!(conntrack.delete(entry).unwrap(), Deleted::WasGone, "{entry}");
            left.remove(&entry.original);
            let now: BTreeSet<_> = list(Family::V4, UDP).iter().map(|entry| entry.original).collect();
            assert_eq!(now, left);
        }
        assert_eq!(conntrack.delete(&the_one_to("[fd96::10]:53")).unwrap(), Deleted::Yes);
    });
}

#[test]
fn zones_tell_entries_apart() {
    in_new_netns(|_| {
        track();
        send("127.0.0.9:7007");
        send("127.0.0.9:7008");
        assert_eq!(the_one_to("127.0.0.9:7007").zone, 7);
        // Of the original direction only.
        assert_eq!(the_one_to("127.0.0.9:7008").zone, 8);
        let wrong_zone = ConntrackEntry { zone: 9, ..the_one_to("127.0.0.9:7007") };
        assert_eq!(Conntrack::open().unwrap().delete(&wrong_zone).unwrap(), Deleted::WasGone);
    });
}

#[test]
fn an_entry_that_took_the_place_of_another_stays() {
    in_new_netns(|_| {
        track();
        send("127.0.0.9:999");
        let entry = the_one_to("127.0.0.9:999");
        let other = ConntrackEntry { id: entry.id.map(|id| id ^ 1), ..entry };
        assert_eq!(Conntrack::open().unwrap().delete(&other).unwrap(), Deleted::WasGone);
        assert_eq!(the_one_to("127.0.0.9:999"), entry);
    });
}

#[test]
fn large_tables_are_streamed() {
    const ENTRIES: u16 = 30_000;
    in_new_netns(|_| {
        track();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in 10_000..10_000 + ENTRIES {
            // A closed port's refusal comes back on the next send.
            let _ = socket.send_to(b"?", ("127.0.0.3", port));
        }
        let seen: BTreeSet<_> = list(Family::V4, UDP).iter().map(|entry| entry.original.destination.port()).collect();
        assert!(seen.len() >= usize::from(ENTRIES) * 99 / 100, "{} of {ENTRIES}", seen.len());
    });
}
