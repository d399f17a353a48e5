//! Socket programs: Services are translated where a socket names its peer, so that no packet needs translation.
//!
//! `connect` and `sendmsg` replace a Service address by an endpoint's, `getpeername` and `recvmsg` put it back. Every connect of the node
//! runs through here, so what is no Service must be let through quickly: one hash lookup, and nothing is written.
//!
//! Which hook a socket meets depends on the address, not on the socket: `sendto` of an IPv4-mapped address runs `sendmsg4`, the reply
//! runs `recvmsg6`. Everything is therefore kept as [`weft_ebpf_abi::Peer`], one form for both families.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "core::intrinsics is the only way to an atomic fetch-add on this target, see counter.rs"
)]
#![expect(
    unsafe_code,
    reason = "eBPF helpers and the hook's context are raw pointers; the kernel's verifier checks every access"
)]

mod affinity;
mod connect;
mod counter;
mod family;
mod getpeername;
mod maps;
mod recvmsg;
mod sendmsg;
mod service;
mod socket;

/// Verdict of a hook: go on with the address now in the context. The reverse hooks know no other.
const ALLOW: i32 = 1;
/// Verdict of a hook: fail the call, with the error of `bpf_set_retval` or else EPERM.
const DENY: i32 = 0;

/// No helper used here is restricted to GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses the endless loop, so an object that could panic does not load.
    loop {}
}
