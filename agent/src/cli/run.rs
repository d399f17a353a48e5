//! Flags of `weft agent` that say what to do instead of running.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::AgentArgs;

/// Flags of `weft agent`.
#[derive(Args, Debug, Clone)]
pub(crate) struct RunArgs {
    // First, since reading the others takes their values away.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) instead: InsteadArgs,
}

/// What to do instead of running.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Instead of running")]
pub(crate) struct InsteadArgs {
    /// Check the configuration, print it with where each value comes from, and end.
    #[arg(long)]
    pub(crate) print_config: bool,

    /// How to print it.
    #[arg(short, long, value_name = "yaml|json", default_value = "yaml")]
    pub(crate) output: ConfigFormat,

    /// Write the effective KubeProxyConfiguration to a file, and end.
    #[arg(long, value_name = "FILE")]
    pub(crate) write_config_to: Option<PathBuf>,

    /// The same as `weft cleanup`.
    #[arg(long)]
    pub(crate) cleanup: bool,

    /// Set the kernel parameters of connection tracking, and end: for an init container with more privileges than the agent.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) init_only: bool,
}

/// How `--print-config` prints.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigFormat {
    /// With comments.
    Yaml,
    /// For programs.
    Json,
}
