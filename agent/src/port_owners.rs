//! Who has a TCP or UDP port of this network namespace.

use std::{collections::BTreeMap, fs, path::Path};

/// TCP_LISTEN, and the state of a UDP socket that is not connected, as `/proc/net` shows them (include/net/tcp_states.h).
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Name of the process, of which the kernel keeps 15 bytes; `None`: the kernel, as for a tunnel, or a process that cannot be
    /// seen from here.
    pub(crate) process: Option<String>,
}

/// Those that listen at a TCP port.
pub(crate) fn tcp(port: u16) -> Vec<Owner> {
    owners("tcp", LISTENING, port)
}

/// Those that receive at a UDP port.
pub(crate) fn udp(port: u16) -> Vec<Owner> {
    owners("udp", UNCONNECTED, port)
}

fn owners(protocol: &str, state: &str, port: u16) -> Vec<Owner> {
    let tables = ["", "6"].map(|family| fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}")));
    let sockets = tables.into_iter().flatten().flat_map(|table| sockets(&table, state));
    let inodes: Vec<u64> = sockets.filter(|(number, _)| *number == port).map(|(_, inode)| inode).collect();
    let processes = if inodes.is_empty() { BTreeMap::new() } else { processes(&inodes) };
    inodes.iter().map(|inode| Owner { process: processes.get(inode).cloned() }).collect()
}

/// Local port and inode of the sockets in this state: proc_net(5), columns `local_address`, `st` and `inode`.
fn sockets(table: &str, state: &str) -> Vec<(u16, u64)> {
    let row = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (_, port) = columns.get(1)?.rsplit_once(':')?;
        let found = (u16::from_str_radix(port, 16).ok()?, columns.get(9)?.parse().ok()?);
        (columns.get(3) == Some(&state)).then_some(found)
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// Names of the processes that have these sockets, by the sockets' inodes.
fn processes(wanted: &[u64]) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else { continue };
        let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        let inodes: Vec<u64> = targets.filter_map(|target| inode(&target)).filter(|it| wanted.contains(it)).collect();
        if inodes.is_empty() {
            continue;
        }
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        names.extend(inodes.into_iter().map(|inode| (inode, name.trim().to_owned())));
    }
    names
}

fn inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2810 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100 0 0 10 0
   1: 0100007F:2810 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 20 4 30 10 -1
";

    #[test]
    fn listening_sockets_are_read() {
        assert_eq!(sockets(TABLE, LISTENING), [(10256, 4711)]);
        assert_eq!(sockets("sl\n 0: x\n", LISTENING), []);
        assert_eq!(inode(Path::new("socket:[4711]")), Some(4711));
        assert_eq!(inode(Path::new("/dev/null")), None);
    }

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(tcp(port), [Owner { process: Some(own.trim().to_owned()) }]);
        drop(listener);
        assert_eq!(tcp(port), []);
    }
}
