//! What the kernel would do with a new connection, read from what is in it now and not from any plan.
//!
//! Each data plane has a reader (`ebpf::live`, `nftables::live`, `iptables::live`) that goes the way a packet or a socket call
//! goes, lookup by lookup, and changes nothing. What it says is as good as the moment it was read in.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::model::{IpFamily, Protocol};

/// A connection that somebody would open on this node, or send through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who opens it.
    pub client: Client,
    /// To whom; of the client's family.
    pub destination: SocketAddr,
    /// How.
    pub protocol: Protocol,
    /// Whether the destination is an address of this node's interfaces: its packets come to the hook `input`.
    pub to_node: bool,
}

/// Who opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Source address of its packets.
    pub address: IpAddr,
    /// Interface its packets come in by; `None`: a process in the node's network namespace.
    pub interface: Option<String>,
    /// Whether the source opens it by a socket of this node: a process of the node or of one of its pods.
    pub at_socket: bool,
    /// Whether the source is an address of this node's interfaces.
    pub of_node: bool,
    /// Number of its network namespace (`SO_NETNS_COOKIE`), where session affinity has to be looked up at the socket.
    pub netns_cookie: Option<u64>,
}

impl Probe {
    /// Family of both addresses.
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.destination.ip())
    }
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The data plane leaves it alone.
    Untouched,
    /// It goes to one of these, sorted.
    Endpoints(Vec<SocketAddr>),
    /// It is refused.
    Reject,
    /// It is dropped in silence.
    Drop,
}

/// What a data plane would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// What becomes of the connection.
    pub verdict: Verdict,
    /// Who gets it; `None` where the kernel does not tell whose turn it is.
    pub next: Option<Next>,
    /// Whether its packets are marked for masquerading on the way. Never at a socket.
    pub masquerade: bool,
    /// What was looked at and what it said, in order.
    pub steps: Vec<String>,
    /// What is missing or cannot be right, whatever the plan is.
    pub problems: Vec<String>,
}

impl Live {
    /// Nothing looked at yet.
    pub(crate) fn new() -> Self {
        Self { verdict: Verdict::Untouched, next: None, masquerade: false, steps: Vec::new(), problems: Vec::new() }
    }

    pub(crate) fn step(&mut self, text: impl Into<String>) {
        self.steps.push(text.into());
    }

    pub(crate) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    pub(crate) fn lead_to(&mut self, mut endpoints: Vec<SocketAddr>) {
        endpoints.sort_unstable();
        self.verdict = Verdict::Endpoints(endpoints);
    }
}

/// Who gets the next connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// Why it.
    pub reason: NextReason,
}

/// Why an endpoint is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextReason {
    /// It is the only one.
    Only,
    /// It is its turn.
    Turn {
        /// Place among the endpoints, from 0.
        slot: u32,
        /// Number of endpoints.
        of: u32,
    },
    /// The client had it before.
    Affinity {
        /// For how long it keeps it, unless it connects again; `None`: the kernel does not tell.
        left: Option<Duration>,
    },
}
