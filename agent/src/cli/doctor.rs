//! Flags of `weft doctor` and of `weft cleanup`.

use std::path::PathBuf;

use clap::Args;

use super::{AgentArgs, KubeArgs, Output, PathArgs};

/// Flags of `weft doctor`: those of the agent that say where things are.
#[derive(Args, Debug, Clone)]
pub(crate) struct DoctorArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Output,

    /// Name of this node; default: the running agent's, else $NODE_NAME, else the host's name.
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,

    /// cgroup2 directory the socket programs attach to; default: the mounted cgroup2 root.
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,

    /// BPF file system.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: PathBuf,

    #[command(flatten)]
    pub(crate) kube: KubeArgs,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
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
}
