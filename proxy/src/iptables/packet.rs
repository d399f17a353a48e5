//! The matches our rules are made of, tried on a packet that is only imagined.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::live::Probe;

/// The first packet of a connection.
pub(super) struct Packet<'a> {
    probe: &'a Probe,
}

/// A rule of a chain, as `iptables-save` prints it.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    matches: Vec<Match<'a>>,
    /// Where it leads; `None`: it only matches.
    pub(super) target: Option<&'a str>,
    /// Whether it matches clients of a list (`-m recent`).
    pub(super) is_recent: bool,
}

/// A match that may be negated.
#[derive(Debug)]
struct Match<'a> {
    negated: bool,
    what: What<'a>,
}

#[derive(Debug)]
enum What<'a> {
    Source(IpNetwork),
    Destination(IpNetwork),
    Protocol(&'a str),
    Port(u16),
    /// An interface name, or with `+` at its end the beginning of one.
    Interface(&'a str),
    SourceOfNode,
    DestinationOfNode,
    /// True of every packet that opens a connection.
    Anything,
    /// True of none: it has no mark yet.
    Mark,
}

impl<'a> Packet<'a> {
    pub(super) fn of(probe: &'a Probe) -> Self {
        Self { probe }
    }
}

impl<'a> Rule<'a> {
    /// `None` if it has a match that none of our rules has.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut rule = Self { matches: Vec::new(), target: None, is_recent: false };
        let (mut rest, mut negated) = (text.trim_start(), false);
        while let Some((word, after)) = next_word(rest) {
            rest = after;
            let mut value = || {
                let (value, after) = next_word(rest)?;
                rest = after;
                Some(value)
            };
            let what = match word {
                "!" => {
                    negated = true;
                    continue;
                }
                "-j" => {
                    rule.target = Some(value()?);
                    // The rest are options of the target.
                    break;
                }
                "-s" => What::Source(value()?.parse().ok()?),
                "-d" => What::Destination(value()?.parse().ok()?),
                "-p" => What::Protocol(value()?),
                "--dport" => What::Port(value()?.parse().ok()?),
                "-i" => What::Interface(value()?),
                "--src-type" if value()? == "LOCAL" => What::SourceOfNode,
                "--dst-type" if value()? == "LOCAL" => What::DestinationOfNode,
                "--ctstate" => {
                    let states = value()?;
                    if states.split(',').any(|state| state == "NEW") { What::Anything } else { What::Mark }
                }
                "--mark" => {
                    value()?;
                    What::Mark
                }
                "-m" => {
                    rule.is_recent |= value()? == "recent";
                    continue;
                }
                "--comment" | "--mode" | "--every" | "--packet" | "--name" | "--mask" | "--seconds" => {
                    value()?;
                    continue;
                }
                "--rcheck" | "--reap" | "--rsource" | "--set" => continue,
                _ => return None,
            };
            rule.matches.push(Match { negated: std::mem::take(&mut negated), what });
        }
        Some(rule)
    }

    pub(super) fn matches(&self, packet: &Packet<'_>) -> bool {
        self.matches.iter().all(|one| one.what.holds(packet.probe) != one.negated)
    }
}

impl What<'_> {
    fn holds(&self, probe: &Probe) -> bool {
        let destination: IpAddr = probe.destination.ip();
        match self {
            Self::Source(network) => network.contains(probe.client.address),
            Self::Destination(network) => network.contains(destination),
            Self::Protocol(name) => probe.protocol.lowercase() == *name,
            Self::Port(port) => probe.destination.port() == *port,
            Self::Interface(name) => probe.client.interface.as_deref().is_some_and(|of| match name.strip_suffix('+') {
                Some(prefix) => of.starts_with(prefix),
                None => of == *name,
            }),
            Self::SourceOfNode => probe.client.of_node,
            Self::DestinationOfNode => probe.to_node,
            Self::Anything => true,
            Self::Mark => false,
        }
    }
}

/// The next word, without its quotes, and what follows it.
fn next_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"');
    }
    match text.split_once(' ') {
        _ if text.is_empty() => None,
        Some((word, rest)) => Some((word, rest)),
        None => Some((text, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{live::Client, model::Protocol};

    fn probe() -> Probe {
        Probe {
            client: Client {
                address: "10.244.1.7".parse().unwrap(),
                interface: Some("veth1".to_owned()),
                at_socket: true,
                of_node: false,
                netns_cookie: None,
            },
            destination: "10.96.0.10:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            to_node: false,
        }
    }

    #[test]
    fn our_rules_match_what_the_kernel_would_match() {
        let table = [
            (
                "-d 10.96.0.10/32 -p tcp -m comment --comment \"default/web -j DROP\" -m tcp --dport 80 -j KUBE-SVC-A",
                true,
            ),
            ("-d 10.96.0.10/32 -p udp -m udp --dport 80 -j KUBE-SVC-A", false),
            ("! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ", false),
            ("! -s 10.245.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ", true),
            ("-i veth+ -j KUBE-SVC-A", true),
            ("! -i veth+ -j KUBE-SVC-A", false),
            ("-m addrtype --src-type LOCAL -j KUBE-SVC-A", false),
            ("-m conntrack --ctstate NEW -j KUBE-SERVICES", true),
            ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", false),
            ("-m statistic --mode nth --every 3 --packet 0 -j KUBE-SEP-A", true),
            ("-m mark --mark 0x4000/0x4000 -j ACCEPT", false),
        ];
        for (text, matches) in table {
            let rule = Rule::parse(text).expect(text);
            assert_eq!(rule.matches(&Packet::of(&probe())), matches, "{text}");
        }
        let rule = Rule::parse(
            "-m recent --rcheck --seconds 9 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource -j KUBE-SEP-A",
        )
        .unwrap();
        assert!(rule.is_recent && rule.target == Some("KUBE-SEP-A"));
    }

    #[test]
    fn what_we_never_write_is_not_guessed_at() {
        assert!(Rule::parse("-m owner --uid-owner 0 -j DROP").is_none());
        assert!(Rule::parse("-s nonsense -j DROP").is_none());
    }
}
