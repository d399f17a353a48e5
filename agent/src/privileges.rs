//! Whether this process may do what is asked of it, before it changes anything.

use std::fs;

use crate::config::{Components, ProxyMode};

const CAP_SYS_ADMIN: u32 = 21;

/// A capability that there is no way around (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// For links, routes and packet rules.
    NetAdmin,
    /// For the ebpf mode.
    Bpf,
}

impl Capability {
    fn bit(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::Bpf => 39,
        }
    }

    /// That it is missing, and what for.
    fn complaint(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN is missing (links, routes and packet rules)",
            Self::Bpf => "CAP_BPF is missing (BPF maps and programs of the ebpf mode)",
        }
    }
}

/// What an agent with these parts cannot do without. The best mode there is needs no more than the others, of which it takes
/// one where the first cannot be had.
pub(crate) fn needed(components: Components, mode: ProxyMode) -> Vec<Capability> {
    let mut needed = vec![Capability::NetAdmin];
    if components.proxy && mode == ProxyMode::Ebpf {
        needed.push(Capability::Bpf);
    }
    needed
}

/// Those of `needed` that this process has not, a sentence each.
pub(crate) fn missing(needed: &[Capability]) -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing_in(effective(&status).unwrap_or(0), needed)
}

fn missing_in(effective: u64, needed: &[Capability]) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    needed
        .iter()
        // CAP_SYS_ADMIN includes CAP_BPF, for kernels before 5.8.
        .filter(|needed| !(has(needed.bit()) || (**needed == Capability::Bpf && has(CAP_SYS_ADMIN))))
        .map(|needed| needed.complaint())
        .collect()
}

/// The effective set out of `/proc/<pid>/status` (proc(5)).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_parts_and_the_mode_need_is_asked_for() {
        let services = Components { proxy: true, ..Components::default() };
        let network = Components { overlay: true, cni: true, ..Components::default() };
        for (components, mode, bpf) in [
            (services, ProxyMode::Ebpf, true),
            (services, ProxyMode::Best, false),
            (services, ProxyMode::Nftables, false),
            (network, ProxyMode::Ebpf, false),
        ] {
            let needed = needed(components, mode);
            assert!(needed.contains(&Capability::NetAdmin));
            assert_eq!(needed.contains(&Capability::Bpf), bpf, "{components:?} {mode:?}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let both = [Capability::NetAdmin, Capability::Bpf];
        assert!(missing_in(u64::MAX, &both).is_empty());
        assert!(missing_in(1 << 12 | 1 << 21, &both).is_empty());
        let missing = missing_in(0, &both);
        assert!(missing[0].starts_with("CAP_NET_ADMIN") && missing[1].starts_with("CAP_BPF"), "{missing:?}");
        assert!(missing_in(1 << 12, &both[..1]).is_empty());
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapInh:\t0\nCapEff:\t0000000000001000\n"), Some(1 << 12));
    }
}
