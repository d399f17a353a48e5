//! Addresses: host-local's allocation, in host-local's files (section 7).

mod allocate;
mod range;
mod source;
mod store;

use std::{io, net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;

pub(crate) use range::{RangeConfig, RangeSet};
pub(crate) use source::Ipam;

use crate::{
    dns::Dns,
    error::{Code, Error as CniError},
    result::RouteConfig,
};

/// An address given to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The address, with the prefix length of its subnet.
    pub(crate) address: IpNetwork,
    /// The gateway of its range.
    pub(crate) gateway: IpAddr,
}

/// What an IPAM plugin gave to a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// One at least.
    pub(crate) leases: Vec<Lease>,
    pub(crate) routes: Vec<RouteConfig>,
    pub(crate) dns: Dns,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) ifname: &'a str,
}

/// The address a file of a network's directory stands for; `None` for the other files there.
pub(crate) fn address_of_file(name: &str) -> Option<IpAddr> {
    name.parse().ok()
}

/// Container ID and interface name in the text of a reservation; the name is missing in old files. An empty ID: the file names
/// nobody, and reserves nothing.
pub(crate) fn holder(reservation: &str) -> (&str, Option<&str>) {
    // Of files that were written shortly before a node lost power, file systems keep the name, and zeros or nothing in it.
    let text = reservation.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    match text.split_once('\n') {
        Some((container_id, ifname)) => (container_id.trim_end(), Some(ifname.trim_start())),
        None => (text, None),
    }
}

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The directory cannot be used. Retry when the disk is well again.
    #[error("{doing} {}: {source}", path.display())]
    Store {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The configured ranges make no sense. Retrying will not help.
    #[error("{0}")]
    InvalidRange(String),
    /// A runtime asked for a second attachment under one name (A4).
    #[error("{address} has been allocated to {container_id}, duplicate allocation is not allowed")]
    Duplicate { address: IpAddr, container_id: String },
    /// The address asked for cannot be had.
    #[error("requested IP address {address} {reason}")]
    Requested { address: IpAddr, reason: String },
    /// No set of ranges has those addresses in it.
    #[error("failed to allocate all requested IPs: {0}")]
    RequestedOutside(String),
    /// Usual on a node with more pods than addresses; a retry helps when pods have gone.
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
    /// CHECK: nothing is written down for the container.
    #[error("{container_id} has no address reserved in {}", directory.display())]
    NotReserved { container_id: String, directory: PathBuf },
}

impl From<Error> for CniError {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Store { .. } => Code::Io,
            Error::InvalidRange(_) => Code::InvalidConfig,
            _ => Code::Ipam,
        };
        let advice = match error {
            Error::Exhausted(_) => "`weft pods` on the node lists who has them",
            _ => "",
        };
        Self::with_details(code, error.to_string(), advice)
    }
}
