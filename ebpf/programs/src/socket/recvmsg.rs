//! `recvmsg4` and `recvmsg6`: the source a UDP client sees is the Service it asked, as resolvers insist on.
//!
//! A datagram that comes from an address of the node and the number of a NodePort is from a client that happens to have this port. It is
//! remembered, so that `sendmsg` lets the answer go there and not to the Service.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ALLOW,
    family::{Family, V4, V6},
    maps::UDP_REPLIES,
    service, socket,
};

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    recvmsg::<V4>(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    recvmsg::<V6>(&ctx)
}

#[inline(always)]
fn recvmsg<F: Family>(ctx: &SockAddrContext) -> i32 {
    let source = F::peer(ctx);
    if let Some(state) = socket::state(ctx) {
        if socket::is_connected(ctx, state) && state.endpoint == source {
            let service = state.service;
            F::set_peer(ctx, &service);
            return ALLOW;
        }
        if socket::has_flows(state) {
            // SAFETY: copied at once into the context.
            if let Some(service) = unsafe { UDP_REPLIES.get(socket::flow_key(ctx, &source)) } {
                F::set_peer(ctx, service);
                return ALLOW;
            }
        }
    }
    if service::may_be_node_port(&source) && service::is_of_node(&source) {
        socket::remember_client(ctx, &source);
    }
    ALLOW
}
