//! How many rules a legacy table has: the one thing the kernel tells of it without handing out all of it.
#![expect(
    unsafe_code,
    reason = "this socket option takes the table's name in the buffer it answers in; no safe wrapper does"
)]

use std::{
    io,
    mem::{offset_of, size_of},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::names::Table;
use crate::model::IpFamily;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` of linux/netfilter_{ipv4,ipv6}/ip{,6}_tables.h.
const GET_INFO: libc::c_int = 64;

/// `struct ipt_getinfo`, and `ip6t_getinfo`, which is the same.
#[repr(C)]
#[derive(Default)]
struct Info {
    /// Ends with a zero byte.
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

const _: () = assert!(size_of::<Info>() == 84 && offset_of!(Info, entries) == 76);

/// Rules, chain heads and policies in the table, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel has no legacy tables, or the caller no CAP_NET_ADMIN.
pub(crate) fn count(family: IpFamily, table: Table) -> io::Result<u32> {
    let (domain, level) = match family {
        IpFamily::V4 => (libc::AF_INET, libc::IPPROTO_IP),
        IpFamily::V6 => (libc::AF_INET6, libc::IPPROTO_IPV6),
    };
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut info = Info::default();
    let name = table.to_string();
    info.name[..name.len()].copy_from_slice(name.as_bytes());
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the buffer is as long as `length` says and lives until the call returns; every bit pattern is a valid `Info`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.entries) }
}
