//! Where packets are addressed to, as far as a verdict map can tell.

use std::{fmt, net::IpAddr};

use crate::model::{IpFamily, Protocol};

/// One place at which clients ask for a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// One address and port: ClusterIP, externalIP or LoadBalancer.
    Vip { address: IpAddr, protocol: Protocol, port: u16 },
    /// A port at every node-port address of the family.
    NodePort { family: IpFamily, protocol: Protocol, port: u16 },
}

impl Target {
    pub(crate) fn family(self) -> IpFamily {
        match self {
            Self::Vip { address, .. } => IpFamily::of(address),
            Self::NodePort { family, .. } => family,
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Vip { protocol, .. } | Self::NodePort { protocol, .. } => protocol,
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Vip { port, .. } | Self::NodePort { port, .. } => port,
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Vip { .. } => Class::Vip,
            Self::NodePort { .. } => Class::NodePort,
        }
    }
}

/// As nft writes it in a key. Protocols are written as numbers: nft resolves names through `/etc/protocols`, which a slim
/// image does not have.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip { address, protocol, port } => {
                write!(f, "{address} . {} . {port}", protocol.number())
            }
            Self::NodePort { protocol, port, .. } => write!(f, "{} . {port}", protocol.number()),
        }
    }
}

/// The two kinds of [`Target`], which need keys, and so maps, of different types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Vip,
    NodePort,
}

impl Class {
    pub(crate) const BOTH: [Self; 2] = [Self::Vip, Self::NodePort];

    /// What names of maps and chains for NodePorts begin with.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Vip => "",
            Self::NodePort => "np-",
        }
    }
}

/// Both families, in the order in which things are written.
pub(crate) const FAMILIES: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

/// `4` or `6`: how names tell the families apart.
pub(crate) const fn digit(family: IpFamily) -> char {
    match family {
        IpFamily::V4 => '4',
        IpFamily::V6 => '6',
    }
}

/// What nft calls the header of the family.
pub(crate) const fn ip(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}
