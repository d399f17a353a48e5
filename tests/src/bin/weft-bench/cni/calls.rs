//! Starting programs as a runtime does, with a clock.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::pod::Pod;

/// A program's answer, and how long it took from before its start until after its end.
pub(super) struct Answer {
    pub(super) took: Duration,
    pub(super) stdout: Vec<u8>,
}

/// Runs a program in the namespace of the calling thread.
pub(super) fn run(command: &mut Command, stdin: &[u8]) -> Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that fails before it reads says so below.
        let _ = pipe.write_all(stdin);
    }
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    if output.status.success() {
        return Ok(Answer { took, stdout: output.stdout });
    }
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    bail!("{command:?}: {}: {}", output.status, said.concat().trim())
}

/// One command of one plugin for `eth0` of a pod.
pub(super) fn plugin(mut program: Command, verb: &str, pod: &Pod, configuration: &Value) -> Result<Answer> {
    program
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", format!("bench-{}", pod.number))
        .env("CNI_NETNS", &pod.path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default")
        .env("CNI_PATH", super::lane::DEBIAN);
    run(&mut program, configuration.to_string().as_bytes()).with_context(|| verb.to_owned())
}

/// Counts the programs that a program becomes or starts.
pub(super) struct Tracer(PathBuf);

impl Tracer {
    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join("execs"))
    }

    /// The program, under strace.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-A", "-e", "trace=execve", "-o"]).arg(&self.0).arg(program);
        strace
    }

    /// How many there were, of all the commands so far.
    pub(super) fn execs(&self) -> Result<usize> {
        let trace = fs::read_to_string(&self.0).with_context(|| format!("read {}", self.0.display()))?;
        Ok(trace.lines().filter(|line| line.ends_with("= 0")).count())
    }
}
