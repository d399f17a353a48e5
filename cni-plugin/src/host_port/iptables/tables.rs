//! What stands in iptables, as text: our chains, the rules of a claim, and how they are read back.

use std::net::{IpAddr, SocketAddr};

use crate::host_port::{
    claim::{Claim, Comment, Holder},
    mapping::{Masquerade, Protocol},
    table::MASQUERADE_PORTS,
};

/// Our chains in table nat: translation, and masquerading.
const PORTS: &str = "WEFT-HOSTPORTS";
const SOURCES: &str = "WEFT-HOSTPORTS-SRC";

/// The rules of table nat that lead to our chains. They come last, and those of Services first.
const ENTRANCES: [&str; 3] = [
    "PREROUTING -m addrtype --dst-type LOCAL -j WEFT-HOSTPORTS",
    "OUTPUT -m addrtype --dst-type LOCAL -j WEFT-HOSTPORTS",
    "POSTROUTING -m conntrack --ctstate DNAT -j WEFT-HOSTPORTS-SRC",
];

/// A rule of table filter: route_localnet would let a pod reach what listens on 127.0.0.1 only (CVE-2020-8558). Answers to
/// translated connections have such a destination as well. It comes first, before others accept what comes from pods.
const GUARD: &str = r#"INPUT -d 127.0.0.0/8 ! -i lo -m conntrack ! --ctstate DNAT -m comment --comment "weft-cni: loopback addresses are not for pods" -j DROP"#;

/// Chains of Kubernetes: the entrance of the rules of Services, and what kubelet makes to say which iptables is in use.
const KUBERNETES: [&str; 3] = ["KUBE-SERVICES", "KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// Tables nat and filter of one family, line by line as `iptables-save` writes them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    nat: Vec<String>,
    filter: Vec<String>,
    /// Kubernetes has chains here, in whichever table.
    pub(super) has_kubernetes: bool,
}

/// What is to be removed.
pub(super) struct Removal {
    pub(super) claims: Vec<Claim>,
    /// How many rules of other claims stay.
    pub(super) kept: usize,
    /// For `iptables-restore`.
    pub(super) input: String,
}

impl Tables {
    pub(super) fn parse(text: &str) -> Self {
        let (mut tables, mut table) = (Self::default(), "");
        for line in text.lines() {
            tables.has_kubernetes |= chain_of(line).is_some_and(|chain| KUBERNETES.contains(&chain));
            match (line.strip_prefix('*'), table) {
                (Some(name), _) => table = name,
                (None, "nat") => tables.nat.push(line.to_owned()),
                (None, "filter") => tables.filter.push(line.to_owned()),
                _ => {}
            }
        }
        tables
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> {
        self.nat.iter().filter_map(|line| claim(line))
    }

    /// A rule that host ports of this family need, whichever they are, and that is not there.
    pub(super) fn lacks(&self, v4: bool) -> Option<&'static str> {
        let guard = Some(GUARD).filter(|rule| v4 && !has(&self.filter, rule));
        ENTRANCES.into_iter().find(|rule| !has(&self.nat, rule)).or(guard)
    }

    /// Input for `iptables-restore` that adds claims, all of one family, the last one in front, and what they need.
    pub(super) fn additions(&self, v4: bool, claims: &[&Claim]) -> String {
        let guard = Some(GUARD).filter(|rule| v4 && !has(&self.filter, rule));
        // Declaring a chain that is there would empty it.
        let chains = [PORTS, SOURCES].into_iter().filter(|chain| !self.has_chain(chain));
        let mut nat: Vec<String> = chains.map(|chain| format!(":{chain} - [0:0]")).collect();
        nat.extend(ENTRANCES.iter().filter(|rule| !has(&self.nat, rule)).map(|rule| format!("-A {rule}")));
        nat.extend(claims.iter().flat_map(|claim| rules(claim)).map(|rule| format!("-I {rule}")));
        let filter: Vec<_> = guard.map(|rule| format!("-I {rule}")).into_iter().collect();
        table("filter", &filter) + &table("nat", &nat)
    }

    /// Removes the claims of some holders; with the last one all else that is ours.
    pub(super) fn removal(&self, whose: &dyn Fn(&Holder) -> bool) -> Removal {
        let goes = |line: &&String| holder(line).is_some_and(|holder| whose(&holder));
        let going: Vec<_> = self.nat.iter().filter(goes).collect();
        let kept = self.nat.iter().filter(|line| holder(line).is_some()).count() - going.len();
        let mut nat: Vec<_> = going.iter().map(|line| line.replacen("-A ", "-D ", 1)).collect();
        let mut filter = Vec::new();
        if kept == 0 {
            nat.extend(ENTRANCES.iter().filter(|rule| has(&self.nat, rule)).map(|rule| format!("-D {rule}")));
            let chains = [PORTS, SOURCES].into_iter().filter(|chain| self.has_chain(chain));
            nat.extend(chains.flat_map(|chain| [format!("-F {chain}"), format!("-X {chain}")]));
            filter.extend(Some(GUARD).filter(|rule| has(&self.filter, rule)).map(|rule| format!("-D {rule}")));
        }
        let input = table("nat", &nat) + &table("filter", &filter);
        Removal { claims: going.iter().filter_map(|line| claim(line)).collect(), kept, input }
    }

    fn has_chain(&self, chain: &str) -> bool {
        self.nat.iter().any(|line| chain_of(line) == Some(chain))
    }
}

/// The chain that a line declares.
fn chain_of(line: &str) -> Option<&str> {
    line.strip_prefix(':')?.split(' ').next()
}

fn has(lines: &[String], rule: &str) -> bool {
    lines.iter().any(|line| line.strip_prefix("-A ") == Some(rule))
}

/// Commands for one table, carried out together.
fn table(name: &str, commands: &[String]) -> String {
    if commands.is_empty() { String::new() } else { format!("*{name}\n{}\nCOMMIT\n", commands.join("\n")) }
}

/// The rules of a claim, without `-A` or `-I`, as iptables-save writes them.
fn rules(claim: &Claim) -> Vec<String> {
    let (protocol, pod) = (claim.protocol.name(), claim.pod);
    let length = if pod.is_ipv4() { 32 } else { 128 };
    let comment = format!("-m comment --comment \"{}\"", claim.comment());
    let to = if claim.host.is_unspecified() { String::new() } else { format!(" -d {}/{length}", claim.host) };
    let mut rules = vec![format!(
        "{PORTS}{to} -p {protocol} -m {protocol} --dport {} {comment} -j DNAT --to-destination {pod}",
        claim.host_port
    )];
    let (first, last) = MASQUERADE_PORTS;
    let mut masquerade = |from: &str| {
        let to = format!("-d {}/{length} -p {protocol} -m {protocol} --dport {}", pod.ip(), pod.port());
        rules.push(format!("{SOURCES}{from} {to} {comment} -j MASQUERADE --to-ports {first}-{last}"));
    };
    match claim.masquerade {
        Masquerade::Never => {}
        Masquerade::Always => masquerade(""),
        Masquerade::WhereNeeded => {
            masquerade(&format!(" -s {}/{length}", pod.ip()));
            if pod.is_ipv4() {
                masquerade(" -s 127.0.0.0/8");
            }
        }
    }
    rules
}

/// Whose a rule is.
fn holder(line: &str) -> Option<Holder> {
    Comment::parse(line.split('"').nth(1)?).map(|comment| comment.holder)
}

/// Reads a translation back; `None` for all other rules.
fn claim(line: &str) -> Option<Claim> {
    let after = |option: &str| line.split(option).nth(1)?.split(' ').next();
    line.strip_prefix("-A ")?.strip_prefix(PORTS)?.strip_prefix(' ')?;
    let pod: SocketAddr = after(" --to-destination ")?.parse().ok()?;
    let any = if pod.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let host = after(" -d ").map_or(Some(any), |text| text.split('/').next()?.parse().ok())?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| after(" -p ") == Some(protocol.name()))?;
    let comment = Comment::parse(line.split('"').nth(1)?)?;
    Some(comment.claim(host, protocol, after(" --dport ")?.parse().ok()?, pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(id: &str, host: &str, pod: &str) -> Claim {
        Claim {
            host: host.parse().unwrap(),
            protocol: Protocol::Udp,
            host_port: 53,
            pod: pod.parse().unwrap(),
            masquerade: Masquerade::WhereNeeded,
            holder: Holder { network: "weft".into(), container_id: id.into(), ifname: "eth0".into() },
            order: 0,
        }
    }

    /// What the kernel would hold after these commands, in a program that knows nothing but `:`, `-A`, `-I`, `-D`, `-X`.
    fn carry_out(tables: &mut Tables, input: &str) {
        let mut nat = false;
        for line in input.lines() {
            let into = if nat { &mut tables.nat } else { &mut tables.filter };
            match line.split_at(line.len().min(3)) {
                (_, _) if line.starts_with('*') => nat = line == "*nat",
                (_, _) if line.starts_with(':') => into.push(line.to_owned()),
                ("-A ", rule) => into.push(format!("-A {rule}")),
                ("-I ", rule) => into.insert(0, format!("-A {rule}")),
                ("-D ", rule) => into.retain(|present| present.strip_prefix("-A ") != Some(rule)),
                ("-X ", chain) => into.retain(|present| !present.starts_with(&format!(":{chain} "))),
                _ => {}
            }
        }
    }

    #[test]
    fn section_8_what_is_added_is_read_back_and_removed_whole() {
        for (host, [one, other]) in [
            ("0.0.0.0", ["10.244.1.5:80", "10.244.1.6:80"]),
            ("192.0.2.1", ["10.244.1.5:80", "10.244.1.6:80"]),
            ("fd00::1", ["[fd44::5]:80", "[fd44::6]:80"]),
        ] {
            let others =
                "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";
            let (mut tables, before) = (Tables::parse(others), Tables::parse(others));
            let (one, other) = (claimed("one", host, one), claimed("other", host, other));
            assert!(tables.has_kubernetes && tables.lacks(one.pod.is_ipv4()).is_some());
            for claim in [&one, &other] {
                let input = tables.additions(claim.pod.is_ipv4(), &[claim]);
                carry_out(&mut tables, &input);
            }
            assert_eq!(tables.lacks(one.pod.is_ipv4()), None);
            let found: Vec<_> = tables.claims().collect();
            assert!(found[0].equals(&other) && found[1].equals(&one), "the later one is first: {found:?}");
            for (claim, is_last) in [(&one, false), (&other, true)] {
                let removal = tables.removal(&|holder| *holder == claim.holder);
                assert_eq!((removal.claims.len(), removal.kept == 0), (1, is_last));
                carry_out(&mut tables, &removal.input);
            }
            assert_eq!((tables.nat, tables.filter), (before.nat, before.filter));
        }
    }
}
