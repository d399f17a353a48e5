//! Running one command as a visible step.

use std::{
    env,
    ffi::OsStr,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that runs at the top of the workspace.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Says what is done, does it with its output shown, and says how long it took.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", shown(command));
    }
    eprintln!("    done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// What a command prints; `None` if it fails or does not exist.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes another program, so that signals and the exit code are its own; as root by sudo if we are not.
pub(crate) fn become_root(program: &OsStr, arguments: &[String]) -> Result<()> {
    let mut command = if is_root() {
        Command::new(program)
    } else if has_sudo() {
        eprintln!("==> network namespaces need root: going on through sudo");
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    } else {
        bail!("network namespaces need root, and there is no sudo: run this as root");
    };
    Err(command.args(arguments).exec()).with_context(|| format!("run {}", program.display()))
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}

/// Whether sudo is installed.
pub(crate) fn has_sudo() -> bool {
    output(Command::new("sudo").arg("--version")).is_some()
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.join(OsStr::new(" ")).to_string_lossy().into_owned()
}
