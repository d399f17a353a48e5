//! What `weft trace` answers. Field names are a contract: scripts read `-o json`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_proxy::model::Protocol;

/// What is asked of the agent: one element of the body of `POST /trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// FROM.
    pub(crate) from: String,
    /// TO.
    pub(crate) to: String,
}

/// What the agent answers to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    /// It can be traced.
    Trace(Box<Trace>),
    /// It cannot.
    Error {
        /// Why.
        error: String,
    },
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    /// Who opens the connection.
    pub(crate) from: Party,
    /// To whom.
    pub(crate) to: Party,
    /// The frontend asked for; `null`: no Service has this address and port.
    pub(crate) frontend: Option<FrontendTrace>,
    /// Which rule of the traffic policy applies, in words.
    pub(crate) rule: String,
    /// What becomes of it in the kernel.
    pub(crate) verdict: TraceVerdict,
    /// `sockets`, `nftables`, `iptables`, or `none` where no Service is concerned.
    pub(crate) decided_by: String,
    /// Who may get the connection: for `untouched` the destination itself, for `reject` and `drop` nobody.
    pub(crate) endpoints: Vec<EndpointTrace>,
    /// Who gets the next connection; `null`: the kernel does not tell.
    pub(crate) next: Option<NextTrace>,
    /// What the kernel was asked, and what it said.
    pub(crate) steps: Vec<String>,
    /// Differences between plan and kernel, and what else cannot work. Empty: the kernel does what was planned.
    pub(crate) findings: Vec<String>,
    /// What else should be known.
    pub(crate) notes: Vec<String>,
}

/// One side of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party {
    /// As it was asked.
    pub(crate) asked: String,
    /// `node`, `pod`, `outside`, `Service`, `address`.
    pub(crate) kind: String,
    /// `namespace/name`, if known.
    pub(crate) name: Option<String>,
    /// Its address.
    pub(crate) address: Option<IpAddr>,
    /// Its port; absent for the one that asks.
    pub(crate) port: Option<u16>,
    /// Its protocol.
    pub(crate) protocol: Option<Protocol>,
    /// Interface of this node its packets come in by.
    pub(crate) interface: Option<String>,
}

/// A frontend of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendTrace {
    /// `namespace/name`.
    pub(crate) service: String,
    /// Name of the port; may be empty.
    pub(crate) port: String,
    /// ClusterIP, NodePort, LoadBalancer or ExternalIP.
    pub(crate) kind: String,
    /// Seconds of session affinity, if there is any.
    pub(crate) affinity_seconds: Option<u64>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TraceVerdict {
    /// No Service is concerned: it goes to the destination itself.
    Untouched,
    /// It goes to one of the endpoints.
    Endpoints,
    /// It is refused.
    Reject,
    /// It is dropped.
    Drop,
}

/// Who may get the connection, and the way there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointTrace {
    /// Address.
    pub(crate) address: IpAddr,
    /// Port; absent if none was asked for.
    pub(crate) port: Option<u16>,
    /// Name of the pod, if it is one of this node's.
    pub(crate) pod: Option<String>,
    /// What masquerades: `Services`, `hairpin`, `pod network`, or nothing.
    pub(crate) masqueraded: Option<String>,
    /// The way there, as the kernel has it.
    pub(crate) way: Way,
}

/// The way from this node to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Way {
    /// `local`, `pod`, `vxlan`, `gateway`, `link`, or `none`.
    pub(crate) kind: String,
    /// Interface packets leave by.
    pub(crate) device: Option<String>,
    /// Next hop.
    pub(crate) gateway: Option<IpAddr>,
    /// Ethernet address of the next hop: of its VTEP with vxlan.
    pub(crate) mac: Option<String>,
    /// Where the VXLAN device sends what is for that Ethernet address.
    pub(crate) peer: Option<IpAddr>,
}

/// Who gets the next connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextTrace {
    /// Address.
    pub(crate) address: IpAddr,
    /// Port.
    pub(crate) port: u16,
    /// Why.
    pub(crate) why: String,
}
