//! Where the two families of hooks keep the peer's address.

use aya_ebpf::programs::SockAddrContext;
use weft_ebpf_abi::Peer;

/// The address fields of one family of hooks.
///
/// All accesses are volatile: the verifier allows only those widths, so the compiler may not merge or narrow them.
pub(crate) trait Family {
    /// The peer the hook was called for.
    fn peer(ctx: &SockAddrContext) -> Peer;
    /// Replaces it.
    fn set_peer(ctx: &SockAddrContext, peer: &Peer);
}

/// The hooks named `...4`.
pub(crate) struct V4;
/// The hooks named `...6`, which see IPv4-mapped addresses too.
pub(crate) struct V6;

impl Family for V4 {
    #[inline(always)]
    fn peer(ctx: &SockAddrContext) -> Peer {
        // SAFETY: the context pointer is the kernel's and valid while the program runs.
        unsafe { Peer::v4((&raw const (*ctx.sock_addr).user_ip4).read_volatile(), port(ctx)) }
    }

    #[inline(always)]
    fn set_peer(ctx: &SockAddrContext, peer: &Peer) {
        // SAFETY: as in `peer`; IPv4 hooks may write both fields.
        unsafe { (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(peer.address_be[3]) };
        set_port(ctx, peer.port_be);
    }
}

impl Family for V6 {
    #[inline(always)]
    fn peer(ctx: &SockAddrContext) -> Peer {
        // SAFETY: the context pointer is the kernel's and valid while the program runs.
        let words = unsafe {
            let ip6 = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
            [ip6.read_volatile(), ip6.add(1).read_volatile(), ip6.add(2).read_volatile(), ip6.add(3).read_volatile()]
        };
        Peer::v6(words, port(ctx))
    }

    #[inline(always)]
    fn set_peer(ctx: &SockAddrContext, peer: &Peer) {
        // SAFETY: as in `peer`; IPv6 hooks may write all of these fields.
        unsafe {
            let ip6 = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
            ip6.write_volatile(peer.address_be[0]);
            ip6.add(1).write_volatile(peer.address_be[1]);
            ip6.add(2).write_volatile(peer.address_be[2]);
            ip6.add(3).write_volatile(peer.address_be[3]);
        }
        set_port(ctx, peer.port_be);
    }
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: the context pointer is valid; the field is 32 bits wide with the port, network order, in the low 16.
    unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() as u16 }
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port_be: u16) {
    // SAFETY: as in `port`; every hook of this object may write it.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(port_be)) }
}

/// The socket's protocol if Services are translated for it. MPTCP (262) must not be cut down to TCP's 6.
#[inline(always)]
pub(crate) fn protocol(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: the context pointer is valid.
    match unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() } {
        6 => Some(weft_ebpf_abi::PROTOCOL_TCP),
        17 => Some(weft_ebpf_abi::PROTOCOL_UDP),
        _ => None,
    }
}
