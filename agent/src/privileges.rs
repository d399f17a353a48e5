//! Whether this process may do what the agent does, before it changes anything.

use std::fs;

/// Capabilities the agent cannot work without (capabilities(7)), with their bit and what needs them.
const NEEDED: [(u32, &str, &str); 2] =
    [(12, "CAP_NET_ADMIN", "links, routes and packet rules"), (39, "CAP_BPF", "BPF maps and programs")];
const CAP_SYS_ADMIN: u32 = 21;

/// What is missing, one sentence a capability; empty when all is there.
pub(crate) fn missing() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    missing_in(effective(&status).unwrap_or(0))
}

fn missing_in(effective: u64) -> Vec<String> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    NEEDED
        .into_iter()
        // CAP_SYS_ADMIN includes CAP_BPF, for kernels before 5.8.
        .filter(|(bit, name, _)| !(has(*bit) || (*name == "CAP_BPF" && has(CAP_SYS_ADMIN))))
        .map(|(_, name, what)| format!("{name} is missing ({what})"))
        .collect()
}

/// The effective set out of `/proc/<pid>/status` (proc(5)).
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{effective, missing_in};

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_in(u64::MAX), Vec::<String>::new());
        assert_eq!(missing_in(1 << 12 | 1 << 21), Vec::<String>::new());
        let missing = missing_in(0);
        assert!(missing[0].starts_with("CAP_NET_ADMIN") && missing[1].starts_with("CAP_BPF"), "{missing:?}");
    }

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tx\nCapInh:\t0\nCapEff:\t0000000000001000\n"), Some(1 << 12));
    }
}
