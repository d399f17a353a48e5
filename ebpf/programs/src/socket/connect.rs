//! `connect4` and `connect6`: TCP, and UDP sockets that name their peer once.
//!
//! Not called again while a TCP connect is under way (EALREADY) or done (EISCONN), so one connection takes one turn. A connect that
//! failed and is tried again takes the next.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    ALLOW,
    family::{Family, V4, V6, protocol},
    service::{self, Choice},
    socket,
};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(protocol) = protocol(ctx) else {
        return ALLOW;
    };
    let wanted = F::peer(ctx);
    let choice = match service::find(ctx, &wanted, protocol) {
        Some(service) => service::choose(ctx, &service, wanted.as_v4().is_some()),
        None => Choice::Leave,
    };
    match choice {
        Choice::Endpoint(chosen) => {
            socket::set_connected(ctx, &wanted, &chosen.endpoint);
            F::set_peer(ctx, &chosen.endpoint);
            ALLOW
        }
        // The socket keeps the peer it may have had, and so its state.
        Choice::Reject => service::reject(),
        Choice::Leave => {
            socket::clear_connected(ctx);
            ALLOW
        }
    }
}
