//! One command from beginning to end: what is read, what is written, with which exit code.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    process::ExitCode,
    time::Instant,
};

use serde_json::Value;

use crate::{
    add, check,
    config::{Config, Header},
    del,
    env::{self, Command, Environment},
    error::{Code, Error},
    gc, latency, status,
    version::{self, Version},
};

/// Runs the command the environment names, `CNI_COMMAND` and the others as `variable` gives them: one command, one
/// answer, one exit code (R1.1).
pub fn run(variable: &dyn Fn(&str) -> Option<String>, stdin: impl Read + AsFd, stdout: &mut impl Write) -> ExitCode {
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
    let started = Instant::now();
    let mut bytes = Vec::new();
    stdin
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(Code::Io, format!("error reading from stdin: {error}")))?;
    let header = Header::parse(&bytes, version)?;
    require_version(environment.command, *version)?;
    let config = Config::parse(header)?;
    match environment.command {
        Command::Add => {
            let added = add::add(environment, &config);
            latency::tell(&config.data_dir, started.elapsed(), added.is_ok());
            return Ok(Some(added?.to_json(*version)));
        }
        Command::Del => del::del(environment, &config)?,
        Command::Check => check::check(environment, &config)?,
        Command::Gc => gc::gc(environment, &config)?,
        Command::Status => status::status(environment, &config)?,
        Command::Version => unreachable!("answered above"),
    }
    Ok(None)
}

/// Refuses commands that the version of the configuration does not have (R2.2).
fn require_version(command: Command, version: Version) -> Result<(), Error> {
    let (name, since) = match command {
        Command::Check => ("CHECK", Version::V0_4_0),
        Command::Gc => ("GC", Version::V1_1_0),
        Command::Status => ("STATUS", Version::V1_1_0),
        Command::Add | Command::Del | Command::Version => return Ok(()),
    };
    if version >= since {
        return Ok(());
    }
    Err(Error::with_details(
        Code::IncompatibleVersion,
        format!("config version does not allow {name}"),
        format!("config is {:?}, {name} needs {:?}", version.as_str(), since.as_str()),
    ))
}
