//! UDP flows that conntrack would lead past the rules: a flow keeps the way its first packet took for as long as packets
//! come.

use std::{collections::BTreeSet, mem::ManuallyDrop, net::IpAddr};

use weft_netlink::{Conntrack, ConntrackEntry, Family, Netlink, Result};

use super::{claim::Claim, mapping::Protocol};

/// After ADD: flows to the ports that lead elsewhere, to the node itself or to an earlier pod. Not those through the node to
/// other addresses, with the port of the same number. A failure is no reason to fail ADD (section 8).
pub(super) fn forget_others(host: &Netlink, claims: &[Claim]) {
    let local = |claims: &[Claim]| -> Result<BTreeSet<IpAddr>> {
        if !claims.iter().any(is_udp) {
            return Ok(BTreeSet::new());
        }
        Ok(host.addresses(None)?.iter().map(|address| address.address.ip()).collect())
    };
    let outcome = local(claims).and_then(|local| {
        let is_stale = |claim: &Claim, flow: &ConntrackEntry| {
            let to = flow.original.destination;
            let to_port = to.port() == claim.host_port && (claim.host.is_unspecified() || claim.host == to.ip());
            to_port && local.contains(&to.ip()) && flow.reply.source != claim.pod
        };
        forget_if(claims, &is_stale)
    });
    report(outcome);
}

/// After DEL: flows to a pod that is gone, whose address the next one will get.
pub(super) fn forget(claims: &[Claim]) {
    let is_stale = |claim: &Claim, flow: &ConntrackEntry| {
        flow.reply.source == claim.pod && flow.original.destination.port() == claim.host_port
    };
    report(forget_if(claims, &is_stale));
}

fn forget_if(claims: &[Claim], is_stale: &dyn Fn(&Claim, &ConntrackEntry) -> bool) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let of_family = |claim: &&Claim| is_udp(claim) && Family::of(claim.pod.ip()) == family;
        let claims: Vec<_> = claims.iter().filter(of_family).collect();
        if claims.is_empty() {
            continue;
        }
        // Not closed, for the same reason as the sockets of `nftables`.
        let (mut conntrack, mut stale) = (ManuallyDrop::new(Conntrack::open()?), Vec::new());
        conntrack.for_each(family, Protocol::Udp.number(), |flow| {
            if claims.iter().any(|claim| is_stale(claim, flow)) {
                stale.push(*flow);
            }
        })?;
        for flow in &stale {
            conntrack.delete(flow)?;
        }
    }
    Ok(())
}

fn is_udp(claim: &Claim) -> bool {
    claim.protocol == Protocol::Udp
}

fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("weft-cni: UDP flows that were there before may go on as they went: {error}");
    }
}
