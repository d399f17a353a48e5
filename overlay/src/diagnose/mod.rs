//! Questions about the paths to peers, for people who look for a fault: does a packet of full size arrive, and do checksums
//! that are left to the hardware come out right.
//!
//! Nothing has to run on the peer: its kernel answers, whether Weft or flannel made its network. A probe sends a few packets
//! from the network namespace of the calling thread, blocks until they are answered or given up, and changes nothing. It
//! needs CAP_NET_RAW.

mod checksum;
mod mtu;
mod paths;

use std::{io, net::IpAddr, time::Duration};

pub use self::{
    checksum::{ChecksumVerdict, probe_checksums},
    mtu::{MtuVerdict, probe_mtu},
    paths::{Path, PathKind, paths},
};

/// How long one packet's answer is waited for.
const ANSWER: Duration = Duration::from_millis(300);

/// How often a packet is sent again before it counts as lost: the first may wait for the underlay's neighbour resolution.
const ATTEMPTS: usize = 3;

/// A probe could not be sent. That nothing came back is no error but a verdict.
#[derive(Debug, thiserror::Error)]
#[error("probe {target}: {doing}: {source}")]
pub struct ProbeError {
    /// To whom.
    pub target: IpAddr,
    /// What failed, such as `open a raw socket`.
    pub doing: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

fn failed(target: IpAddr, doing: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |source| ProbeError { target, doing, source }
}

/// Whether waiting for an answer was given up.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
