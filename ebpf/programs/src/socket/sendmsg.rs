//! `sendmsg4` and `sendmsg6`: UDP datagrams that name their peer one by one.
//!
//! A socket stays with its endpoint behind each Service address as long as the endpoint is in the set, as conntrack would have it: a
//! resolver that repeats its question asks the same server. Only the first datagram is a new connection to session affinity.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use weft_ebpf_abi::{PROTOCOL_UDP, Peer, ServiceValue, UdpFlow};

use crate::{
    ALLOW,
    family::{Family, V4, V6, protocol},
    maps::{UDP_FLOWS, UDP_REPLIES},
    service::{self, Choice},
    socket,
};

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg::<V4>(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg::<V6>(&ctx)
}

#[inline(always)]
fn sendmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    if protocol(ctx) != Some(PROTOCOL_UDP) {
        return ALLOW;
    }
    let wanted = F::peer(ctx);
    // A connected socket receives from its peer only: a datagram to the same Service must go to the same endpoint.
    if let Some(state) = socket::state(ctx)
        && socket::is_connected(ctx, state)
        && state.service == wanted
    {
        let endpoint = state.endpoint;
        F::set_peer(ctx, &endpoint);
        return ALLOW;
    }
    let Some(service) = service::find(ctx, &wanted, PROTOCOL_UDP) else {
        return leave(ctx, &wanted);
    };
    if service::may_be_node_port(&wanted) && socket::is_client(ctx, &wanted) {
        return ALLOW;
    }
    if let Some(endpoint) = known_endpoint(ctx, &wanted, &service) {
        F::set_peer(ctx, &endpoint);
        return ALLOW;
    }
    match service::choose(ctx, &service, wanted.as_v4().is_some()) {
        Choice::Endpoint(chosen) => {
            let flow = UdpFlow { endpoint: chosen.endpoint, slot: chosen.slot };
            // Fails only if the kernel finds nothing to evict; then the next datagram takes a turn of its own.
            let _ = UDP_FLOWS.insert(socket::flow_key(ctx, &wanted), flow, 0);
            remember_reply(ctx, &chosen.endpoint, &wanted);
            socket::set_flows(ctx);
            F::set_peer(ctx, &chosen.endpoint);
            ALLOW
        }
        Choice::Reject => service::reject(),
        Choice::Leave => leave(ctx, &wanted),
    }
}

/// Lets the datagram go where it says. If that is an endpoint this socket has also used behind a Service, replies are now the endpoint's own.
#[inline(always)]
fn leave(ctx: &SockAddrContext, wanted: &Peer) -> i32 {
    if let Some(state) = socket::state(ctx)
        && socket::has_flows(state)
    {
        // Usually there is none.
        let _ = UDP_REPLIES.remove(socket::flow_key(ctx, wanted));
    }
    ALLOW
}

/// The endpoint this socket already uses behind `wanted`, if it is still in the set.
#[inline(always)]
fn known_endpoint(ctx: &SockAddrContext, wanted: &Peer, service: &ServiceValue) -> Option<Peer> {
    let flow = UDP_FLOWS.get_ptr_mut(socket::flow_key(ctx, wanted))?;
    // SAFETY: copied at once. The kernel may have evicted the element and reused it for another flow: whatever endpoint is read counts
    // only if it is in this set.
    let UdpFlow { endpoint, slot } = unsafe { *flow };
    let found = service::locate(service, &endpoint, slot, wanted.as_v4().is_some())?;
    if found.slot != slot {
        // SAFETY: as above, and another flow would take it for what it is, a hint.
        unsafe { (*flow).slot = found.slot };
    }
    remember_reply(ctx, &endpoint, wanted);
    Some(endpoint)
}

/// Makes replies of `endpoint` show `service`. Written only if it is not so already: the entry may have been evicted, or belong to
/// another Service with the same endpoint.
#[inline(always)]
fn remember_reply(ctx: &SockAddrContext, endpoint: &Peer, service: &Peer) {
    let key = socket::flow_key(ctx, endpoint);
    // SAFETY: compared at once, as in `known_endpoint`.
    if unsafe { UDP_REPLIES.get(key) } != Some(service) {
        // See `sendmsg` for when it fails.
        let _ = UDP_REPLIES.insert(key, service, 0);
    }
}
