//! `weft agent` and `weft cleanup` as an operator meets them: the configuration, its mistakes, exit codes.

use std::{fmt::Display, fs, process::ExitCode};

use anyhow::Context;
use tokio::runtime::Runtime;
use tracing::{debug, warn};

use crate::{
    app, causes,
    cli::{AgentArgs, RunArgs},
    commands::{self, print_config},
    config::Config,
    conntrack_parameters, log,
    privileges::{self, Capability},
    removal,
};

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;

/// `weft agent`: runs until SIGTERM or SIGINT, unless it is asked for something else.
pub(crate) fn agent(args: &RunArgs) -> ExitCode {
    let RunArgs { agent, instead } = args;
    if instead.cleanup {
        return cleanup(agent);
    }
    let Some(config) = checked(agent, "agent") else { return ExitCode::from(EXIT_USAGE) };
    if instead.print_config {
        return commands::write_out(&print_config::print(&config, &agent.given, instead.output));
    }
    if let Some(path) = &instead.write_config_to {
        let written = fs::write(path, format!("{:#}\n", config.settings.document()));
        return exit_code("agent", written.with_context(|| format!("write {}", path.display())));
    }
    let log_filter = log::start(&config.log);
    for notice in &config.notices {
        warn!("{notice}");
    }
    if instead.init_only {
        return exit_code("agent", initialize(&config));
    }
    set_oom_score(config.oom_score_adj);
    let needed = privileges::needed(config.components, config.proxy.mode);
    privileged("agent", &needed, |runtime| runtime.block_on(app::run(config, agent.clone(), log_filter)))
}

/// `weft cleanup`: removes everything of ours from the node.
pub(crate) fn cleanup(args: &AgentArgs) -> ExitCode {
    let Some(config) = checked(args, "cleanup") else { return ExitCode::from(EXIT_USAGE) };
    privileged("cleanup", &[Capability::NetAdmin], |runtime| runtime.block_on(removal::remove_everything(config)))
}

/// The configuration; `None` after all mistakes in it are told.
fn checked(args: &AgentArgs, command: &str) -> Option<Config> {
    Config::load(args).map_err(|mistakes| complain(command, &mistakes)).ok()
}

/// `--init-only`: what an agent with few privileges may not be able to write (kube-proxy.md 10.10).
fn initialize(config: &Config) -> anyhow::Result<()> {
    let failed = conntrack_parameters::apply(&config.proxy.conntrack).into_iter().filter_map(|parameter| {
        let why = parameter.error?;
        Some(format!("{} = {}: {why}", parameter.name, parameter.value))
    });
    let failed: Vec<String> = failed.collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Checks privileges before anything on the node is touched, then does `work`.
fn privileged(command: &str, needed: &[Capability], work: impl FnOnce(&Runtime) -> anyhow::Result<()>) -> ExitCode {
    let missing = privileges::missing(needed);
    if !missing.is_empty() {
        complain(command, &missing);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    exit_code(command, runtime.context("start the runtime").and_then(|runtime| work(&runtime)))
}

fn exit_code(command: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(command, &[causes::explained(error.as_ref())]);
            ExitCode::FAILURE
        }
    }
}

fn complain(command: &str, problems: &[impl Display]) {
    for problem in problems {
        eprintln!("weft {command}: {problem}");
    }
}

/// Tells the kernel how unlike it is to end the agent when memory is short. Needs a privilege to be lowered; kube-proxy
/// ignores a failure too (14.9).
fn set_oom_score(adjustment: i64) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", adjustment.to_string()) {
        debug!(%error, adjustment, "oom_score_adj stays as it is");
    }
}
