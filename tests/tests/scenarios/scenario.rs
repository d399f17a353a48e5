//! What a scenario says: objects, and for each row where the client is, what it asks, and what must happen.

use std::{fmt, time::Duration};

pub(crate) use crate::flags::Flags;
use crate::objects::{Family, Service};
pub(crate) use crate::outcome::{Order, Outcome, Source, by};

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mode {
    Ebpf,
    Nftables,
    Iptables,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Ebpf, Self::Nftables, Self::Iptables];
    /// Those that see packets only.
    pub(crate) const PACKETS: &[Self] = &[Self::Nftables, Self::Iptables];

    /// Value of `--proxy-mode`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// In a pod of n1.
    Pod,
    /// In a pod of n2.
    PodElsewhere,
    /// In the pod of server a1 itself.
    PodA1,
    /// On n1.
    Node,
    /// On a host outside the cluster.
    Outside,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod on n1",
            Self::PodElsewhere => "pod on n2",
            Self::PodA1 => "pod a1",
            Self::Node => "node n1",
            Self::Outside => "outside",
        })
    }
}

/// What it sends to; of the first Service unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    ClusterIp,
    /// NodePort at the first address of n1.
    NodePort,
    /// NodePort at the second address of n1.
    NodePortSecond,
    /// NodePort at n1's address of the pod network.
    NodePortTunnel,
    /// NodePort at 127.0.0.1 or ::1.
    NodePortLoopback,
    /// NodePort at the address of n2.
    NodePortElsewhere,
    ExternalIp,
    LoadBalancer,
    /// An address of the Service network that no Service has.
    UnusedClusterIp,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort of n1",
            Self::NodePortSecond => "NodePort at another address of n1",
            Self::NodePortTunnel => "NodePort at n1's pod network address",
            Self::NodePortLoopback => "NodePort at the loopback address",
            Self::NodePortElsewhere => "NodePort of n2",
            Self::ExternalIp => "external IP",
            Self::LoadBalancer => "LoadBalancer IP",
            Self::UnusedClusterIp => "unused ClusterIP",
        })
    }
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Rules of kube-proxy.md, such as `3.4`.
    pub(crate) rule: &'static str,
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) target: Target,
    /// Index of the Service.
    pub(crate) service: u8,
    /// Port of the Service; its first one if `None`.
    pub(crate) port: Option<u16>,
    /// `None`: that of the Service's port.
    pub(crate) protocol: Option<weft_tests::Protocol>,
    pub(crate) outcome: Outcome,
    /// Where a mode does otherwise, and says why.
    pub(crate) otherwise: Vec<(Mode, Outcome, &'static str)>,
    pub(crate) families: Vec<Family>,
    /// Before it, the clients wait so long.
    pub(crate) pause: Duration,
}

impl Row {
    pub(crate) fn outcome(&self, mode: Mode) -> &Outcome {
        self.otherwise.iter().find(|(other, ..)| *other == mode).map_or(&self.outcome, |(_, outcome, _)| outcome)
    }
}

/// A row, or a change of the objects.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Row(Row),
    Change(Vec<Service>),
    /// n1 moves to this zone.
    Zone(&'static str),
}

/// Objects and the rows that hold for them, in order. A group has a namespace and addresses of its own.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The objects in words.
    pub(crate) given: &'static str,
    pub(crate) flags: Flags,
    /// A process of n1 listens on the NodePorts.
    pub(crate) listener: bool,
    /// n1 has the LoadBalancer addresses itself.
    pub(crate) load_balancer_on_n1: bool,
    pub(crate) services: Vec<Service>,
    pub(crate) steps: Vec<Step>,
}

/// A group of scenarios; `given` tells the objects in words.
pub(crate) fn given<const N: usize>(given: &'static str, services: [Service; N]) -> Group {
    Group {
        given,
        flags: Flags::ClusterCidr,
        listener: false,
        load_balancer_on_n1: false,
        services: services.into(),
        steps: Vec::new(),
    }
}

impl Group {
    /// Agents with other flags.
    pub(crate) fn with(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// A process of n1 listens on the NodePorts.
    pub(crate) fn with_a_listener(mut self) -> Self {
        self.listener = true;
        self
    }

    /// The LoadBalancer addresses of the first Service are on n1's loopback interface.
    pub(crate) fn with_load_balancer_on_n1(mut self) -> Self {
        self.load_balancer_on_n1 = true;
        self
    }

    /// One scenario.
    pub(crate) fn row(
        mut self,
        rule: &'static str,
        name: &'static str,
        client: Client,
        target: Target,
        outcome: Outcome,
    ) -> Self {
        self.steps.push(Step::Row(Row {
            rule,
            name,
            client,
            target,
            service: 0,
            port: None,
            protocol: None,
            outcome,
            otherwise: Vec::new(),
            families: Family::BOTH.into(),
            pause: Duration::ZERO,
        }));
        self
    }

    /// The objects become these; the rows that follow hold soon after.
    pub(crate) fn then<const N: usize>(mut self, services: [Service; N]) -> Self {
        self.steps.push(Step::Change(services.into()));
        self
    }

    /// The node n1 moves to this zone; the rows that follow hold soon after.
    pub(crate) fn then_n1_is_in(mut self, zone: &'static str) -> Self {
        self.steps.push(Step::Zone(zone));
        self
    }

    /// The last row is about the second Service.
    pub(crate) fn second(self) -> Self {
        self.last(|row| row.service = 1)
    }

    /// The last row is about this port of the Service.
    pub(crate) fn port(self, port: u16) -> Self {
        self.last(|row| row.port = Some(port))
    }

    /// The last row is about the Service's UDP port (of the same number).
    pub(crate) fn udp(self) -> Self {
        self.last(|row| row.protocol = Some(weft_tests::Protocol::Udp))
    }

    /// The last row's client connects by TCP, whatever the Service's port is.
    pub(crate) fn tcp(self) -> Self {
        self.last(|row| row.protocol = Some(weft_tests::Protocol::Tcp))
    }

    /// The last row's client sends datagrams without connect.
    pub(crate) fn sendto(self) -> Self {
        self.last(|row| row.protocol = Some(weft_tests::Protocol::UdpUnconnected))
    }

    /// The last row is otherwise in some modes, because of `why`.
    pub(crate) fn otherwise(self, modes: &[Mode], outcome: &Outcome, why: &'static str) -> Self {
        self.last(|row| row.otherwise.extend(modes.iter().map(|mode| (*mode, outcome.clone(), why))))
    }

    /// The last row, in which packet modes masquerade: with sockets, the client's address is kept (design 3.1 (b)).
    pub(crate) fn kept_by_sockets(self) -> Self {
        self.last(|row| {
            let outcome = row.outcome.clone().sees_client();
            row.otherwise.push((Mode::Ebpf, outcome, "no NAT at the socket, so no need to masquerade"));
        })
    }

    /// The last row is about one family only.
    pub(crate) fn only(self, family: Family) -> Self {
        self.last(|row| row.families = vec![family])
    }

    /// The last row's client waits before.
    pub(crate) fn after(self, pause: Duration) -> Self {
        self.last(|row| row.pause = pause)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.steps.iter().filter_map(|step| match step {
            Step::Row(row) => Some(row),
            Step::Change(_) | Step::Zone(_) => None,
        })
    }

    fn last(mut self, change: impl FnOnce(&mut Row)) -> Self {
        match self.steps.last_mut() {
            Some(Step::Row(row)) => change(row),
            _ => panic!("{}: this comes after a row", self.given),
        }
        self
    }
}
