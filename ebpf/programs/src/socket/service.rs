//! From a destination to a Service, and from there to one of its endpoints.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use weft_ebpf_abi::{
    CAPACITY_LIMIT, Config, NODE_ADDRESS_HOST_ONLY, Peer, SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_REJECT, ServiceKey4,
    ServiceKey6, ServiceValue,
};

use crate::{
    DENY, affinity,
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
    /// Its element of `CONNECTIONS`.
    pub(crate) counter: u32,
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

/// Whether a NodePort may have the number of this peer's port.
#[inline(always)]
pub(crate) fn may_be_node_port(peer: &Peer) -> bool {
    config_for_node_port(peer.port_be).is_some()
}

/// Whether the peer has an address that NodePorts are accepted at.
#[inline(always)]
pub(crate) fn is_of_node(peer: &Peer) -> bool {
    let Peer { address_be, .. } = *peer;
    match peer.as_v4() {
        // SAFETY: only whether it is there is looked at.
        Some(address_be) => unsafe { NODE_ADDRESSES4.get(address_be).is_some() },
        // SAFETY: as above.
        None => unsafe { NODE_ADDRESSES6.get(address_be).is_some() },
    }
}

#[inline(always)]
fn accepted(ctx: &SockAddrContext, config: &Config, flags: u32) -> bool {
    // SAFETY: the context pointer is the kernel's.
    flags & NODE_ADDRESS_HOST_ONLY == 0 || unsafe { bpf_get_netns_cookie(ctx.as_ptr()) } == config.host_netns_cookie
}

/// Gives a new connection its endpoint: the one this client had, if the Service has session affinity, or else the next in turn.
#[inline(always)]
pub(crate) fn choose(ctx: &SockAddrContext, service: &ServiceValue, v4: bool) -> Choice {
    if service.count == 0 {
        return if service.flags & SERVICE_REJECT != 0 { Choice::Reject } else { Choice::Leave };
    }
    let chosen =
        if service.affinity_seconds == 0 { take_turn(service, v4) } else { affinity::choose(ctx, service, v4) };
    let Some(chosen) = chosen else {
        return Choice::Leave;
    };
    if let Some(connections) = CONNECTIONS.get_ptr_mut(chosen.counter) {
        // SAFETY: an element of an array map.
        unsafe { fetch_increment(connections) };
    }
    Choice::Endpoint(chosen)
}

/// Takes the next turn of the Service's backend set.
#[inline(always)]
pub(crate) fn take_turn(service: &ServiceValue, v4: bool) -> Option<Chosen> {
    let turn = ROUND_ROBIN.get_ptr_mut(service.set_id)?;
    // SAFETY: an element of an array map.
    let slot = (unsafe { fetch_increment(turn) } % u64::from(service.count)) as u32;
    backend(service.base, slot, v4)
}

/// Finds an endpoint in the Service's backend set: at `hint` as a rule, else by halves, for the set is sorted.
#[inline(always)]
pub(crate) fn locate(service: &ServiceValue, endpoint: &Peer, hint: u32, v4: bool) -> Option<Chosen> {
    if let Some(at_hint) = endpoint_at(service, endpoint, hint, v4) {
        return Some(at_hint);
    }
    let (high, low, port) = endpoint.ordinal();
    let slot = if v4 {
        search4(service.base, service.count, low, port)
    } else {
        search6(service.base, service.count, high, low, port)
    };
    endpoint_at(service, endpoint, slot, v4)
}

/// The only slot an IPv4 endpoint can be in; the arguments are a block and [`Peer::ordinal`].
///
/// A global function, which the verifier looks at once and by itself: inlined it costs 500,000 steps instead of 2,000, and the time to
/// load with them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search4(base: u32, count: u32, low: u64, port: u64) -> u32 {
    search(count, |slot| {
        let (_, middle_low, middle_port) = BACKENDS4.get(base.wrapping_add(slot))?.peer().ordinal();
        Some((middle_low, middle_port) <= (low, port))
    })
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search6(base: u32, count: u32, high: u64, low: u64, port: u64) -> u32 {
    search(count, |slot| Some(BACKENDS6.get(base.wrapping_add(slot))?.peer().ordinal() <= (high, low, port)))
}

/// The last slot for which `reached` is true, or the first. Goes on when one is left, which changes nothing and gives the loop one end.
#[inline(always)]
fn search(count: u32, reached: impl Fn(u32) -> Option<bool>) -> u32 {
    let (mut first, mut length) = (0, count);
    for _ in 0..CAPACITY_LIMIT.ilog2() {
        let half = length / 2;
        if reached(first + half).unwrap_or_default() {
            first += half;
        }
        length -= half;
    }
    first
}

/// The endpoint in this slot of the set, if it is the one expected.
#[inline(always)]
pub(crate) fn endpoint_at(service: &ServiceValue, endpoint: &Peer, slot: u32, v4: bool) -> Option<Chosen> {
    if slot >= service.count {
        return None;
    }
    backend(service.base, slot, v4).filter(|found| found.endpoint == *endpoint)
}

/// The endpoint in one slot of a block.
#[inline(always)]
fn backend(base: u32, slot: u32, v4: bool) -> Option<Chosen> {
    let index = base.wrapping_add(slot);
    if v4 {
        BACKENDS4.get(index).map(|backend| Chosen { endpoint: backend.peer(), slot, counter: backend.counter })
    } else {
        BACKENDS6.get(index).map(|backend| Chosen { endpoint: backend.peer(), slot, counter: backend.counter })
    }
}

/// Fails the call with ECONNREFUSED; without `bpf_set_retval` it would be EPERM.
#[inline(always)]
pub(crate) fn reject() -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    DENY
}
