//! The command line: names, defaults and help texts. Values are checked in `config`, all together.

mod given;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use given::{DEPRECATED, Given, GivenBy, GivenFlag, REFUSED, SERVERS_AND_LOG, WITHOUT_EFFECT};

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
    /// Remove everything Weft put on this node. Pod traffic and Services stop working.
    Cleanup(Box<AgentArgs>),
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

/// Services.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Services (kube-proxy's flags)")]
pub(crate) struct ProxyArgs {
    /// KubeProxyConfiguration v1alpha1 file, as kubeadm writes it.
    #[arg(long, value_name = "FILE", alias = "config")]
    pub(crate) kube_proxy_config: Option<PathBuf>,

    /// Data plane: ebpf, nftables or iptables. Empty: the first of them that the node can have.
    #[arg(long, value_name = "MODE")]
    pub(crate) proxy_mode: Option<String>,

    /// Addresses NodePorts are accepted at: a comma list of CIDRs, or `primary`, the Node's own addresses; default: all
    /// addresses of the node.
    #[arg(long, value_name = "CIDRS")]
    pub(crate) nodeport_addresses: Option<String>,

    /// Network of the pods, one CIDR or one of each family: sources in it count as local traffic.
    #[arg(long, value_name = "CIDRS")]
    pub(crate) cluster_cidr: Option<String>,

    /// How local traffic is told: ClusterCIDR (default), NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, value_name = "MODE")]
    pub(crate) detect_local_mode: Option<String>,

    /// The pods' bridge, for --detect-local-mode=BridgeInterface.
    #[arg(long, value_name = "NAME")]
    pub(crate) pod_bridge_interface: Option<String>,

    /// What the names of the pods' interfaces start with, for --detect-local-mode=InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) pod_interface_name_prefix: Option<String>,

    /// Masquerade all packets sent to a ClusterIP.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) masquerade_all: Option<bool>,

    /// Bit of the packet mark that asks for masquerading, 0 to 31; default: 14.
    #[arg(long, value_name = "BIT")]
    pub(crate) iptables_masquerade_bit: Option<u64>,

    /// Serve NodePorts at 127.0.0.1 in ebpf and iptables mode; default: true.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) iptables_localhost_nodeports: Option<bool>,

    /// Remove the rules of a kube-proxy that ran on this node, once ours carry all Services. In iptables mode, which has the
    /// same chains, they are replaced at one stroke; without this flag that mode waits until they are gone.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) take_over_kube_proxy: bool,

    /// In ebpf mode: serve ClusterIPs also to packets that no socket of this node made (virtual machines, gVisor).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) ebpf_second_line: bool,

    /// cgroup2 directory the socket programs attach to; default: the mounted cgroup2 root.
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,

    /// BPF file system; pins are kept in `weft/v<ABI>` below it.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: PathBuf,
}

/// Room in the maps of the ebpf mode, in elements. Changing one makes its maps anew; no connection fails.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Sizes of BPF maps")]
pub(crate) struct MapSizeArgs {
    /// Addresses and NodePorts of Services, in each family.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_frontends: Option<u32>,

    /// Endpoints of all Service ports, in each family, with room to change them.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_backends: Option<u32>,

    /// Service ports, each counted once or twice.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_sets: Option<u32>,

    /// Endpoints whose connections are counted.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_endpoints: Option<u32>,

    /// Clients with session affinity; the oldest is forgotten for a new one.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_affinity: Option<u32>,

    /// Sockets that send datagrams to Services without connect; the oldest is forgotten for a new one.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_udp_flows: Option<u32>,
}

/// Kernel parameters of conntrack, written at start; 0 leaves one alone.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection tracking (kube-proxy's flags)")]
pub(crate) struct ConntrackArgs {
    /// Connections for each CPU; default: 32768.
    #[arg(long, value_name = "N")]
    pub(crate) conntrack_max_per_core: Option<u32>,

    /// Connections at least, however few CPUs there are; default: 131072.
    #[arg(long, value_name = "N")]
    pub(crate) conntrack_min: Option<u32>,

    /// Life of an idle TCP connection, such as 24h0m0s; default: 24h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) conntrack_tcp_timeout_established: Option<String>,

    /// Life of a TCP connection in CLOSE_WAIT; default: 1h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) conntrack_tcp_timeout_close_wait: Option<String>,

    /// Track TCP segments outside the window; default: leave it as it is.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) conntrack_tcp_be_liberal: Option<bool>,

    /// Life of a UDP flow without an answer; default: leave it as it is.
    #[arg(long, value_name = "DURATION")]
    pub(crate) conntrack_udp_timeout: Option<String>,

    /// Life of a UDP flow with an answer; default: leave it as it is.
    #[arg(long, value_name = "DURATION")]
    pub(crate) conntrack_udp_timeout_stream: Option<String>,
}

/// Pod network.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Pod network (flannel's flags)")]
pub(crate) struct OverlayArgs {
    /// flannel's network configuration; default: /etc/kube-flannel/net-conf.json, with --subnet-manager=etcd the key
    /// `config` there.
    #[arg(long, value_name = "FILE", alias = "net-config-path")]
    pub(crate) net_conf: Option<PathBuf>,

    /// External interface, by name or address; repeatable, the first that exists is taken; default: the one of the
    /// default route.
    #[arg(long, value_name = "NAME|IP")]
    pub(crate) iface: Vec<String>,

    /// Regular expression for the external interface's address or name; repeatable, tried after --iface.
    #[arg(long, value_name = "REGEX")]
    pub(crate) iface_regex: Vec<String>,

    /// External interface: the one this address is reached by; tried after --iface and --iface-regex.
    #[arg(long, value_name = "IP")]
    pub(crate) iface_can_reach: Option<String>,

    /// IPv4 address the other nodes reach this one at; default: the external interface's.
    #[arg(long, value_name = "IP")]
    pub(crate) public_ip: Option<String>,

    /// IPv6 address the other nodes reach this one at; default: the external interface's.
    #[arg(long, value_name = "IP")]
    pub(crate) public_ipv6: Option<String>,

    /// Masquerade traffic from pods to outside the pod network.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) ip_masq: bool,

    /// Let pods' packets be forwarded where iptables would drop them (docker, firewalls).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) iptables_forward_rules: bool,

    /// Keep packets from pod to pod out of conntrack: on, off, or auto: where nobody else judges forwarded packets by
    /// conntrack's state.
    #[arg(long, value_name = "auto|on|off", default_value = "auto")]
    pub(crate) conntrack_bypass: String,

    /// Checksum offload of the VXLAN device: off where tunnelled TCP stalls behind a NAT or a network card; auto leaves it.
    #[arg(long, value_name = "auto|on|off", default_value = "auto")]
    pub(crate) vtep_checksum_offload: String,
}

/// Subnet leases.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Subnet leases (flannel's flags)")]
pub(crate) struct LeaseArgs {
    /// Who hands out pod subnets: kube (default), etcd, or dir:PATH, a directory shared by the agents of one machine.
    #[arg(long, value_name = "MANAGER")]
    pub(crate) subnet_manager: Option<String>,

    /// The same as --subnet-manager=kube.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) kube_subnet_mgr: bool,

    /// kube: what the keys of annotations start with.
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com")]
    pub(crate) kube_annotation_prefix: String,

    /// kube: keep the Node's condition NetworkUnavailable.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pub(crate) set_node_network_unavailable: bool,

    /// etcd: its members, a comma list of URLs.
    #[arg(long, value_name = "URLS", default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379")]
    pub(crate) etcd_endpoints: String,

    /// etcd: what flannel's keys start with.
    #[arg(long, value_name = "PREFIX", default_value = "/coreos.com/network")]
    pub(crate) etcd_prefix: String,

    /// etcd: private key of the client certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_keyfile: Option<PathBuf>,

    /// etcd: client certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_certfile: Option<PathBuf>,

    /// etcd: authorities its certificate is checked with; default: those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,

    /// etcd: name of the user.
    #[arg(long, value_name = "NAME")]
    pub(crate) etcd_username: Option<String>,

    /// etcd: password of the user; better in $FLANNELD_ETCD_PASSWORD, since everybody can read a command line.
    #[arg(long, value_name = "PASSWORD", hide_default_value = true)]
    pub(crate) etcd_password: Option<String>,

    /// etcd: how many minutes before its end a lease is renewed, 1 to 1439.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub(crate) subnet_lease_renew_margin: u64,
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
