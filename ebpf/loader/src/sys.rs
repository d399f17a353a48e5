//! The system calls aya has no name for: cgroup links that are replaced in place, map batches, the cookie of a network namespace.
//!
//! All unsafe code of the loader is here.
#![expect(unsafe_code, reason = "bpf(2) and this socket option have no safe wrapper")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::Path,
};

use aya::Pod;

/// Commands of bpf(2), `enum bpf_cmd` of linux/bpf.h.
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

/// `SO_NETNS_COOKIE` of asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

// Each of these is the start of `union bpf_attr` as one command uses it; the kernel takes what is not passed as 0.

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
struct LinkCreateAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// `struct bpf_link_info` as far as a cgroup link fills it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    /// The union that follows is aligned to 8 bytes.
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    padding2: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for its size for the whole call; the pointers inside are checked by the functions below, which are the
    // only callers, and the kernel keeps none of them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: only called with what bpf(2) returned for a command that opens a descriptor, which nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    bpf(OBJ_GET, &mut ObjectAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 }).map(owned)
}

/// Pins an object; the path must not exist.
pub(crate) fn pin(fd: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(OBJ_PIN, &mut ObjectAttr { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 })?;
    Ok(())
}

/// Attaches a program to a cgroup, beside others that are attached there.
///
/// Without flags: the kernel refuses `BPF_F_ALLOW_MULTI` for links (EINVAL), they always allow it.
pub(crate) fn create_link(program: &impl AsFd, cgroup: &impl AsFd, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr { program: raw(program), target: raw(cgroup), attach_type, flags: 0 };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Replaces the program of a link, atomically. ENOLINK: the cgroup was removed.
pub(crate) fn update_link(link: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link: raw(link), program: raw(program), flags: 0, old_program: 0 };
    bpf(LINK_UPDATE, &mut attr)?;
    Ok(())
}

/// Number of the cgroup a link is attached to (its inode number); 0 once that cgroup was removed.
pub(crate) fn link_cgroup(link: &impl AsFd) -> io::Result<u64> {
    let mut info = LinkInfo::default();
    let mut attr =
        InfoAttr { fd: raw(link), info_len: size_of::<LinkInfo>() as u32, info: std::ptr::from_mut(&mut info) as u64 };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.cgroup_id)
}

/// Sets many elements in one call. On failure those before the offending one are set.
///
/// # Panics
/// If there are not as many values as keys.
pub(crate) fn update_batch<K: Pod, V: Pod>(map: &impl AsFd, keys: &[K], values: &[V]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "a batch pairs keys with values");
    // The kernel reads `count` keys and values of the sizes the map was made with; handles are only made for maps whose sizes are K's
    // and V's (`maps.rs`), and the slices have that many.
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map: raw(map),
        element_flags: 0,
        flags: 0,
    };
    bpf(MAP_UPDATE_BATCH, &mut attr)?;
    Ok(())
}

/// Counts the elements of a hash map by reading them, some hundred in one call. One that is moved meanwhile may be counted twice or not.
pub(crate) fn count_elements<K: Pod, V: Pod>(map: &impl AsFd) -> io::Result<u32> {
    // More than ever share a bucket, for the kernel hands out whole buckets.
    const AT_ONCE: usize = 512;
    let mut keys: Vec<K> = Vec::with_capacity(AT_ONCE);
    let mut values: Vec<V> = Vec::with_capacity(AT_ONCE);
    let mut bucket = 0_u32;
    let position = std::ptr::from_mut(&mut bucket) as u64;
    let mut from = 0;
    let mut total = 0;
    loop {
        // The kernel writes at most `count` keys and values of the map's sizes, which are K's and V's (`maps.rs`), and the bucket to
        // go on from. Nothing here reads any of them.
        let mut attr = BatchAttr {
            in_batch: from,
            out_batch: position,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE as u32,
            map: raw(map),
            element_flags: 0,
            flags: 0,
        };
        match bpf(MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => total += attr.count,
            // These were the last.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(total + attr.count),
            Err(error) => return Err(error),
        }
        from = position;
    }
}

/// Number of the calling thread's network namespace, unique while the machine is up.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    // Any socket will do, and this kind needs neither an address nor a device.
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to live locals, and `length` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
