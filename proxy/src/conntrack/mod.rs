//! Conntrack of this node: entries that lead UDP clients to endpoints which no longer serve, and the table's parameters.
//! kube-proxy.md section 10.
//!
//! `stale` decides which entries those are and `parameters` what belongs into the sysctls, both without touching the kernel.
//! TCP and SCTP are never touched (10.7): their clients notice by themselves.

mod parameters;
mod stale;
#[cfg(test)]
mod tests;

use weft_netlink::{Conntrack, Deleted, Family, Listing};

use crate::{
    model::{IpFamily, Protocol},
    plan::UdpFlows,
};

pub use parameters::{ConntrackParameters, Parameter, ParameterError, Setting, apply, online_cpus, settings};
pub use stale::{Stale, plan};

/// What [`clean_up`] did.
#[derive(Debug)]
pub struct CleanUp {
    /// Entries that are gone now.
    pub deleted: usize,
    /// Entries that should be gone and are not, with the reason.
    pub failed: Vec<weft_netlink::Error>,
    /// Whether the whole table was seen. A partial look is no fault (10.9): the next one finds the rest.
    pub listing: Listing,
}

/// Deletes the stale UDP entries of a family. To be called when the data plane carries the plan that `flows` are of, so that
/// what clients send next is led to an endpoint that serves.
///
/// Reads the whole table of connections, if there is anything to look for.
///
/// # Errors
/// The table cannot be read; entries found until then are left alone.
pub fn clean_up<'a>(
    conntrack: &mut Conntrack,
    family: IpFamily,
    flows: impl IntoIterator<Item = UdpFlows<'a>>,
) -> Result<CleanUp, weft_netlink::Error> {
    let stale = Stale::of(flows);
    let mut cleaned = CleanUp { deleted: 0, failed: Vec::new(), listing: Listing::Complete };
    if stale.is_impossible() {
        return Ok(cleaned);
    }
    let family = match family {
        IpFamily::V4 => Family::V4,
        IpFamily::V6 => Family::V6,
    };
    // Of hundreds of thousands of entries only the stale ones are kept.
    let mut entries = Vec::new();
    cleaned.listing = conntrack.for_each(family, Protocol::Udp.number(), |entry| {
        if stale.contains(entry) {
            entries.push(*entry);
        }
    })?;
    for entry in entries {
        match conntrack.delete(&entry) {
            Ok(Deleted::Yes) => cleaned.deleted += 1,
            Ok(Deleted::WasGone) => {}
            Err(error) => cleaned.failed.push(error),
        }
    }
    Ok(cleaned)
}
