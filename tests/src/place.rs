//! A place where processes run: a network namespace and a cgroup.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// Where a process of a node, a pod or the outside host runs.
#[derive(Clone, Debug)]
pub struct Place {
    label: String,
    netns: PathBuf,
    cgroup: PathBuf,
    testkit: PathBuf,
}

impl Place {
    pub(crate) fn new(label: String, netns: PathBuf, cgroup: PathBuf, testkit: PathBuf) -> Self {
        Self { label, netns, cgroup, testkit }
    }

    /// Name of the node or pod.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Path of the network namespace, below `/run/netns`.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Path of the cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Command line that puts a person here, for failure messages.
    pub fn enter_hint(&self) -> String {
        format!("nsenter --net={}", self.netns.display())
    }

    /// A command that starts here. It is started through `weft-testkit exec`, since the cgroup decides
    /// which socket programs apply and must be entered before the first socket exists.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.testkit);
        command.arg("exec").arg("--cgroup").arg(&self.cgroup).arg("--netns").arg(&self.netns).arg("--").arg(program);
        command
    }

    /// A command of the test kit itself, here.
    pub(crate) fn testkit(&self, arguments: &[String]) -> Command {
        let mut command = self.command(&self.testkit);
        command.args(arguments);
        command
    }

    /// Runs a program here and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started or fails; with its error output and the way in.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        self.output(command)
    }

    pub(crate) fn output(&self, mut command: Command) -> Result<String> {
        let output = command.output().with_context(|| format!("start {command:?}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        bail!("in {self}: {} ({})\n{text}{}", shown(&command), output.status, String::from_utf8_lossy(&output.stderr))
    }

    /// Starts a command of the test kit here and waits until it says that it is ready.
    pub(crate) fn background(&self, arguments: &[String]) -> Result<Background> {
        let mut command = self.testkit(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("stdout of the child")?;
        let mut background = Background {
            place: self.clone(),
            what: shown(&command),
            stdout: BufReader::new(stdout),
            child,
            kept: false,
        };
        let mut line = String::new();
        background.stdout.read_line(&mut line).context("read the ready line")?;
        if line.trim() == "ready" {
            return Ok(background);
        }
        Err(background.failure(&line))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.label, self.enter_hint())
    }
}

/// A process of the test kit that runs until it is finished or dropped (then it is killed).
#[derive(Debug)]
pub struct Background {
    place: Place,
    what: String,
    stdout: BufReader<ChildStdout>,
    child: Child,
    kept: bool,
}

impl Background {
    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes its standard input, which asks it to finish, and reads the report it prints.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn finish<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).context("read the report")?;
        serde_json::from_str(&text).map_err(|_| self.failure(&text))
    }

    /// Its standard input, and a second handle of its standard output, for who talks with it from several threads.
    pub(crate) fn pipes(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        let stdin = self.child.stdin.take().context("stdin of the child")?;
        let stdout = self.stdout.get_ref().as_fd().try_clone_to_owned().context("stdout of the child")?;
        Ok((stdin, stdout.into()))
    }

    /// The next line it prints, as JSON.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read a line")?;
        serde_json::from_str(&line).map_err(|_| self.failure(&line))
    }

    /// Lets it run on, until its run is removed.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    fn failure(&mut self, stdout: &str) -> anyhow::Error {
        let _ = self.child.kill();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        anyhow::anyhow!("in {}: {}: {stdout}{stderr}", self.place, self.what)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Gone already is fine; the janitor's cgroup.kill is the second line.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command as a person would type it inside the place.
fn shown(command: &Command) -> String {
    let words: Vec<_> =
        command.get_args().skip_while(|word| *word != "--").skip(1).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
