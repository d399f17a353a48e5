//! One command from beginning to end: what is read, what is written, with which exit code.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use serde_json::Value;

use crate::{
    add,
    config::{Config, Header},
    del,
    env::{self, Command, Environment},
    error::{Code, Error},
    version::{self, Version},
};

/// Runs the command the environment names.
pub(crate) fn run(
    variable: &dyn Fn(&str) -> Option<String>,
    stdin: impl Read + AsFd,
    stdout: &mut impl Write,
) -> ExitCode {
    let mut version = Version::LATEST;
    let outcome = match env::read(variable) {
        Ok(None) => {
            introduce();
            return ExitCode::SUCCESS;
        }
        Ok(Some(environment)) => execute(&environment, stdin, &mut version),
        Err(error) => Err(error),
    };
    let (answer, exit) = match outcome {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (Some(error.to_json(version)), ExitCode::FAILURE),
    };
    match answer.map(|answer| writeln!(stdout, "{answer}").and_then(|()| stdout.flush())) {
        None | Some(Ok(())) => exit,
        // The runtime is gone; its successor will DEL.
        Some(Err(_)) => ExitCode::FAILURE,
    }
}

/// For whoever runs the plugin by hand (R1.5).
fn introduce() {
    eprintln!("CNI weft-cni plugin v{}", env!("CARGO_PKG_VERSION"));
    eprintln!("CNI protocol versions supported: {}", Version::ALL.map(Version::as_str).join(", "));
}

fn execute(
    environment: &Environment,
    mut stdin: impl Read + AsFd,
    version: &mut Version,
) -> Result<Option<Value>, Error> {
    if environment.command == Command::Version {
        return Ok(Some(version::answer(stdin)));
    }
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("error reading from stdin: {error}")))?;
    let header = Header::parse(&bytes, version)?;
    match environment.command {
        Command::Add => {
            let result = add::add(environment, &Config::parse(header)?)?;
            Ok(Some(result.to_json(*version)))
        }
        Command::Del => del::del(environment, &Config::parse(header)?).map(|()| None),
        Command::Check => not_yet("CHECK", *version, Version::V0_4_0),
        Command::Gc => not_yet("GC", *version, Version::V1_1_0),
        Command::Status => not_yet("STATUS", *version, Version::V1_1_0),
        Command::Version => unreachable!("answered above"),
    }
}

/// A command without an implementation fails: a success would be a lie about the state of the node.
fn not_yet(command: &str, version: Version, since: Version) -> Result<Option<Value>, Error> {
    if version < since {
        // R2.2
        return Err(Error::with_details(
            Code::IncompatibleVersion,
            format!("config version does not allow {command}"),
            format!("config is {:?}, {command} needs {:?}", version.as_str(), since.as_str()),
        ));
    }
    Err(Error::new(
        Code::NotImplemented,
        format!("{command} is not implemented by weft-cni {}", env!("CARGO_PKG_VERSION")),
    ))
}
