//! Session affinity: a client that comes back in time gets the endpoint it had.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
use weft_ebpf_abi::{AffinityKey, AffinityRecord, ServiceValue};

use crate::{
    maps::AFFINITY,
    service::{Chosen, endpoint_at, locate, take_turn},
};

const NANOSECONDS: u64 = 1_000_000_000;

/// The endpoint this client had, if that is in the set and the last connection is not too long ago; or the next in turn, which is
/// recorded.
#[inline(always)]
pub(crate) fn choose(ctx: &SockAddrContext, service: &ServiceValue, v4: bool) -> Option<Chosen> {
    // SAFETY: the context pointer is the kernel's.
    let client = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let key = AffinityKey { client, affinity_id: service.affinity_id, padding: 0 };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(record) = AFFINITY.get_ptr_mut(key) {
        // SAFETY: copied at once. The kernel may have evicted the element and reused it for another client: whatever endpoint is read
        // counts only if it is in this set, so that at worst this one connection goes astray among the Service's own endpoints.
        let AffinityRecord { last_used_ns, endpoint, slot } = unsafe { *record };
        let age = now.saturating_sub(last_used_ns);
        if age <= u64::from(service.affinity_seconds) * NANOSECONDS
            && let Some(chosen) = locate(service, &endpoint, slot, v4)
        {
            // SAFETY: as above; a client that got the element meanwhile has just connected too.
            unsafe {
                (*record).last_used_ns = now;
                (*record).slot = chosen.slot;
            }
            return Some(chosen);
        }
        // It may be gone already, which is as well.
        let _ = AFFINITY.remove(key);
    }
    let chosen = take_turn(service, v4)?;
    let record = AffinityRecord { last_used_ns: now, endpoint: chosen.endpoint, slot: chosen.slot };
    // Sockets that connect at the same time all follow the first. Another failure means there is nothing to evict; then this
    // connection leaves no trace.
    if AFFINITY.insert(key, record, u64::from(BPF_NOEXIST)).is_err()
        // SAFETY: as above.
        && let Some(AffinityRecord { endpoint, slot, .. }) = unsafe { AFFINITY.get(key).copied() }
        && let Some(first) = endpoint_at(service, &endpoint, slot, v4)
    {
        return Some(first);
    }
    Some(chosen)
}
