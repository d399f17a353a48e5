//! What is remembered with the socket itself.

use aya_ebpf::{EbpfContext, helpers::bpf_get_socket_cookie, programs::SockAddrContext};
use weft_ebpf_abi::{FlowKey, Peer, SOCKET_CONNECTED, SOCKET_FLOWS, SocketState};

use crate::maps::{SOCKET, UDP_REPLIES};

/// `TCP_ESTABLISHED` of net/tcp_states.h; a UDP socket is in this state while it is connected.
const ESTABLISHED: u32 = 1;

/// The socket's state; most sockets of a node never have one, and then this costs next to nothing.
#[inline(always)]
pub(crate) fn state(ctx: &SockAddrContext) -> Option<&SocketState> {
    // SAFETY: the storage lives as long as the socket, which the kernel holds and has locked while the program runs.
    unsafe { SOCKET.get_ptr_mut(ctx).as_ref() }
}

/// Changes the socket's state, which is made if there is none. Nothing happens if the kernel has no memory for it: the client then sees
/// an endpoint's address where it asked for a Service.
#[inline(always)]
fn change(ctx: &SockAddrContext, change: impl FnOnce(&mut SocketState)) {
    // SAFETY: as in `state`, of which no reference is alive here; without an initial value the kernel fills in zeros.
    if let Some(state) = unsafe { SOCKET.get_or_insert_ptr_mut(ctx, None).as_mut() } {
        change(state);
    }
}

/// Records a connect to `service` that was turned to `endpoint`.
#[inline(always)]
pub(crate) fn set_connected(ctx: &SockAddrContext, service: &Peer, endpoint: &Peer) {
    change(ctx, |state| {
        state.service = *service;
        state.endpoint = *endpoint;
        state.flags |= SOCKET_CONNECTED;
    });
}

/// Records a connect to something else: a UDP socket may be connected again and again, and getpeername must not show the old Service
/// when the new peer happens to be its former endpoint.
#[inline(always)]
pub(crate) fn clear_connected(ctx: &SockAddrContext) {
    if state(ctx).is_some() {
        change(ctx, |state| state.flags &= !SOCKET_CONNECTED);
    }
}

/// Records that `UDP_REPLIES` has entries of this socket.
#[inline(always)]
pub(crate) fn set_flows(ctx: &SockAddrContext) {
    change(ctx, |state| state.flags |= SOCKET_FLOWS);
}

/// Whether the socket is connected to a Service now. No hook runs when `AF_UNSPEC` dissolves a connection, so the state alone may be stale.
#[inline(always)]
pub(crate) fn is_connected(ctx: &SockAddrContext, state: &SocketState) -> bool {
    // SAFETY: the verifier knows `sk` of this context as a valid socket.
    state.flags & SOCKET_CONNECTED != 0
        && unsafe { (&raw const (*(*ctx.sock_addr).__bindgen_anon_1.sk).state).read_volatile() } == ESTABLISHED
}

/// Key of this socket's entry for `peer`.
#[inline(always)]
pub(crate) fn flow_key(ctx: &SockAddrContext, peer: &Peer) -> FlowKey {
    // SAFETY: the context pointer is the kernel's.
    let socket_cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    FlowKey { socket_cookie, peer: *peer, padding: 0 }
}

/// Records that `peer` has sent to this socket by itself: as a reply that shows what it is from. Without `SOCKET_FLOWS`, which is for
/// replies that show something else.
#[inline(always)]
pub(crate) fn remember_client(ctx: &SockAddrContext, peer: &Peer) {
    if !is_client(ctx, peer) {
        // Fails only if the kernel finds nothing to evict; then the answer goes to the Service.
        let _ = UDP_REPLIES.insert(flow_key(ctx, peer), peer, 0);
    }
}

/// Whether `peer` is a client of this socket, and not a Service that it asks.
#[inline(always)]
pub(crate) fn is_client(ctx: &SockAddrContext, peer: &Peer) -> bool {
    // SAFETY: compared at once. An element that is reused meanwhile names another peer.
    unsafe { UDP_REPLIES.get(flow_key(ctx, peer)) == Some(peer) }
}

/// Whether the socket has entries in `UDP_REPLIES` that show a Service.
#[inline(always)]
pub(crate) fn has_flows(state: &SocketState) -> bool {
    state.flags & SOCKET_FLOWS != 0
}
