//! glibc's allocator, told that a node agent should stay small.
//!
//! As it comes, it makes an arena for each thread and keeps what was freed, ever more of it the larger the pieces were. After
//! the first list of 10,000 Services that is more than what is in use. Measured with 10,000 Services x 10 and with 10 Services,
//! MB resident: as it comes 108 and 18.5, with these calls 59 and 15.5. Without unsafe calls: by the same settings in the
//! environment, which somebody would have to set wherever the agent is started, 61 and 17; mimalloc 82 to 98 and 30 to 60.
//! musl's allocator (of the image) has no such settings and gives memory back by itself: 59 and 12.
//!
//! Since what is kept of an object became smaller: glibc 51 and 16, musl 51 and 14, of which 10 to 13 are the program itself. musl's
//! takes a third more processor time for a start; dlmalloc in its place saves a quarter of that and keeps what was freed, 91 and 37.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "mallopt and malloc_trim are plain calls of libc"))]

/// One for all threads: what one of them frees, the next can have. The thread of the API server allocates the lists and that of
/// the Services frees them and allocates all else; with an arena each a start is no faster and takes 110 MB at its peak, not 85.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 1;
/// From here on memory goes back to the kernel when it is freed. Given explicitly, glibc does not raise it.
#[cfg(target_env = "gnu")]
const KEEP_BYTES: i32 = 128 * 1024;

/// To be called before there is a second thread.
#[cfg(target_env = "gnu")]
pub(crate) fn configure() {
    let settings =
        [(libc::M_ARENA_MAX, ARENAS), (libc::M_TRIM_THRESHOLD, KEEP_BYTES), (libc::M_MMAP_THRESHOLD, KEEP_BYTES)];
    for (parameter, value) in settings {
        // SAFETY: changes numbers of the allocator, while no other thread allocates. What it refuses stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is free inside; after something large was freed. Takes a millisecond for every 20 MB or so.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: takes the allocator's own locks, and touches only memory that is free.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn configure() {}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
