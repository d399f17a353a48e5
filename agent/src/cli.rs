//! The command line: names, defaults and help texts. Values are checked in `config`, all together.

mod doctor;
mod given;
mod pod_network;
mod run;
mod services;

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use doctor::{CleanupArgs, DoctorArgs};
use given::spelled_out;
pub(crate) use given::{DEPRECATED, Given, GivenBy, GivenFlag, REFUSED, SERVERS_AND_LOG, WITHOUT_EFFECT};
pub(crate) use pod_network::{LeaseArgs, OverlayArgs};
pub(crate) use run::{ConfigFormat, RunArgs};
pub(crate) use services::{ConntrackArgs, MapSizeArgs, ProxyArgs};

/// Reads the command line; ends the program with code 2 if it is wrong, with 0 after `--help` and `--version`.
pub(crate) fn parse() -> Cli {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads these words, the first of which is the program, as Go's programs would.
///
/// # Errors
/// What is to be printed instead, and the exit code.
pub(crate) fn parse_from(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words =
        words.into_iter().map(|word| word.into_string().map_or_else(|word| word, |text| spelled_out(text).into()));
    let words = words.filter(|word| !given::is_no_file(word));
    Cli::from_arg_matches(&command().try_get_matches_from(words)?)
}

/// The whole command line.
pub(crate) fn command() -> clap::Command {
    ["agent", "cleanup", "doctor"]
        .into_iter()
        .fold(Cli::command(), |command, verb| command.mut_subcommand(verb, given::as_in_go))
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
    Agent(Box<RunArgs>),
    /// Show what the agent on this node does: subnet, peers, data plane, sync state.
    ///
    /// Exit codes: 0 the agent says it, ready or not; 1 no agent answers.
    Status(QueryArgs),
    /// Show Services with their frontends, endpoints and how many connections each endpoint got.
    ///
    /// Exit codes: 0 here they are; 1 there is no such Service, or no agent answers; 2 bad usage.
    Services(ServicesArgs),
    /// Tell what becomes of a connection, by the kernel as it is now, and where that is not the plan
    ///
    /// FROM opens the connection, TO is asked. The answer says which Service port and frontend that is,
    /// which rule of the traffic policy applies, who may answer and who is next, whether the socket
    /// programs or the packet path decide, what is masqueraded, and the way there: route, device,
    /// neighbour, peer. All of it is read from the kernel: BPF maps, nftables elements or iptables
    /// rules, routes, neighbours and forwarding entries. Nothing is sent and nothing is changed.
    ///
    /// What differs from the plan is listed as a finding. An answer with findings is asked for again
    /// for a third of a second, for plan and kernel may be looked at while they change.
    ///
    /// Connections are traced as they are seen on this node. For a pod of another node ask there.
    ///
    /// Exit codes: 0 no findings; 1 findings, or nobody to be asked; 2 bad usage.
    ///
    /// Examples:
    ///   weft trace default/client default/web:http
    ///   weft trace node 10.96.0.10:53/udp
    ///   weft trace 203.0.113.9 192.0.2.1:30080
    ///   weft trace 10.244.1.7 10.244.2.3
    #[command(verbatim_doc_comment)]
    Trace(TraceArgs),
    /// Show the other nodes: pod subnet, address, VTEP, whether their entries are in the kernel, and what is wrong if not.
    ///
    /// Exit codes: 0 all are up; 1 one is not, or no agent answers.
    Peers(QueryArgs),
    /// Show the pods of this node as weft-cni made them: addresses, interface, host ports. Needs no running agent.
    ///
    /// Reads the reservations below --state-dir, and the interfaces and host ports of the network namespace it runs in.
    /// Names are known of pods whose runtime told them to the plugin, as Kubernetes does; those are shown as
    /// NAMESPACE/NAME. Pods of other plugins have no interface of their own here.
    Pods(PodsArgs),
    /// Look for what keeps Weft from working on this node, before it is installed or in trouble, and say what to do.
    ///
    /// Give it the agent's flags, all of which it takes: then it looks at those addresses and files, and checks them as the
    /// agent does. Changes nothing; sends some packets to each other node. Exit code 1 when there is a problem.
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

/// What the agent is to do and how. Flags shared with kube-proxy and flanneld keep their names and meaning.
#[derive(Args, Debug, Clone)]
pub(crate) struct AgentArgs {
    // First, since reading the others takes their values away.
    #[command(flatten)]
    pub(crate) given: Given,

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
    /// Holds the agent's socket, and how many objects there were (`known-*`), by which a restarted agent doubts an emptied list.
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

/// Flags of `weft trace`.
#[derive(Args, Debug, Clone)]
pub(crate) struct TraceArgs {
    /// Who opens the connection: a pod of this node (NAMESPACE/NAME or its IP), `node` (any process in the host's network),
    /// or the IP of somebody outside.
    #[arg(value_name = "FROM", required_unless_present = "batch")]
    pub(crate) from: Option<String>,

    /// To whom: a Service (`NAMESPACE/NAME[:PORT]`, by name or number, at its ClusterIP), IP:PORT, or a pod of this node.
    /// `/udp` or `/sctp` may follow a port. Without a port of an IP or pod only the way there is traced.
    #[arg(value_name = "TO[:PORT[/PROTOCOL]]", required_unless_present = "batch")]
    pub(crate) to: Option<String>,

    /// Trace many connections at once: a file with `FROM TO` in each line, `-` for standard input. Empty lines and lines that
    /// begin with # are passed over.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    pub(crate) batch: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) query: QueryArgs,
}

/// Flags of `weft pods`.
#[derive(Args, Debug, Clone)]
pub(crate) struct PodsArgs {
    /// The agent's --state-dir.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/weft")]
    pub(crate) state_dir: PathBuf,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Output,
}
