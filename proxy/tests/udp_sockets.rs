//! Closing connected UDP sockets in a real kernel: processes in namespaces and cgroups made for each test.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use weft_netlink::{Netlink, Netns, SockDiag};
use weft_proxy::udp_sockets;

/// The machine's cgroup2.
const CGROUP2: &str = "/sys/fs/cgroup/unified";

/// A cgroup with children; removed on drop, when nobody is in it any more.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("weft-udp-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(CGROUP2).join(name);
        fs::create_dir_all(path.join("pods/a")).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for below in ["pods/a", "pods", ""] {
            let _ = fs::remove_dir(self.0.join(below));
        }
    }
}

/// A process with UDP sockets connected to these peers. Dies with its value.
struct Process(Child);

impl Process {
    fn start(netns: &Netns, cgroup: Option<&Path>, peers: &[&str]) -> Self {
        let opened = peers.iter().enumerate().map(|(i, peer)| {
            let (address, port) = peer.rsplit_once(':').unwrap();
            format!("exec {}<>/dev/udp/{address}/{port}; ", i + 10)
        });
        let script = format!("{} echo ready; read", opened.collect::<String>());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A child is born in the namespace of the thread that makes it.
        let mut process = Self(netns.run(|| command.spawn().unwrap()).unwrap());
        let mut line = String::new();
        BufReader::new(process.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        if let Some(cgroup) = cgroup {
            fs::write(cgroup.join("cgroup.procs"), process.0.id().to_string()).unwrap();
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn namespace() -> Netns {
    let netns = Netns::create().unwrap();
    netns
        .run(|| {
            let netlink = Netlink::open().unwrap();
            netlink.set_up(netlink.link_by_name("lo").unwrap().unwrap().index).unwrap();
        })
        .unwrap();
    netns
}

/// Peers of all connected UDP sockets of a namespace.
fn peers(netns: &Netns) -> Vec<String> {
    let mut peers = Vec::new();
    let list =
        || SockDiag::open().unwrap().for_each_connected_udp(|socket| peers.push(socket.peer.to_string())).unwrap();
    netns.run(list).unwrap();
    peers.sort_unstable();
    peers
}

fn gone(endpoints: &[&str]) -> BTreeSet<SocketAddr> {
    endpoints.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn sockets_below_the_cgroup_are_closed_and_no_others() {
    let cgroup = Cgroup::new();
    let [pod, host, foreign] = [(); 3].map(|()| namespace());
    let peers_of_each = ["127.0.0.2:5353", "127.0.0.3:5353", "::1:5353"];
    let _pod = Process::start(&pod, Some(&cgroup.0.join("pods/a")), &peers_of_each);
    // Two processes in one namespace, which is looked at once.
    let _sidecar = Process::start(&pod, Some(&cgroup.0.join("pods")), &["127.0.0.2:5300"]);
    let _host = Process::start(&host, Some(&cgroup.0), &peers_of_each);
    let _foreign = Process::start(&foreign, None, &peers_of_each);

    let namespaces = udp_sockets::namespaces(&cgroup.0).unwrap();
    let found: BTreeSet<_> = namespaces.found.iter().map(|netns| netns.id().unwrap()).collect();
    assert_eq!(found, BTreeSet::from([pod.id().unwrap(), host.id().unwrap()]));
    assert_eq!((namespaces.found.len(), namespaces.hidden), (2, 0));

    let closed = udp_sockets::close(&namespaces.found, &gone(&["127.0.0.2:5353", "[::1]:5353"]));
    assert!(closed.failed.is_empty(), "{:?}", closed.failed);
    assert_eq!(closed.sockets, 4);
    assert_eq!(peers(&pod), ["127.0.0.2:5300", "127.0.0.3:5353"]);
    assert_eq!(peers(&host), ["127.0.0.3:5353"]);
    assert_eq!(peers(&foreign), ["127.0.0.2:5353", "127.0.0.3:5353", "[::1]:5353"]);
    assert_eq!(udp_sockets::close(&namespaces.found, &gone(&["127.0.0.2:5353"])).sockets, 0);
}

#[test]
fn a_cgroup_that_is_not_there_is_an_error_and_an_empty_one_is_not() {
    let cgroup = Cgroup::new();
    assert!(udp_sockets::namespaces(&cgroup.0).unwrap().found.is_empty());
    assert!(udp_sockets::namespaces(&cgroup.0.join("none")).is_err());
}

#[test]
fn the_calling_thread_is_back_where_it_was() {
    let home = Netns::current().unwrap().id().unwrap();
    let netns = namespace();
    udp_sockets::close([&netns], &gone(&["127.0.0.2:5353"]));
    assert_eq!(Netns::current().unwrap().id().unwrap(), home);
}
