//! Finds the cgroup2 file system.

use std::{fs, path::PathBuf};

use anyhow::Context;

/// Root of the mounted cgroup2 hierarchy: the only one on most nodes, `/sys/fs/cgroup/unified` beside cgroup v1.
///
/// # Errors
/// cgroup2 is mounted nowhere, so no socket program can be attached.
pub(crate) fn mounted_root() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    root_in(&mounts).context("cgroup2 is not mounted; mount it, or say where with --cgroup-root")
}

/// The mount point of the first cgroup2 in mountinfo(5): field 5, with the type after the ` - `.
fn root_in(mountinfo: &str) -> Option<PathBuf> {
    let is_cgroup2 = |line: &&str| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("cgroup2 "));
    let line = mountinfo.lines().find(is_cgroup2)?;
    line.split(' ').nth(4).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::root_in;

    #[test]
    fn the_hybrid_hierarchy_is_found() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        assert_eq!(root_in(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root_in("30 23 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
