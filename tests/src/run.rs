//! One run: its name, its directory and cgroup, and the certainty that all of it goes away.
//!
//! Every process of a run lives in a cgroup below `<cgroup2>/weft-<run>`, every namespace is called
//! `weft-<run>-...`, every file is below `/run/weft-tests/<run>`. So one function, [`remove`], can
//! remove a run knowing only its name. It is called by the janitor, a process that outlives its owner:
//! a Drop would not run after Ctrl-C or `kill -9`, and PDEATHSIG follows the parent *thread*, which in
//! a test process ends long before the process does.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MntFlags, umount2};

use crate::{Binaries, eventually, ip};

const ROOT: &str = "/run/weft-tests";
const NAMESPACES: &str = "/run/netns";
const KEPT: &str = "kept";
/// Killing, unmounting and removing takes milliseconds; this bounds a hung kernel object.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);

/// A run in progress. Dropping it removes everything that carries its name.
#[derive(Debug)]
pub struct Run {
    name: String,
    janitor: Option<Child>,
}

impl Run {
    /// Removes what dead runs left, then makes directory, cgroup and janitor of a new run.
    pub(crate) fn start(binaries: &Binaries) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(1);
        if !nix::unistd::geteuid().is_root() {
            bail!("a cluster needs root (network namespaces, cgroups, mounts): use `cargo xtask`");
        }
        sweep()?;
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{counter}", process::id());
        // The janitor first: from here on nothing that is made can be forgotten.
        let janitor = Command::new(&binaries.testkit)
            .args(["janitor", &name])
            .stdin(Stdio::piped())
            // Out of the terminal's process group, or Ctrl-C would end it before it has cleaned up.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} janitor", binaries.testkit.display()))?;
        let run = Self { name, janitor: Some(janitor) };
        fs::create_dir_all(run.directory()).with_context(|| format!("create {}", run.directory().display()))?;
        run.cgroup("")?;
        Ok(run)
    }

    /// `<pid>-<n>`, with the PID of the process that started it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory of all files of the run.
    pub fn directory(&self) -> PathBuf {
        directory(&self.name)
    }

    /// Full name of the namespace `part` of this run, as `ip netns` knows it.
    pub fn netns(&self, part: &str) -> String {
        format!("weft-{}-{part}", self.name)
    }

    /// Makes, if need be, the cgroup `part` of this run, and returns its path.
    pub(crate) fn cgroup(&self, part: &str) -> Result<PathBuf> {
        let path = cgroup_root()?.join(format!("weft-{}", self.name)).join(part);
        fs::create_dir_all(&path).with_context(|| format!("create cgroup {}", path.display()))?;
        Ok(path)
    }

    /// Leaves everything as it is, also after this process, until [`down`].
    ///
    /// # Errors
    /// The marker that protects it from later runs cannot be written.
    pub fn keep(mut self) -> Result<()> {
        let marker = self.directory().join(KEPT);
        fs::write(&marker, "").with_context(|| format!("write {}", marker.display()))?;
        self.tell_janitor("keep")
    }

    /// Removes the run.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn end(mut self) -> Result<()> {
        self.tell_janitor("end")
    }

    fn tell_janitor(&mut self, word: &str) -> Result<()> {
        let Some(mut janitor) = self.janitor.take() else {
            return Ok(());
        };
        if let Some(mut stdin) = janitor.stdin.take() {
            writeln!(stdin, "{word}").context("tell the janitor")?;
        }
        let status = janitor.wait().context("wait for the janitor")?;
        if !status.success() {
            bail!("the janitor of run {} reports leftovers (above)", self.name);
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = self.tell_janitor("end") {
            eprintln!("weft-tests: {error:#}");
        }
    }
}

/// Removes the runs whose process is gone, except kept ones.
pub(crate) fn sweep() -> Result<()> {
    for run in runs()? {
        if !is_owned(&run) && !directory(&run).join(KEPT).exists() {
            remove(&run)?;
        }
    }
    Ok(())
}

/// Removes all runs that no process owns, kept ones too, and returns their names.
///
/// # Errors
/// What could not be removed.
pub fn down() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for run in runs()? {
        if directory(&run).join(KEPT).exists() || !is_owned(&run) {
            remove(&run)?;
            removed.push(run);
        }
    }
    Ok(removed)
}

/// Names of all runs that left any trace on this machine, sorted.
fn runs() -> Result<Vec<String>> {
    let mut found = entries(Path::new(ROOT));
    for name in entries(Path::new(NAMESPACES)).into_iter().chain(entries(&cgroup_root()?)) {
        // weft-<pid>-<n>, and for a namespace the name of the host.
        let mut parts = name.splitn(4, '-').skip(1);
        if let (true, Some(pid), Some(counter)) = (name.starts_with("weft-"), parts.next(), parts.next()) {
            found.push(format!("{pid}-{counter}"));
        }
    }
    found.retain(|run| owner(run).is_some());
    found.sort();
    found.dedup();
    Ok(found)
}

fn is_owned(run: &str) -> bool {
    owner(run).is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes everything of a run: processes, mounts, namespaces, cgroups, files. Idempotent, and goes on
/// after a failure.
///
/// # Errors
/// Everything that could not be removed.
pub fn remove(run: &str) -> Result<()> {
    let mut failures = Vec::new();
    let mut step = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    // Processes first: they hold namespaces, sockets and files.
    step("cgroup", remove_cgroup(run));
    for mount in mounts_below(&directory(run)) {
        step(&mount.display().to_string(), unmount(&mount));
    }
    for name in namespaces(run) {
        step("namespace", delete_netns(&name));
    }
    step("files", gone(fs::remove_dir_all(directory(run))));
    if failures.is_empty() {
        return Ok(());
    }
    bail!("run {run} is not removed: {}", failures.join("; "))
}

/// What is left of a run, one line each; empty when it is gone.
///
/// # Errors
/// No cgroup2 is mounted.
pub fn leftovers(run: &str) -> Result<Vec<String>> {
    let mut left: Vec<String> = namespaces(run);
    let cgroup = cgroup_root()?.join(format!("weft-{run}"));
    let directory = directory(run);
    let mounts = mounts_below(&directory);
    for path in [cgroup, directory].into_iter().filter(|path| path.exists()).chain(mounts).chain(cgroups_v1(run)) {
        left.push(path.display().to_string());
    }
    // A process of the run that escaped its cgroup would still name the run's files.
    let mark = format!("{ROOT}/{run}/");
    for pid in entries(Path::new("/proc")) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&mark) && pid.parse::<u32>().is_ok() {
            left.push(format!("process {pid}: {command}"));
        }
    }
    Ok(left)
}

/// Mount point of cgroup2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid system.
pub(crate) fn cgroup_root() -> Result<PathBuf> {
    mount_points()
        .find(|(_, kind)| kind == "cgroup2")
        .map(|(path, _)| path)
        .ok_or_else(|| anyhow!("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup"))
}

fn directory(run: &str) -> PathBuf {
    Path::new(ROOT).join(run)
}

fn owner(run: &str) -> Option<u32> {
    let (pid, counter) = run.split_once('-')?;
    counter.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn namespaces(run: &str) -> Vec<String> {
    let prefix = format!("weft-{run}-");
    let mut names = entries(Path::new(NAMESPACES));
    names.retain(|name| name.starts_with(&prefix));
    names
}

fn remove_cgroup(run: &str) -> Result<()> {
    let top = cgroup_root()?.join(format!("weft-{run}"));
    if top.exists() {
        // cgroup.kill reaches forks that are just happening too (cgroup-v2.rst, since 5.14).
        gone(fs::write(top.join("cgroup.kill"), "1")).context("kill the processes")?;
        eventually(REMOVAL_DEADLINE, || remove_cgroup_tree(&top))?;
    }
    // Empty ones now, of containers that nobody deleted.
    for top in cgroups_v1(run) {
        eventually(REMOVAL_DEADLINE, || remove_cgroup_tree(&top))?;
    }
    Ok(())
}

/// The run's cgroups in the hierarchies of a hybrid system, where runc makes them for each container.
fn cgroups_v1(run: &str) -> impl Iterator<Item = PathBuf> {
    let hierarchies = mount_points().filter(|(_, kind)| kind == "cgroup");
    hierarchies.map(move |(path, _)| path.join(format!("weft-{run}"))).filter(|path| path.exists())
}

/// EBUSY until the last killed process is reaped.
fn remove_cgroup_tree(path: &Path) -> Result<()> {
    for name in entries(path) {
        let child = path.join(name);
        if child.is_dir() {
            remove_cgroup_tree(&child)?;
        }
    }
    gone(fs::remove_dir(path)).with_context(|| format!("remove {}", path.display()))
}

fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: not a mount point (any more).
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        mount_points().map(|(path, _)| path).filter(|path| path.starts_with(directory)).collect();
    // Innermost first.
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// Mount points and their file system types (proc_pid_mountinfo(5)).
fn mount_points() -> impl Iterator<Item = (PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let rows: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let path = left.split(' ').nth(4)?;
            let kind = right.split(' ').next()?;
            Some((PathBuf::from(path), kind.to_owned()))
        })
        .collect();
    rows.into_iter()
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(listing) = fs::read_dir(directory) else {
        return Vec::new();
    };
    listing.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

/// Something already removed is what we want.
fn gone(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes a namespace with its loopback up, as a container runtime does.
pub(crate) fn create_netns(name: &str) -> Result<PathBuf> {
    ip::batch(None, &format!("netns add {name}\n"))?;
    ip::batch(Some(name), "link set lo up\n")?;
    Ok(Path::new(NAMESPACES).join(name))
}

/// Removes a namespace; gone already is fine.
pub(crate) fn delete_netns(name: &str) -> Result<()> {
    let path = Path::new(NAMESPACES).join(name);
    unmount(&path).and_then(|()| gone(fs::remove_file(&path))).with_context(|| name.to_owned())
}
