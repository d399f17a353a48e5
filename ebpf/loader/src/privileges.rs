//! What the process may do, asked before anything is changed on the node.

use std::{fs, io, path::Path};

use crate::Error;

/// Bits of linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// Fails if the calling thread certainly cannot load the programs. In a container the kernel may still refuse: capabilities of another
/// user namespace than the first do not count.
pub(crate) fn check() -> Result<(), Error> {
    let path = Path::new("/proc/thread-self/status");
    let status = fs::read_to_string(path).map_err(|source| Error::file("read", path, source))?;
    match effective(&status) {
        Some(capabilities) if !suffices(capabilities) => Err(Error::MissingPrivilege {
            doing: "load the socket programs".to_owned(),
            source: io::Error::from_raw_os_error(libc::EPERM),
        }),
        // Without the line the kernel has the word.
        _ => Ok(()),
    }
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn suffices(capabilities: u64) -> bool {
    capabilities & SYS_ADMIN != 0 || capabilities & (BPF | NET_ADMIN) == BPF | NET_ADMIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_both_or_the_old_one_suffices() {
        assert!(suffices(effective("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap()));
        assert!(suffices(SYS_ADMIN) && suffices(BPF | NET_ADMIN));
        assert!(!suffices(BPF) && !suffices(NET_ADMIN) && !suffices(0));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
