//! The network namespaces of the processes below a cgroup.
//!
//! The cgroup is the one whose sockets are translated, so its processes are exactly those that may hold a translated socket:
//! pods of any runtime, host-network pods and the host's own daemons alike, and on a machine with several agents no
//! namespace of another one. A list of pod namespaces under /run/netns would know neither.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use weft_netlink::Netns;

/// What was found.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Each namespace once.
    pub found: Vec<Netns>,
    /// Processes whose namespace this one may not see: it needs the host's PID namespace and CAP_SYS_PTRACE.
    pub hidden: usize,
}

/// Looks at every process in `cgroup` (a cgroup2 directory) and below. Costs one `stat` a process, about 2 µs.
///
/// Processes and cgroups that go away meanwhile are passed over, and so are namespaces that only a thread other than the
/// first of a process is in.
///
/// # Errors
/// `cgroup` itself cannot be read.
pub fn namespaces(cgroup: &Path) -> io::Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    let mut seen = HashSet::new();
    fs::read_dir(cgroup)?;
    let mut directories = vec![cgroup.to_owned()];
    while let Some(directory) = directories.pop() {
        for pid in processes(&directory) {
            namespaces.add(pid, &mut seen);
        }
        directories.extend(subdirectories(&directory));
    }
    Ok(namespaces)
}

impl Namespaces {
    fn add(&mut self, pid: u32, seen: &mut HashSet<(u64, u64)>) {
        let path = format!("/proc/{pid}/ns/net");
        match fs::metadata(&path) {
            Ok(metadata) if seen.contains(&(metadata.dev(), metadata.ino())) => {}
            Ok(_) => {
                // The identity is asked again, of what was opened: the process may have gone, and its number to another.
                if let Ok(netns) = Netns::open(&path)
                    && netns.id().is_ok_and(|id| seen.insert(id))
                {
                    self.found.push(netns);
                }
            }
            // Number 0 stands for a process of another PID namespace.
            Err(error) if pid == 0 || error.kind() == io::ErrorKind::PermissionDenied => self.hidden += 1,
            Err(_) => {}
        }
    }
}

/// None if the cgroup is gone or threaded; the processes of a threaded one are listed in its domain above.
fn processes(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
