//! Where the Services of a soak are reached, and where their endpoints are. All of it follows from numbers, so that the
//! clients, which are processes of their own, need not be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports that the backends listen on; TCP endpoints use any of them, UDP endpoints the first.
pub(crate) const BACKEND_PORTS: [u16; 4] = [8080, 8081, 8082, 8083];
/// Hosts that TCP endpoints are at; one process answers for all of them.
pub(crate) const TCP_HOSTS: u16 = 4000;
/// Hosts that UDP endpoints are at: a socket each, since an answer has to come from the address that was asked.
pub(crate) const UDP_HOSTS: u16 = 100;
/// What the backends' addresses are in (outside of the pod network).
pub(crate) const BACKENDS_V4: &str = "10.200.0.0/16";
/// The same for IPv6.
pub(crate) const BACKENDS_V6: &str = "2001:db8:200::/64";
/// What LoadBalancer addresses and externalIPs are in (RFC 2544).
pub(crate) const VIPS_V4: &str = "198.18.0.0/15";
/// The same for IPv6.
pub(crate) const VIPS_V6: &str = "2001:db8:1818::/48";
/// Most Services there is room for: node ports end at 32767.
pub(crate) const MOST_SERVICES: u32 = 2760;
/// Port of every Service.
pub(crate) const SERVICE_PORT: u16 = 80;

/// A way to reach a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frontend {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

impl Frontend {
    pub(crate) const ALL: [Self; 4] = [Self::ClusterIp, Self::NodePort, Self::LoadBalancer, Self::ExternalIp];

    /// The address clients use, on the node with these addresses.
    pub(crate) fn address(self, service: u32, v6: bool, node: (Ipv4Addr, Ipv6Addr)) -> SocketAddr {
        match (self, v6) {
            (Self::NodePort, false) => SocketAddr::new(node.0.into(), node_port(service)),
            (Self::NodePort, true) => SocketAddr::new(node.1.into(), node_port(service)),
            _ => SocketAddr::new(self.ip(service, v6), SERVICE_PORT),
        }
    }

    /// The address in the object; meaningless for a NodePort.
    pub(crate) fn ip(self, service: u32, v6: bool) -> IpAddr {
        let [_, _, high, low] = (service + 1).to_be_bytes();
        let last = u16::from_be_bytes([high, low]);
        match (self, v6) {
            (Self::ClusterIp | Self::NodePort, false) => Ipv4Addr::new(10, 96, high, low).into(),
            (Self::LoadBalancer, false) => Ipv4Addr::new(198, 18, high, low).into(),
            (Self::ExternalIp, false) => Ipv4Addr::new(198, 19, high, low).into(),
            (Self::ClusterIp | Self::NodePort, true) => Ipv6Addr::new(0x2001, 0xdb8, 0x96, 0, 0, 0, 0, last).into(),
            (Self::LoadBalancer, true) => Ipv6Addr::new(0x2001, 0xdb8, 0x1818, 0, 0, 0, 0, last).into(),
            (Self::ExternalIp, true) => Ipv6Addr::new(0x2001, 0xdb8, 0x1818, 1, 0, 0, 0, last).into(),
        }
    }
}

/// Node port of a Service.
pub(crate) fn node_port(service: u32) -> u16 {
    u16::try_from(30_000 + service).expect("at most MOST_SERVICES")
}

/// A Service is of one protocol and of one or two families for good: the API server does not let that change either.
pub(crate) fn is_udp(service: u32) -> bool {
    service.is_multiple_of(4)
}

/// See [`is_udp`].
pub(crate) fn is_dual_stack(service: u32) -> bool {
    service.is_multiple_of(3)
}

/// Address of a backend.
pub(crate) fn backend(host: u16, v6: bool) -> IpAddr {
    let [high, low] = host.to_be_bytes();
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, host).into()
    } else {
        Ipv4Addr::new(10, 200, high, low).into()
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Client {
    Pod,
    Node,
    Outside,
}

impl Client {
    pub(crate) const ALL: [Self; 3] = [Self::Pod, Self::Node, Self::Outside];

    /// What it can reach: a ClusterIP is not known outside.
    pub(crate) fn frontends(self) -> &'static [Frontend] {
        if self == Self::Outside { &Frontend::ALL[1..] } else { &Frontend::ALL }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Outside => "outside",
        }
    }
}
