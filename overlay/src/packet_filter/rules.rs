//! What packet rules are asked for.

use ipnetwork::IpNetwork;

use crate::family::Family;

/// One family's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodNetworks {
    /// All pods of the cluster.
    pub(crate) network: IpNetwork,
    /// The pods of this node.
    pub(crate) subnet: IpNetwork,
}

/// `--conntrack-bypass`: whether packets from pod to pod are kept out of conntrack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConntrackBypass {
    /// Where there is nft, and nobody else is seen who judges forwarded packets by conntrack's state.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterRules {
    pub(crate) networks: Vec<PodNetworks>,
    /// `--ip-masq`.
    pub(crate) masquerade: bool,
    /// `--iptables-forward-rules`.
    pub(crate) forward: bool,
    pub(crate) bypass: ConntrackBypass,
    /// `EnableNFTables`.
    pub(crate) nftables: Option<bool>,
}

/// With what masquerading is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Nftables,
    Iptables,
}

impl Manager {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Addresses that are not masqueraded because nobody answers them.
pub(super) const fn multicast(family: Family) -> &'static str {
    match family {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    }
}
