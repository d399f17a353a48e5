//! `getpeername4` and `getpeername6`: a connected socket says it is connected to the Service.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use weft_ebpf_abi::SOCKET_CONNECTED;

use crate::{
    ALLOW,
    family::{Family, V4, V6},
    socket,
};

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    getpeername::<V4>(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    getpeername::<V6>(&ctx)
}

/// The kernel calls this only for a socket that has a peer. It is compared all the same: a connect may have failed after its hook ran,
/// and then the peer is still the one before.
#[inline(always)]
fn getpeername<F: Family>(ctx: &SockAddrContext) -> i32 {
    if let Some(state) = socket::state(ctx)
        && state.flags & SOCKET_CONNECTED != 0
        && state.endpoint == F::peer(ctx)
    {
        let service = state.service;
        F::set_peer(ctx, &service);
    }
    ALLOW
}
