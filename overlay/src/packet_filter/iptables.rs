//! The host's iptables programs: looks at flannel's chains and writes them, in one atomic `iptables-restore` each, so that no
//! packet sees half of a change (flannel-defects.md E.5).

use std::fs;

use super::{
    chain::Chain,
    command::{FilterError, is_installed, run},
    rules::PodNetworks,
};
use crate::family::Family;

/// Seconds to wait for the lock of the xtables programs.
const WAIT: [&str; 2] = ["-w", "5"];

/// One of the programs that manage the tables of a family. A host may have both kinds of table at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Program {
    pub(super) family: Family,
    name: &'static str,
    restore: &'static str,
}

const fn standard(family: Family) -> Program {
    match family {
        Family::V4 => Program { family, name: "iptables", restore: "iptables-restore" },
        Family::V6 => Program { family, name: "ip6tables", restore: "ip6tables-restore" },
    }
}

const fn legacy(family: Family) -> Program {
    match family {
        Family::V4 => Program { family, name: "iptables-legacy", restore: "iptables-legacy-restore" },
        Family::V6 => Program { family, name: "ip6tables-legacy", restore: "ip6tables-legacy-restore" },
    }
}

/// The host's iptables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Iptables {
    /// `iptables` speaks to the kernel's old interface, where looking at a table creates it.
    standard_is_legacy: bool,
}

impl Iptables {
    /// `None`: it is not installed.
    pub(super) fn find() -> Option<Self> {
        if !is_installed("iptables") {
            return None;
        }
        let version = run("iptables", &["-V"], "").map(|answer| answer.stdout).unwrap_or_default();
        Some(Self { standard_is_legacy: version.contains("legacy") })
    }

    /// The program masquerading is done with.
    pub(super) fn standard(&self, family: Family) -> Program {
        standard(family)
    }

    /// The programs whose tables are in use, as far as that can be known without creating any.
    pub(super) fn in_use(&self, family: Family) -> Vec<Program> {
        let has_legacy = has_legacy_tables(family);
        let mut programs = Vec::new();
        if !self.standard_is_legacy || has_legacy {
            programs.push(standard(family));
        }
        if !self.standard_is_legacy && has_legacy {
            programs.push(legacy(family));
        }
        programs.retain(|program| is_installed(program.name));
        programs
    }

    /// Whether somebody's tables report no changes, so that they must be looked at.
    pub(super) fn must_poll(&self) -> bool {
        Family::ALL.into_iter().any(has_legacy_tables)
    }
}

/// The old interface's tables in this namespace; to read this creates none.
fn has_legacy_tables(family: Family) -> bool {
    let file = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    fs::read_to_string(file).is_ok_and(|names| names.lines().any(|name| name == "filter" || name == "nat"))
}

/// How FORWARD looks to packets that meet no rule of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// The policy is not ACCEPT, or there are rules of others.
    pub(super) filtered: bool,
    /// Rules of somebody who decides by conntrack's state what pods may do.
    pub(super) tracked: bool,
}

impl Program {
    /// Makes a chain and its one jump be as they should, in one transaction; true if they were not.
    ///
    /// `move_up`: move a jump in FORWARD that is not where it belongs (flannel's is the last). Only once: two programs that both
    /// want to be first would fight for ever.
    pub(super) fn ensure(&self, chain: Chain, networks: &PodNetworks, move_up: bool) -> Result<bool, FilterError> {
        let state = self.state(chain)?;
        let rules = chain.rules(networks);
        let in_place = state.jumps == 1 && (chain == Chain::Masquerade || !move_up || state.in_order);
        if in_place && state.rules.as_ref() == Some(&rules) {
            return Ok(false);
        }
        // Declaring a chain also empties it.
        let mut lines = vec![format!(":{} - [0:0]", chain.name())];
        lines.extend(rules);
        if !in_place {
            lines.extend((0..state.jumps).map(|_| format!("-D {}", chain.jump())));
            lines.push(chain.add_jump(state.services));
        }
        self.restore(chain, &lines).map(|()| true)
    }

    /// Removes a chain and all jumps to it; true if there was something.
    pub(super) fn remove(&self, chain: Chain) -> Result<bool, FilterError> {
        // Mostly there is none, and a start should not wait for a second program to say so.
        if self.list(chain.table(), chain.name())?.is_none() {
            return Ok(false);
        }
        let state = self.state(chain)?;
        let mut lines: Vec<String> = (0..state.jumps).map(|_| format!("-D {}", chain.jump())).collect();
        lines.extend([format!("-F {}", chain.name()), format!("-X {}", chain.name())]);
        self.restore(chain, &lines).map(|()| true)
    }

    pub(super) fn forwarding(&self) -> Result<Forwarding, FilterError> {
        let listing = self.list("filter", "FORWARD")?.unwrap_or_default();
        let mut forwarding = Forwarding::default();
        for line in listing.lines() {
            if line.starts_with("-P ") {
                forwarding.filtered |= !line.ends_with(" ACCEPT");
            } else if line.starts_with("-A ") && !line.ends_with(Chain::Forward.name()) {
                forwarding.filtered = true;
                forwarding.tracked |= !is_harmless(line);
            }
        }
        Ok(forwarding)
    }

    fn state(&self, chain: Chain) -> Result<State, FilterError> {
        let jump = format!("-A {}", chain.jump());
        let hook = self.list(chain.table(), chain.hook())?.unwrap_or_default();
        let of_hook: Vec<&str> = hook.lines().filter(|line| line.starts_with("-A ")).collect();
        let rules = self.list(chain.table(), chain.name())?;
        let (services, in_order) = place(&of_hook, &jump);
        Ok(State {
            jumps: of_hook.iter().filter(|line| **line == jump).count(),
            services,
            in_order,
            rules: rules.map(|text| text.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect()),
        })
    }

    /// A chain as `-S` prints it; `None` if there is none (then the programs say different things, all of them failures).
    fn list(&self, table: &str, chain: &str) -> Result<Option<String>, FilterError> {
        let answer = run(self.name, &[WAIT[0], WAIT[1], "-t", table, "-S", chain], "")?;
        Ok(answer.success.then_some(answer.stdout))
    }

    fn restore(&self, chain: Chain, lines: &[String]) -> Result<(), FilterError> {
        let text = format!("*{}\n{}\nCOMMIT\n", chain.table(), lines.join("\n"));
        run(self.restore, &["--noflush", WAIT[0], WAIT[1]], &text)?
            .expect(self.restore, "load flannel's chains")
            .map(drop)
    }
}

/// What there is of a chain.
struct State {
    jumps: usize,
    /// Rules of Services at the head of the hook, the jump left aside.
    services: usize,
    /// The jump follows them.
    in_order: bool,
    /// `None`: there is no such chain.
    rules: Option<Vec<String>>,
}

/// How many rules of Services there are at the head of a hook, whether before or behind `jump`, and whether it follows the last.
///
/// In front of them it would let pods reach what Services refuse, drop, or give to some sources only.
fn place(hook: &[&str], jump: &str) -> (usize, bool) {
    let of_services = |rule: &str| rule.rsplit_once("-j ").is_some_and(|(_, target)| target.starts_with("KUBE-"));
    let head = hook.iter().take_while(|rule| **rule == jump || of_services(rule));
    let services = head.filter(|rule| **rule != jump).count();
    (services, hook.get(services).is_some_and(|rule| *rule == jump))
}

/// Whether a rule of FORWARD is known not to judge pods by conntrack's state: kube-proxy's and docker's look at marks, Services
/// and docker's own bridges.
fn is_harmless(rule: &str) -> bool {
    let target = rule.rsplit_once("-j ").map_or("", |(_, target)| target);
    ["KUBE-FORWARD", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL", "WEFT-", "DOCKER"]
        .iter()
        .any(|known| target.starts_with(known))
        || [" docker0", " br-", "LIBVIRT_"].iter().any(|part| rule.contains(part))
        || !rule.contains("-j ") && !rule.contains("-g ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jump_goes_between_services_and_firewalls() {
        let (ours, services) = ("-A FORWARD -j FLANNEL-FWD", "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES");
        let docker = "-A FORWARD -j DOCKER-USER";
        for (hook, expected) in [
            (&[][..], (0, false)),
            (&[ours], (0, true)),
            (&[ours, docker], (0, true)),
            (&[docker, ours], (0, false)),
            (&[services, services, ours, docker], (2, true)),
            (&[ours, services, services, docker], (2, false)),
            (&[services, ours, services, docker], (2, false)),
            (&[services, docker, ours], (1, false)),
            (&[docker, services, ours], (0, false)),
        ] {
            assert_eq!(place(hook, ours), expected, "{hook:?}");
        }
    }

    #[test]
    fn policy_engines_are_told_from_docker_and_kube_proxy() {
        for (rule, harmless) in [
            ("-A FORWARD -j DOCKER-USER", true),
            ("-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", true),
            (r#"-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD"#, true),
            ("-A FORWARD -j KUBE-ROUTER-FORWARD", false),
            ("-A FORWARD -j cali-FORWARD", false),
            ("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", false),
        ] {
            assert_eq!(is_harmless(rule), harmless, "{rule}");
        }
    }
}
