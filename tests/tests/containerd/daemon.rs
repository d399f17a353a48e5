//! containerd as a process of one node, with nothing of the machine's own: its files lie in the node's directory, and it
//! lives in a mount namespace in which the paths it cannot be told (`/run/containerd`, `/var/lib/cni`) are there too.
//!
//! The mount namespace outlives containerd, as on a real node: the pods' namespaces and root file systems are mounted in
//! it. All processes, shims and containers too, are in the node's cgroup, so the run's janitor ends them however the
//! test ends; the mounts go with the last of them.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weft_tests::{Node, Place, eventually, secs};

/// Lines of its log shown in a failure.
const LOG_TAIL: usize = 40;
/// Where the distribution's plugins are. containerd wants `loopback` for every pod (cni.md section 10).
const LOOPBACK: &str = "/usr/lib/cni/loopback";
/// What is mounted before containerd starts; the first argument is the node's directory of containerd.
const MOUNTS: &str = "mkdir -p /run/containerd /var/lib/cni
mount --bind \"$1/run\" /run/containerd
mount --bind \"$1/cni\" /var/lib/cni
echo ready
exec cat";

/// containerd on one node.
#[derive(Debug)]
pub(crate) struct Containerd {
    node: Place,
    directory: PathBuf,
    /// Holds the mount namespace; ends with its standard input.
    mounts: Child,
    process: Option<Child>,
}

impl Containerd {
    /// Starts it. Pods get `sandbox_image`, which is to be imported first.
    pub(crate) fn start(node: &Node, sandbox_image: &str) -> Result<Self> {
        let directory = node.directory().join("containerd");
        for part in ["run", "cni", "images"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        symlink(LOOPBACK, node.directory().join("cni-bin/loopback")).context("loopback plugin")?;
        let configuration = configuration(node.directory(), &directory, sandbox_image);
        fs::write(directory.join("config.toml"), configuration).context("write containerd's configuration")?;
        let mounts = hold_mounts(node, &directory)?;
        let mut containerd = Self { node: (**node).clone(), directory, mounts, process: None };
        containerd.start_again()?;
        Ok(containerd)
    }

    /// Starts it after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub(crate) fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "containerd runs");
        let path = self.log();
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut command = self.command("containerd");
        command.arg("--config").arg(self.directory.join("config.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn().context("start containerd")?);
        eventually(secs(30), || self.answers()).with_context(|| self.failure_context())?;
        Ok(())
    }

    /// Asks it to end. Its pods live on.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }

    /// Ends it as a crash would. Its pods live on.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL)
    }

    /// Imports an image from an archive, for CRI.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", &archive]).map(drop).context("import the image")
    }

    /// containerd's socket, which serves CRI.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }

    /// Files of images made for it.
    pub(crate) fn images(&self) -> PathBuf {
        self.directory.join("images")
    }

    /// Names of the network namespaces that its pods have.
    pub(crate) fn network_namespaces(&self) -> Result<Vec<String>> {
        let listing =
            self.output(self.command("ls").arg(self.directory.join("state/io.containerd.grpc.v1.cri/netns")))?;
        Ok(listing.lines().map(str::to_owned).collect())
    }

    /// PIDs and command lines of the shims, one for each pod.
    pub(crate) fn shims(&self) -> Result<Vec<String>> {
        let mark = self.socket().display().to_string();
        let mut found = Vec::new();
        for pid in fs::read_to_string(self.node.cgroup().join("cgroup.procs"))?.lines() {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
            if command.contains("containerd-shim") && command.contains(&mark) {
                found.push(format!("{pid}: {command}"));
            }
        }
        Ok(found)
    }

    /// The end of its log, for a failure.
    pub(crate) fn failure_context(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=debug")).collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        format!("containerd on {}; {} ends:\n{tail}", self.node, self.log().display())
    }

    fn answers(&self) -> Result<()> {
        self.ctr(&["version"]).map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        self.output(&mut command)
    }

    fn output(&self, command: &mut Command) -> Result<String> {
        let output = command.output().with_context(|| format!("start {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A program in the node's network and cgroup, and in containerd's mounts.
    fn command(&self, program: &str) -> Command {
        let mut command = self.node.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.mounts.id())).args(["--", program]);
        command
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("containerd does not run")?;
        let pid = i32::try_from(process.id()).context("PID of containerd")?;
        kill(Pid::from_raw(pid), signal).context("signal to containerd")?;
        eventually(secs(20), || process.try_wait()?.context("containerd still runs"))?;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("containerd.log")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Gone already is fine. Shims and containers are the janitor's.
        for process in self.process.iter_mut().chain([&mut self.mounts]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A process in a mount namespace of its own, with the mounts made.
fn hold_mounts(node: &Node, directory: &Path) -> Result<Child> {
    let mut command = node.command("unshare");
    command.args(["--mount", "--propagation=private", "--", "sh", "-ec", MOUNTS, "sh"]).arg(directory);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout of the mounts")?).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the mounts for containerd could not be made (above)");
    Ok(child)
}

/// Every path is the test's own. Streaming stays on an address of the node that only the node sees.
fn configuration(node: &Path, directory: &Path, sandbox_image: &str) -> String {
    let (node, directory) = (node.display(), directory.display());
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox_image}"
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  # Lowering it takes CAP_SYS_RESOURCE, which root of a CI machine may lack.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{node}/cni-bin"
  conf_dir = "{node}/cni-conf"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
"#
    )
}
