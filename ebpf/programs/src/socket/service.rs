//! From a destination to a Service, and from there to one of its endpoints.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use weft_ebpf_abi::{
    Config, NODE_ADDRESS_HOST_ONLY, Peer, SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_REJECT, ServiceKey4, ServiceKey6,
    ServiceValue,
};

use crate::{
    DENY,
    counter::fetch_increment,
    maps::{
        BACKENDS4, BACKENDS6, CONFIG, CONNECTIONS, NODE_ADDRESSES4, NODE_ADDRESSES6, ROUND_ROBIN, SERVICES4, SERVICES6,
    },
};

/// ECONNREFUSED of asm-generic/errno.h.
const ECONNREFUSED: i32 = 111;

/// What becomes of a destination.
pub(crate) enum Choice {
    /// It is replaced by this endpoint.
    Endpoint(Chosen),
    /// The call fails with ECONNREFUSED.
    Reject,
    /// It stays: the packet path drops it, or the maps are being changed under us.
    Leave,
}

/// One endpoint of a backend set.
pub(crate) struct Chosen {
    /// Where it is.
    pub(crate) endpoint: Peer,
    /// Its place in the set.
    pub(crate) slot: u32,
}

/// The Service at `peer`, if there is one.
#[inline(always)]
pub(crate) fn find(ctx: &SockAddrContext, peer: &Peer, protocol: u8) -> Option<ServiceValue> {
    match peer.as_v4() {
        Some(address_be) => find4(ctx, address_be, peer.port_be, protocol),
        None => find6(ctx, peer, protocol),
    }
}

#[inline(always)]
fn find4(ctx: &SockAddrContext, address_be: u32, port_be: u16, protocol: u8) -> Option<ServiceValue> {
    let key = ServiceKey4 { address_be, port_be, protocol, scope: SCOPE_ADDRESS };
    // SAFETY: `settled` copes with elements that change while they are read; their memory stays the map's.
    if let Some(service) = settled(|| unsafe { SERVICES4.get(key).copied() }) {
        return Some(service);
    }
    let config = config_for_node_port(port_be)?;
    // SAFETY: one word, read at once.
    let flags = unsafe { NODE_ADDRESSES4.get(address_be).copied()? };
    if !accepted(ctx, config, flags) {
        return None;
    }
    let key = ServiceKey4 { address_be: 0, port_be, protocol, scope: SCOPE_NODE_PORT };
    // SAFETY: as above.
    settled(|| unsafe { SERVICES4.get(key).copied() })
}

#[inline(always)]
fn find6(ctx: &SockAddrContext, peer: &Peer, protocol: u8) -> Option<ServiceValue> {
    let Peer { address_be, port_be, .. } = *peer;
    let key = ServiceKey6 { address_be, port_be, protocol, scope: SCOPE_ADDRESS };
    // SAFETY: as in `find4`.
    if let Some(service) = settled(|| unsafe { SERVICES6.get(key).copied() }) {
        return Some(service);
    }
    let config = config_for_node_port(port_be)?;
    // SAFETY: as in `find4`.
    let flags = unsafe { NODE_ADDRESSES6.get(address_be).copied()? };
    if !accepted(ctx, config, flags) {
        return None;
    }
    let key = ServiceKey6 { address_be: [0; 4], port_be, protocol, scope: SCOPE_NODE_PORT };
    // SAFETY: as in `find4`.
    settled(|| unsafe { SERVICES6.get(key).copied() })
}

/// Looks an element up twice, and once more if the two looks disagree.
///
/// Since Linux 6.1 a hash map reuses a replaced element at once, for any key, without waiting for programs that still read it
/// (`htab_elem_free`, kernel/bpf/hashtab.c). Whoever is preempted between the lookup and the read can find another Service's value there.
#[inline(always)]
fn settled(look: impl Fn() -> Option<ServiceValue>) -> Option<ServiceValue> {
    let value = look()?;
    let again = look()?;
    if again == value { Some(again) } else { look() }
}

/// The configuration, if some NodePort may use the port: an array lookup that spares most connects the next two hash lookups.
#[inline(always)]
fn config_for_node_port(port_be: u16) -> Option<&'static Config> {
    let config = CONFIG.get(0)?;
    config.may_be_node_port(u16::from_be(port_be)).then_some(config)
}

#[inline(always)]
fn accepted(ctx: &SockAddrContext, config: &Config, flags: u32) -> bool {
    // SAFETY: the context pointer is the kernel's.
    flags & NODE_ADDRESS_HOST_ONLY == 0 || unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == config.host_netns_cookie
}

/// Takes the next turn of the Service's backend set.
#[inline(always)]
pub(crate) fn choose(service: &ServiceValue, v4: bool) -> Choice {
    if service.count == 0 {
        return if service.flags & SERVICE_REJECT != 0 { Choice::Reject } else { Choice::Leave };
    }
    let Some(turn) = ROUND_ROBIN.get_ptr_mut(service.set_id) else {
        return Choice::Leave;
    };
    // SAFETY: an element of an array map.
    let slot = (unsafe { fetch_increment(turn) } % u64::from(service.count)) as u32;
    let Some((endpoint, counter)) = backend(service.base, slot, v4) else {
        return Choice::Leave;
    };
    if let Some(connections) = CONNECTIONS.get_ptr_mut(counter) {
        // SAFETY: an element of an array map.
        unsafe { fetch_increment(connections) };
    }
    Choice::Endpoint(Chosen { endpoint, slot })
}

/// The endpoint in one slot of a block, and its counter.
#[inline(always)]
pub(crate) fn backend(base: u32, slot: u32, v4: bool) -> Option<(Peer, u32)> {
    let index = base.wrapping_add(slot);
    if v4 {
        BACKENDS4.get(index).map(|backend| (backend.peer(), backend.counter))
    } else {
        BACKENDS6.get(index).map(|backend| (backend.peer(), backend.counter))
    }
}

/// Fails the call with ECONNREFUSED; without `bpf_set_retval` it would be EPERM.
#[inline(always)]
pub(crate) fn reject() -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
