//! Which peers are on directly connected networks: what `host-gw` and `DirectRouting` ask the kernel's routing.

use std::net::IpAddr;

use weft_netlink::{Netlink, RouteKind};

use super::Reconciler;
use crate::{family::Family, plan::Reach};

impl Reconciler {
    /// Looks up the peers that were not looked up before. One look-up is one system call, and a change of one peer costs one.
    pub(super) fn look_up_peers(&mut self) {
        if !self.settings.net_conf.backend.routes_directly() {
            return;
        }
        let mut reach = Reach::new();
        for lease in self.snapshot.leases.iter().filter(|lease| lease.subnets != self.lease.subnets) {
            for family in Family::ALL {
                let Some(address) = lease.attributes.public_address(family) else { continue };
                let known = self.reach.get(&address).copied();
                reach.insert(address, known.unwrap_or_else(|| link_to(&self.netlink, address)));
            }
        }
        self.reach = reach;
    }

    /// The node's own routes or interfaces changed: all answers may be others now, and what failed may succeed.
    pub(super) fn look_up_again(&mut self) -> bool {
        if !self.settings.net_conf.backend.routes_directly() {
            return false;
        }
        let before = std::mem::take(&mut self.reach);
        self.look_up_peers();
        before != self.reach
    }
}

/// flannel's rule (flannel.md 4.2): the route to the node has no gateway.
fn link_to(netlink: &Netlink, address: IpAddr) -> Option<u32> {
    // That there is no way there at all is an answer too.
    let route = netlink.route_to(address).ok()?;
    let direct = route.gateway.is_none() && route.kind == RouteKind::Unicast;
    route.link.filter(|_| direct).map(|link| link.get())
}
