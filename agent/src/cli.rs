//! The command line: names, defaults and help texts. Values are checked in `config`, all together.

mod doctor;
mod given;
mod pod_network;
mod services;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use doctor::{CleanupArgs, DoctorArgs};
pub(crate) use given::{DEPRECATED, Given, GivenBy, GivenFlag, REFUSED, SERVERS_AND_LOG, WITHOUT_EFFECT};
pub(crate) use pod_network::{LeaseArgs, OverlayArgs};
pub(crate) use services::{ConntrackArgs, MapSizeArgs, ProxyArgs};

/// Reads the command line; ends the program with code 2 if it is wrong, with 0 after `--help` and `--version`.
pub(crate) fn parse() -> Cli {
    let arguments = std::env::args_os().map(|argument| match argument.into_string() {
        Ok(text) => given::spelled_out(text).into(),
        Err(argument) => argument,
    });
    let matches = command().get_matches_from(arguments);
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The whole command line.
pub(crate) fn command() -> clap::Command {
    ["agent", "cleanup"].into_iter().fold(Cli::command(), |command, verb| command.mut_subcommand(verb, given::as_in_go))
}

/// Weft: pod network and Service load balancing of a Kubernetes node, in one agent.
#[derive(Parser, Debug)]
#[command(name = "weft", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the node agent (what the DaemonSet or the systemd unit starts).
    ///
    /// The data plane outlives the agent: stopping, killing or upgrading it leaves all traffic working.
    /// Exit codes: 0 asked to stop; 2 bad usage or configuration (all mistakes listed); 1 anything else.
    Agent(Box<AgentArgs>),
    /// Show what the agent on this node does: subnet, peers, data plane, sync state.
    Status(QueryArgs),
    /// Show Services with their frontends, endpoints and how many connections each endpoint got.
    Services(ServicesArgs),
    /// Look for what keeps Weft from working on this node, before it is installed or in trouble, and say what to do.
    ///
    /// Changes nothing; sends some packets to each other node. Exit code 1 when there is a problem.
    Doctor(Box<DoctorArgs>),
    /// Remove everything Weft put on this node. Pod traffic and Services stop working.
    ///
    /// With --legacy, remove what flannel and kube-proxy left instead.
    Cleanup(Box<CleanupArgs>),
    /// Print the version.
    Version(VersionArgs),
    /// Print the completion script of a shell: `source <(weft completion bash)`.
    Completion {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// Flags of `weft agent`. Those shared with kube-proxy and flanneld keep their names and meaning.
#[derive(Args, Debug, Clone)]
pub(crate) struct AgentArgs {
    // First, since reading the others takes their values away.
    #[command(flatten)]
    pub(crate) given: Given,
    #[command(flatten)]
    pub(crate) instead: InsteadArgs,

    /// Parts to run, a comma list of overlay, proxy, cni.
    #[arg(long, value_name = "LIST", default_value = "overlay,proxy,cni")]
    pub(crate) components: String,

    /// Where Services, EndpointSlices and the Node come from: `kube`, or `dir:PATH` with Kubernetes YAML or JSON
    /// manifests (many documents a file), watched.
    #[arg(long, value_name = "SOURCE", default_value = "kube")]
    pub(crate) source: String,

    /// Name of this node; default: hostnameOverride of the configuration file, else $NODE_NAME, else the host's name.
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,

    #[command(flatten)]
    pub(crate) kube: KubeArgs,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    #[command(flatten)]
    pub(crate) map_sizes: MapSizeArgs,
    #[command(flatten)]
    pub(crate) conntrack: ConntrackArgs,
    #[command(flatten)]
    pub(crate) overlay: OverlayArgs,
    #[command(flatten)]
    pub(crate) leases: LeaseArgs,
    #[command(flatten)]
    pub(crate) paths: PathArgs,
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
}

/// How `--print-config` prints.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigFormat {
    /// With comments.
    Yaml,
    /// For programs.
    Json,
}

/// Flags of `weft version`.
#[derive(Args, Debug, Clone)]
pub(crate) struct VersionArgs {
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// How to reach the API server.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Kubernetes API")]
pub(crate) struct KubeArgs {
    /// kubeconfig file; default: clientConnection.kubeconfig of the configuration file, else the in-cluster configuration.
    #[arg(long, value_name = "FILE", alias = "kubeconfig-file")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// URL of the API server; overrides the one in the kubeconfig file.
    #[arg(long, value_name = "URL", alias = "kube-api-url")]
    pub(crate) master: Option<String>,

    /// Believe the API server also when a list has lost more than half of all Services, EndpointSlices or Nodes at once, as
    /// after a restored backup. Without it those are kept, with a warning, until they are back or deleted one by one.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) trust_empty_lists: bool,
}

/// Paths; each can be moved, so that several agents run on one machine in different network namespaces.
#[derive(Args, Debug, Clone, PartialEq, Eq)]
#[command(next_help_heading = "Paths")]
pub(crate) struct PathArgs {
    /// Holds the agent's socket.
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    pub(crate) run_dir: PathBuf,

    /// Holds what must survive a reboot: pod address reservations.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    pub(crate) state_dir: PathBuf,

    /// Where the node's subnet is written for CNI plugins, in flannel's format.
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub(crate) subnet_file: PathBuf,

    /// Where the runtime looks for CNI configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,

    /// Where the runtime looks for CNI plugins; `weft-cni` is installed there when it lies beside `weft`.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(crate) cni_bin_dir: PathBuf,
}

/// Output format of the query commands.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Output {
    /// Tables for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Flags of the commands that ask a running agent.
#[derive(Args, Debug, Clone)]
pub(crate) struct QueryArgs {
    /// The agent's --run-dir.
    #[arg(long, value_name = "DIR", default_value = "/run/weft")]
    pub(crate) run_dir: PathBuf,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Flags of `weft services`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServicesArgs {
    /// Only this Service.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(crate) service: Option<String>,

    #[command(flatten)]
    pub(crate) query: QueryArgs,
}
