//! Flags of `weft doctor` and of `weft cleanup`: those of the agent, and some of their own.

use clap::Args;

use super::{AgentArgs, Output};

/// Flags of `weft doctor`.
#[derive(Args, Debug, Clone)]
pub(crate) struct DoctorArgs {
    // First, since reading the others takes their values away.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, help_heading = None::<&str>)]
    pub(crate) output: Output,
}

/// Flags of `weft cleanup`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CleanupArgs {
    // First, since reading the others takes their values away.
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) legacy: LegacyArgs,
}

/// Flags of `weft cleanup --legacy`.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Instead of what is Weft's")]
pub(crate) struct LegacyArgs {
    /// Remove what flannel and kube-proxy left on this node. What Weft has taken over stays.
    #[arg(long)]
    pub(crate) legacy: bool,

    /// With --legacy: only list what would be removed.
    #[arg(long, requires = "legacy")]
    pub(crate) dry_run: bool,

    /// With --legacy: also while flannel or kube-proxy run here, or pods are attached to cni0, which lose their network.
    #[arg(long, requires = "legacy")]
    pub(crate) force: bool,

    /// With --legacy: how to print what was removed.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, requires = "legacy")]
    pub(crate) output: Output,
}
