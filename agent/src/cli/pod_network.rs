//! Flags of the pod network and its subnet leases: flanneld's.

use std::path::PathBuf;

use clap::{ArgAction, Args};

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
    #[arg(long, value_name = "MINUTES", default_value = "60")]
    pub(crate) subnet_lease_renew_margin: String,
}
