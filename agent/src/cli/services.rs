//! Flags of Services: kube-proxy's, and those of the ebpf mode.

use std::path::PathBuf;

use clap::{ArgAction, Args};

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
    pub(crate) iptables_masquerade_bit: Option<String>,

    /// Serve NodePorts at 127.0.0.1; default: true.
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
    pub(crate) ebpf_max_frontends: Option<String>,

    /// Endpoints of all Service ports, in each family, with room to change them.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_backends: Option<String>,

    /// Service ports, each counted once or twice.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_sets: Option<String>,

    /// Endpoints whose connections are counted.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_endpoints: Option<String>,

    /// Clients with session affinity; the oldest is forgotten for a new one.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_affinity: Option<String>,

    /// Sockets that send datagrams to Services without connect; the oldest is forgotten for a new one.
    #[arg(long, value_name = "N")]
    pub(crate) ebpf_max_udp_flows: Option<String>,
}

/// Kernel parameters of conntrack, written at start; 0 leaves one alone.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection tracking (kube-proxy's flags)")]
pub(crate) struct ConntrackArgs {
    /// Connections for each CPU; default: 32768.
    #[arg(long, value_name = "N")]
    pub(crate) conntrack_max_per_core: Option<String>,

    /// Connections at least, however few CPUs there are; default: 131072.
    #[arg(long, value_name = "N")]
    pub(crate) conntrack_min: Option<String>,

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
