//! The operator's commands: they ask the running agent and print what it says.

mod cleanup;
mod client;
mod doctor;
mod peers;
mod pods;
mod print;
pub(crate) mod print_config;
mod programs;
mod table;
mod trace;

use std::process::ExitCode;

pub(crate) use peers::peers;
pub(crate) use pods::pods;
use serde::Serialize;
pub(crate) use trace::trace;

use crate::{
    cli::{self, Output, QueryArgs, ServicesArgs, VersionArgs},
    status::{ServiceStatus, Status},
    trace::is_name,
};

/// `weft status`. Exit code 1 when the agent cannot be asked.
pub(crate) fn status(args: &QueryArgs) -> ExitCode {
    let answer = client::get::<Status>(&args.run_dir, "/status").map_err(|error| error.to_string());
    finish(args.output, answer, print::status)
}

/// `weft services [NAMESPACE/NAME]`. Exit code 1 also when the named Service is not there.
pub(crate) fn services(args: &ServicesArgs) -> ExitCode {
    let path = match &args.service {
        Some(name) if !is_name(name) => {
            eprintln!("weft services: {name:?}: a Service is named NAMESPACE/NAME, for example default/web");
            return ExitCode::from(2);
        }
        Some(name) => format!("/services?service={name}"),
        None => "/services".to_owned(),
    };
    let found = client::get::<Vec<ServiceStatus>>(&args.query.run_dir, &path).map_err(|error| error.to_string());
    match (&args.service, args.query.output) {
        (Some(name), output) if found.as_ref().is_ok_and(Vec::is_empty) => {
            eprintln!("weft: Service {name} is not known here (or has no port that Weft serves)");
            if output == Output::Json {
                write_out("[]\n");
            }
            ExitCode::FAILURE
        }
        (_, output) => finish(output, found, |services| print::services(services)),
    }
}

pub(crate) use cleanup::main as cleanup_legacy;
pub(crate) use doctor::main as doctor;

/// `weft version`.
pub(crate) fn version(args: &VersionArgs) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Output::Table => write_out(&format!("weft {version}\n")),
        Output::Json => write_out(&format!("{:#}\n", serde_json::json!({ "version": version }))),
    }
}

/// `weft completion SHELL`.
pub(crate) fn completion(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "weft", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}

/// Prints what was found out, or why it was not: exit code 1 then.
pub(super) fn finish<T: Serialize>(
    output: Output,
    found: Result<T, String>,
    table: impl FnOnce(&T) -> String,
) -> ExitCode {
    say(found.and_then(|found| match output {
        Output::Json => serde_json::to_string_pretty(&found).map(|json| json + "\n").map_err(|error| error.to_string()),
        Output::Table => Ok(table(&found)),
    }))
}

fn say(text: Result<String, String>) -> ExitCode {
    match text {
        Ok(text) => write_out(&text),
        Err(problem) => {
            eprintln!("weft: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that went away (`weft services | head`) is no failure.
pub(crate) fn write_out(text: &str) -> ExitCode {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("weft: standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
