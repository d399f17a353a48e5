//! A node for tests: an own cgroup, an own BPF filesystem, and an own network namespace with all addresses on loopback.
//!
//! Nothing of the machine's own is touched, and everything is removed when the node is dropped, also by a panic.
#![expect(dead_code, reason = "shared by several test binaries, each of which uses a part")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;
use weft_ebpf::{MapSizes, SocketPlaneConfig, remove_pins};

/// Where this machine has the unified hierarchy: the second is the usual place.
const CGROUP2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// See the module.
pub(crate) struct Node {
    cgroup: PathBuf,
    bpffs: TempDir,
}

impl Node {
    /// Makes the cgroup and mounts the BPF filesystem.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root =
            CGROUP2.iter().find(|root| Path::new(root).join("cgroup.procs").exists()).expect("cgroup2 is mounted");
        let name = format!("weft-test-{}-{number}", std::process::id());
        let cgroup = Path::new(root).join(name);
        fs::create_dir(&cgroup).expect("make a cgroup (needs root)");
        let bpffs = tempfile::Builder::new().prefix("weft-test-").tempdir().unwrap();
        mount(Some("bpf"), bpffs.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mount a BPF filesystem (needs root)");
        Self { cgroup, bpffs }
    }

    /// What the loader is to be opened with.
    pub(crate) fn config(&self) -> SocketPlaneConfig {
        SocketPlaneConfig {
            cgroup_root: self.cgroup.clone(),
            bpffs: self.bpffs.path().to_owned(),
            sizes: MapSizes::default(),
        }
    }

    /// Directory of the pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs.path().join(format!("weft/v{}", weft_ebpf_abi::ABI_VERSION))
    }

    /// Removes the cgroup and makes it again under the same name.
    pub(crate) fn remake_cgroup(&self) {
        fs::remove_dir(&self.cgroup).unwrap();
        fs::create_dir(&self.cgroup).unwrap();
    }

    /// Starts a Python program in the cgroup; it joins before it can make a socket, because a socket stays with the cgroup of its
    /// birth. Its output is collected, and it dies with the handle.
    pub(crate) fn python(&self, program: &str, arguments: &[&str]) -> Client {
        let child = Command::new("sh")
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec python3 -c "$@""#])
            .arg(&self.cgroup)
            .arg(format!("{PRELUDE}\n{program}"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sh");
        Client { child: Some(child) }
    }

    /// Runs a Python program to its end and returns the lines it printed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        self.python(program, arguments).lines()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not even a failing test leaves anything behind, so nothing here may panic.
        let failed = remove_pins(self.bpffs.path()).err();
        if let Some(error) = failed {
            eprintln!("remove pins: {error}");
        }
        if let Err(error) = umount2(self.bpffs.path(), MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", self.bpffs.path().display());
        }
        // The kernel lets go of a cgroup a moment after its last process was reaped.
        let deadline = Instant::now() + Duration::from_secs(2);
        while let Err(error) = fs::remove_dir(&self.cgroup) {
            if Instant::now() > deadline {
                eprintln!("remove {}: {error}", self.cgroup.display());
                break;
            }
            thread::yield_now();
        }
    }
}

/// What every client program starts with.
const PRELUDE: &str = r"
import socket, sys, time, errno
def family(host): return socket.AF_INET6 if ':' in host else socket.AF_INET
def tcp(host, port):
    s = socket.socket(family(host), socket.SOCK_STREAM); s.settimeout(5)
    s.connect((host, int(port))); return s
def udp(host):
    s = socket.socket(family(host), socket.SOCK_DGRAM); s.settimeout(5); return s
def show(address): return '%s %d' % (address[0], address[1])
";

/// A client process of a [`Node`].
pub(crate) struct Client {
    child: Option<Child>,
}

impl Client {
    /// Sends a line to the program.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.as_mut().unwrap().stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    /// Waits for the next line of the program.
    pub(crate) fn hear(&mut self) -> String {
        let stdout = self.child.as_mut().unwrap().stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Waits for the program's end and returns its output; fails if it failed.
    pub(crate) fn lines(mut self) -> Vec<String> {
        let Output { status, stdout, stderr } = self.child.take().unwrap().wait_with_output().unwrap();
        assert!(
            status.success(),
            "client: {status}\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `body` on a thread in a network namespace of its own with these addresses on its loopback device.
pub(crate) fn in_netns<T: Send>(addresses: &[&str], body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let result = scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (needs root)");
                ip(&["link", "set", "lo", "up"]);
                for address in addresses {
                    // Duplicate address detection would keep an IPv6 address unusable for a second.
                    let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                    let width = if address.contains(':') { 128 } else { 32 };
                    let address = format!("{address}/{width}");
                    ip(&[&["address", "add", &address, "dev", "lo"], nodad].concat());
                }
                body()
            })
            .join();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes every address of `network` one of the calling thread's network namespace.
pub(crate) fn route_to_loopback(network: &str) {
    ip(&["route", "add", "local", network, "dev", "lo"]);
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("start ip");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts servers, TCP and UDP, that answer with their own address and port. They end with the process.
pub(crate) fn serve(address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let datagrams = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client killed by its test is no concern of the server.
            let _ = stream.write_all(address.to_string().as_bytes());
            thread::spawn(move || echo(stream));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(address.to_string().as_bytes(), from);
        }
    });
}

fn echo(mut stream: std::net::TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
