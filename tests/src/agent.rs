//! The agent process of a node, and what it says about itself.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

use crate::{NodeStatus, Place, ServiceStatus, Trace, eventually, node::NodeSpec, secs};

/// Lines of the log shown in a failure.
const LOG_TAIL: usize = 25;

/// `weft agent` on one node. It is stopped with the run, or by the functions here.
#[derive(Debug)]
pub struct Agent {
    place: Place,
    program: PathBuf,
    run_directory: PathBuf,
    log: PathBuf,
    flags: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
}

impl Agent {
    pub(crate) fn new(spec: &NodeSpec<'_>, directory: &Path) -> Self {
        let path = |part: &str| directory.join(part).display().to_string();
        let flags = [
            ("--source", format!("dir:{}", spec.source.display())),
            ("--subnet-manager", format!("dir:{}", spec.leases.display())),
            ("--net-conf", spec.net_conf.display().to_string()),
            ("--hostname-override", spec.name.clone()),
            ("--components", "overlay,proxy,cni".to_owned()),
            ("--proxy-mode", "ebpf".to_owned()),
            ("--cgroup-root", spec.cgroup.display().to_string()),
            ("--bpffs", path("bpf")),
            ("--run-dir", path("run")),
            ("--state-dir", path("state")),
            ("--subnet-file", path("run/subnet.env")),
            ("--cni-conf-dir", path("cni-conf")),
            ("--cni-bin-dir", path("cni-bin")),
            ("--iface", "eth0".to_owned()),
            ("--ip-masq", "true".to_owned()),
        ];
        let mut flags: Vec<(String, String)> =
            flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (name, value) in spec.agent_flags {
            set(&mut flags, name, value);
        }
        Self {
            place: spec.place.clone(),
            program: spec.binaries.agent.clone(),
            run_directory: directory.join("run"),
            log: directory.join("agent.log"),
            flags,
            child: Mutex::new(None),
        }
    }

    /// Its arguments after `weft agent`.
    pub fn arguments(&self) -> Vec<String> {
        self.arguments_with(&[])
    }

    /// The same, with some flags set otherwise: `("--net-conf", "/other")`.
    pub fn arguments_with(&self, flags: &[(&str, &str)]) -> Vec<String> {
        let mut all = self.flags.clone();
        for (name, value) in flags {
            set(&mut all, name, value);
        }
        all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// `weft VERB ...` with arguments of its own, in the node's network and cgroup.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.place.command(&self.program);
        command.arg(verb);
        command
    }

    /// Starts it; does nothing when it runs. Its log goes to `agent.log`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same, with some flags set otherwise.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with(&self, flags: &[(&str, &str)]) -> Result<()> {
        let mut child = self.child();
        if child.is_some() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.command("agent");
        command.args(self.arguments_with(flags)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *child = Some(command.spawn().with_context(|| format!("start {}", self.program.display()))?);
        Ok(())
    }

    /// Kills it with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.running()?;
        child.kill().context("kill the agent")?;
        child.wait().context("wait for the killed agent")?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// It is not running, does not end within 10 s, or exits with another code than 0.
    pub fn stop(&self) -> Result<()> {
        let mut child = self.running()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("PID")?);
        kill(pid, Signal::SIGTERM).context("SIGTERM to the agent")?;
        let (status, _) =
            eventually(secs(30), || child.try_wait()?.ok_or_else(|| anyhow!("the agent still runs after SIGTERM")))?;
        if !status.success() {
            bail!("the agent was asked to stop and ended with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Its process id: what starts it becomes it by exec.
    ///
    /// # Errors
    /// It is not running.
    pub fn id(&self) -> Result<u32> {
        self.child().as_ref().map(Child::id).ok_or_else(|| anyhow!("no agent runs on {}", self.place))
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It is not within `deadline`; with its log.
    pub fn wait_ready(&self, deadline: Duration) -> Result<Duration> {
        let (_, took) = eventually(deadline, || self.ready_with_peers(0)).with_context(|| self.failure_context())?;
        Ok(took)
    }

    /// What `weft status` says.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn status(&self) -> Result<NodeStatus> {
        self.ask("status", &[])
    }

    /// What `weft services` says.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn services(&self) -> Result<Vec<ServiceStatus>> {
        self.ask("services", &[])
    }

    /// What `weft trace --batch` says to each FROM and TO; findings are part of the answer.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn trace(&self, pairs: &[(String, String)]) -> Result<Vec<Trace>> {
        let mut command = Command::new(&self.program);
        command.args(["trace", "--batch", "-", "-o", "json", "--run-dir"]).arg(&self.run_directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let questions: String = pairs.iter().map(|(from, to)| format!("{from} {to}\n")).collect();
        child.stdin.take().context("stdin of weft trace")?.write_all(questions.as_bytes())?;
        let output = child.wait_with_output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("weft trace: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// Whether it is ready and has at least `peers` peers, all of them up.
    pub(crate) fn ready_with_peers(&self, peers: usize) -> Result<()> {
        if let Some(child) = self.child().as_mut()
            && let Some(status) = child.try_wait()?
        {
            bail!("the agent ended with {status}");
        }
        let status = self.status()?;
        let overlay = status.overlay.as_ref();
        let up = overlay.map_or(0, |overlay| overlay.peers_up());
        if !status.ready || up < peers {
            bail!("ready {}, {up} of {peers} peers up: {status:?}", status.ready);
        }
        Ok(())
    }

    pub(crate) fn failure_context(&self) -> String {
        format!("agent on {}; {} ends:\n{}", self.place, self.log.display(), self.log_tail())
    }

    fn ask<T: DeserializeOwned>(&self, verb: &str, arguments: &[&str]) -> Result<T> {
        let mut command = Command::new(&self.program);
        command.arg(verb).args(arguments).args(["-o", "json", "--run-dir"]).arg(&self.run_directory);
        let output = command.output().with_context(|| format!("start {command:?}"))?;
        if !output.status.success() {
            bail!("weft {verb}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("weft {verb}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    fn running(&self) -> Result<Child> {
        self.child().take().ok_or_else(|| anyhow!("no agent runs on {}", self.place))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        // The child is valid whatever a panicking holder did.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces or adds a flag; an agent refuses one that is given twice.
fn set(flags: &mut Vec<(String, String)>, name: &str, value: &str) {
    flags.retain(|(present, _)| present != name);
    flags.push((name.to_owned(), value.to_owned()));
}
