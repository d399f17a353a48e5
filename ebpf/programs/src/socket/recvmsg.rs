//! `recvmsg4` and `recvmsg6`: the source a UDP client sees is the Service it asked, as resolvers insist on.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ALLOW,
    family::{Family, V4, V6},
    maps::UDP_REPLIES,
    socket,
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
    let Some(state) = socket::state(ctx) else {
        return ALLOW;
    };
    let source = F::peer(ctx);
    if socket::is_connected(ctx, state) && state.endpoint == source {
        let service = state.service;
        F::set_peer(ctx, &service);
    } else if socket::has_flows(state) {
        // SAFETY: copied at once into the context.
        if let Some(service) = unsafe { UDP_REPLIES.get(socket::flow_key(ctx, &source)) } {
            F::set_peer(ctx, service);
        }
    }
    ALLOW
}
