//! Calling another plugin, which the configuration names as `ipam.type` (A5, R4.2).

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{self, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::normalise,
    env::is_identifier,
    error::{Code, Error},
};

/// A plugin beside us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delegate<'a> {
    /// Its `type`.
    pub(crate) name: &'a str,
    /// `CNI_PATH`: where plugins are.
    pub(crate) path: &'a str,
    /// The configuration, complete as it came.
    pub(crate) stdin: &'a [u8],
}

/// An error as plugins print it. Old ones leave out what they do not know.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    code: u32,
    msg: String,
    details: String,
}

impl Delegate<'_> {
    /// Runs a command that has no answer.
    pub(crate) fn run(&self, command: &str) -> Result<(), Error> {
        self.execute(command).map(drop)
    }

    /// Runs a command and reads its answer; keys in lower case, nulls left out.
    pub(crate) fn ask(&self, command: &str) -> Result<Value, Error> {
        let answer = self.execute(command)?;
        let value = serde_json::from_slice(&answer).map_err(|error| {
            Error::with_details(
                Code::Decode,
                format!("cannot read what IPAM plugin {:?} answered to {command}: {error}", self.name),
                String::from_utf8_lossy(&answer),
            )
        })?;
        Ok(normalise(value))
    }

    /// The executable, if there is one.
    pub(crate) fn find(&self) -> Result<PathBuf, Error> {
        if !is_identifier(self.name) {
            return Err(Error::with_details(Code::InvalidConfig, "invalid characters in ipam.type", self.name));
        }
        let directories = self.path.split(':').filter(|directory| !directory.is_empty());
        directories.map(|directory| Path::new(directory).join(self.name)).find(|path| path.is_file()).ok_or_else(|| {
            Error::new(Code::Delegate, format!("failed to find IPAM plugin {:?} in CNI_PATH {}", self.name, self.path))
        })
    }

    /// Runs it in our environment but for the command. Its standard error is ours.
    fn execute(&self, command: &str) -> Result<Vec<u8>, Error> {
        let path = self.find()?;
        let failed = |error| Error::new(Code::Io, format!("run {}: {error}", path.display()));
        let mut child = process::Command::new(&path)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // One that fails early does not read; what it says is worth more than the broken pipe.
        let _ = child.stdin.take().expect("it was asked for above").write_all(self.stdin);
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(command, &output)) }
    }

    fn failure(&self, command: &str, output: &process::Output) -> Error {
        let reported = serde_json::from_slice::<Failure>(&output.stdout).unwrap_or_default();
        if reported.code == 0 {
            return Error::with_details(
                Code::Delegate,
                format!("IPAM plugin {:?} failed at {command} without a reason: {}", self.name, output.status),
                String::from_utf8_lossy(&output.stdout).trim(),
            );
        }
        Error::with_details(Code::OfDelegate(reported.code), reported.msg, reported.details)
    }
}
