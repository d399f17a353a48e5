//! Runs `nft` and `iptables` in the network namespace of the calling thread.

use std::{
    env,
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// A packet filter program could not do its work. Retry: another program may hold the ruleset, or it may be installed later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// There is no program for it.
    #[error("{what} needs {program}, which is not installed")]
    Missing {
        /// What is to be done.
        what: &'static str,
        /// What is missing.
        program: &'static str,
    },
    /// It could not be run.
    #[error("run {program}: {source}")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("{program} {doing}: {message}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it was to do.
        doing: &'static str,
        /// What it said.
        message: String,
    },
}

/// What a program answered.
pub(super) struct Answer {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Answer {
    /// Its standard output, if it succeeded.
    pub(super) fn expect(self, program: &'static str, doing: &'static str) -> Result<String, FilterError> {
        if self.success {
            return Ok(self.stdout);
        }
        Err(FilterError::Refused { program, doing, message: self.stderr.trim().to_owned() })
    }
}

/// Whether the program is on the search path.
pub(super) fn is_installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Runs a program with `input` on its standard input.
pub(super) fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<Answer, FilterError> {
    let run = || {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A ruleset of ours is smaller than a pipe, so writing all of it before reading cannot block.
        let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output()?;
        match written {
            // It ended without reading: what it said matters more.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(Answer {
                success: output.status.success(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    };
    run().map_err(|source| FilterError::Run { program, source })
}
