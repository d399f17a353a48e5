//! Flags of the agents, and how they are told to people.

/// Flags of the agents that differ from those of most scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Flags {
    /// `--cluster-cidr` is the pods' network.
    ClusterCidr,
    /// As before, and `--masquerade-all`, `--nodeport-addresses` of the nodes' first addresses, and no `--ip-masq`.
    MasqueradeAll,
    /// No detector of local traffic.
    NoDetector,
    /// `--detect-local-mode=NodeCIDR` and `--nodeport-addresses=primary`: both are read from the Node.
    NodeCidr,
    /// `--detect-local-mode=InterfaceNamePrefix`, with what pods' interfaces start with.
    InterfacePrefix,
    /// `--detect-local-mode=BridgeInterface` with eth0, by which clients outside come in; no NodePorts at 127.0.0.1.
    Bridge,
}

impl Flags {
    /// What the agents are given.
    pub(crate) fn of_agents(self) -> Vec<(&'static str, &'static str)> {
        let cidrs = ("--cluster-cidr", "10.244.0.0/16,2001:db8:42::/56");
        match self {
            Self::ClusterCidr => vec![cidrs],
            Self::MasqueradeAll => vec![
                cidrs,
                ("--masquerade-all", "true"),
                ("--nodeport-addresses", "192.0.2.0/26,2001:db8::/112"),
                ("--ip-masq", "false"),
            ],
            Self::NoDetector => vec![],
            Self::NodeCidr => vec![("--detect-local-mode", "NodeCIDR"), ("--nodeport-addresses", "primary")],
            Self::InterfacePrefix => {
                vec![("--detect-local-mode", "InterfaceNamePrefix"), ("--pod-interface-name-prefix", "veth")]
            }
            Self::Bridge => vec![
                ("--detect-local-mode", "BridgeInterface"),
                ("--pod-bridge-interface", "eth0"),
                ("--iptables-localhost-nodeports", "false"),
            ],
        }
    }

    /// The same for the table in docs; `None` for those of most scenarios.
    pub(crate) const fn in_words(self) -> Option<&'static str> {
        match self {
            Self::ClusterCidr => None,
            Self::MasqueradeAll => {
                Some("`--masquerade-all`, `--nodeport-addresses` of eth0's first addresses, no `--ip-masq`")
            }
            Self::NoDetector => Some("no `--cluster-cidr`"),
            Self::NodeCidr => Some("`--detect-local-mode=NodeCIDR`, `--nodeport-addresses=primary`"),
            Self::InterfacePrefix => Some("`--detect-local-mode=InterfaceNamePrefix`"),
            Self::Bridge => {
                Some("`--detect-local-mode=BridgeInterface` with eth0, `--iptables-localhost-nodeports=false`")
            }
        }
    }
}
