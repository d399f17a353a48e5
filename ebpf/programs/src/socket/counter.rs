//! The one atomic operation.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Adds one and returns what was there before.
///
/// SeqCst although nothing is ordered by it: with Relaxed, LLVM 22 emits an add without fetch and hands back the addend, so that every
/// connection goes to the same endpoint. `AtomicU64::fetch_add` does not exist on this target (no compare-and-swap), and fetch-add
/// itself needs `-Ctarget-cpu=v3`.
///
/// # Safety
/// `counter` must point to an element of an array map.
#[inline(always)]
pub(crate) unsafe fn fetch_increment(counter: *mut u64) -> u64 {
    // SAFETY: the caller's promise; array maps align their values to 8 bytes and never free them.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, 1) }
}
