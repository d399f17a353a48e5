//! The node's own addresses, followed: NodePorts and health-check ports are served at some of them.

use std::{collections::BTreeSet, io, net::IpAddr, thread};

use tracing::{debug, error};
use weft_netlink::{Group, Monitor, Netlink};

/// The addresses cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// Netlink cannot be opened or asked.
    #[error(transparent)]
    Netlink(#[from] weft_netlink::Error),
    /// There is no thread to do it on.
    #[error("start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Delivers the addresses, now and after every change, on a thread of its own, which ends when `deliver` says that nobody
/// listens any more.
///
/// # Errors
/// Nothing was delivered, or it was delivered only once; see [`FollowError`].
pub(crate) fn follow(deliver: impl Fn(BTreeSet<IpAddr>) -> bool + Send + 'static) -> Result<(), FollowError> {
    // Subscribed before the first reading, so that no change falls between them.
    let monitor = Monitor::open(&[Group::Ipv4Address, Group::Ipv6Address])?;
    let netlink = Netlink::open()?;
    let mut delivered = read(&netlink)?;
    if !deliver(delivered.clone()) {
        return Ok(());
    }
    let follow = move || {
        loop {
            let now = monitor.wait().and_then(|_| read(&netlink));
            match now {
                Ok(addresses) if addresses == delivered => {}
                Ok(addresses) => {
                    debug!(?addresses, "the node's addresses changed");
                    delivered = addresses.clone();
                    if !deliver(addresses) {
                        return;
                    }
                }
                Err(error) => {
                    error!(%error, "cannot follow the node's addresses; NodePorts stay at the last ones");
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("addresses".to_owned()).spawn(follow).map_err(FollowError::Thread)?;
    Ok(())
}

fn read(netlink: &Netlink) -> weft_netlink::Result<BTreeSet<IpAddr>> {
    let addresses = netlink.addresses(None)?;
    Ok(addresses.into_iter().map(|address| address.address.ip()).filter(|ip| can_serve(*ip)).collect())
}

/// Link-local IPv6 addresses are no destination a client outside can name without a zone.
fn can_serve(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}
