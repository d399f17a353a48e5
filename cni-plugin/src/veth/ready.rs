//! Waiting for the kernel.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use weft_netlink::{Link, Netlink, RouteKind};

use super::vanished;
use crate::{
    error::{Code, Error},
    ipam::Lease,
    sandbox::Sandbox,
};

/// How long the kernel may take to put in order what it was told. It takes some 0.1 ms, but its threads need the lock
/// (RTNL) that every removal of an interface holds for some 20 ms: seconds, where dozens of pods come and go at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// First and longest pause between two looks. Who looks too often keeps the kernel from its work.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Kernel threads finish what the requests began. Until they have, packets get lost, and the runtime may start a probe
/// the moment it has our result (A12):
/// * linkwatch gives the end that came up first its queue, after the other end came up;
/// * IPv6's addrconf_dad_work makes a new address local, with or without duplicate address detection.
pub(super) fn wait_until_ready(
    host: &Netlink,
    host_link: &Link,
    sandbox: &Sandbox,
    leases: &[Lease],
) -> Result<(), Error> {
    wait_until("carrier", || {
        Ok(host.link_by_index(host_link.index)?.ok_or_else(|| vanished(&host_link.name))?.running)
    })?;
    for lease in leases.iter().filter(|lease| lease.address.is_ipv6()) {
        wait_until("local address of the container", || is_local(&sandbox.netlink, lease.address.ip()))?;
        wait_until("local gateway address", || is_local(host, lease.gateway))?;
    }
    Ok(())
}

fn is_local(netlink: &Netlink, address: IpAddr) -> Result<bool, Error> {
    match netlink.route_to(address) {
        Ok(route) => Ok(route.kind == RouteKind::Local),
        Err(error) if error.is_unreachable() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> Result<bool, Error>) -> Result<(), Error> {
    let (start, mut pause) = (Instant::now(), PAUSE.0);
    while !is_so()? {
        if start.elapsed() > PATIENCE {
            return Err(Error::new(Code::Network, format!("no {what} after {PATIENCE:?}")));
        }
        thread::sleep(pause);
        pause = (pause + pause / 2).min(PAUSE.1);
    }
    Ok(())
}
