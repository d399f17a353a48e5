//! How many rules a legacy iptables table has: the one thing the kernel tells of it without handing out all of it.
#![expect(
    unsafe_code,
    reason = "this socket option takes the table's name in the buffer it answers in; no safe wrapper does"
)]

use std::{
    io,
    mem::{offset_of, size_of},
    os::fd::AsRawFd,
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};

use crate::{
    error::{During, Result},
    types::Family,
};

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` of linux/netfilter_{ipv4,ipv6}/ip{,6}_tables.h.
const GET_INFO: libc::c_int = 64;

/// XT_TABLE_MAXNAMELEN of linux/netfilter/x_tables.h, the final zero byte included.
const NAME_BYTES: usize = 32;

/// `struct ipt_getinfo`, and `ip6t_getinfo`, which is the same.
#[repr(C)]
#[derive(Default)]
struct Info {
    /// Ends with a zero byte.
    name: [u8; NAME_BYTES],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

const _: () = assert!(size_of::<Info>() == 84 && offset_of!(Info, entries) == 76);

/// Rules, chain heads and policies in a legacy table such as `nat`, for IPv4 or IPv6, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel has no such table, or the caller no CAP_NET_ADMIN.
pub fn xtables_entries(family: Family, table: &str) -> Result<u32> {
    entries(family, table).during("count the rules of", format_args!("legacy table {table}"))
}

fn entries(family: Family, table: &str) -> io::Result<u32> {
    let (domain, level) = match family {
        Family::V4 => (AddressFamily::Inet, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::Inet6, libc::IPPROTO_IPV6),
    };
    let mut info = Info::default();
    if table.len() >= NAME_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    info.name[..table.len()].copy_from_slice(table.as_bytes());
    // Of a raw socket, nothing is sent or received: it is only there to be asked.
    let socket = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the descriptor is open until `socket` is dropped. The kernel writes at most `length` bytes, as long as `info` is;
    // both live until the call returns, and every bit pattern is a valid `Info`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info.entries) }
}
