//! Map layouts shared by the eBPF programs and the agent.
//!
//! Everything here is pinned in the kernel and outlives the process that wrote it, so each layout is `repr(C)`, has fixed-width fields
//! and explicit padding, and names the byte order of a field that is not in host order (`_be`). Sizes and offsets are checked at
//! compile time. A change of any layout or meaning needs a new [`ABI_VERSION`]; sizes of maps may differ from node to node.
#![no_std]

mod affinity;
mod maps;
mod peer;
mod service;
mod socket;

pub use affinity::{AffinityKey, AffinityRecord};
pub use maps::{
    AFFINITY_CAPACITY, BACKENDS_CAPACITY, CAPACITY_LIMIT, CONNECTIONS_CAPACITY, MAPS, MapKind, MapSpec, NO_PREALLOC,
    NODE_ADDRESSES_CAPACITY, ROUND_ROBIN_CAPACITY, SERVICES_CAPACITY, UDP_FLOWS_CAPACITY, name,
};
pub use peer::{Peer, address_v4, address_v6, ipv4, ipv6};
pub use service::{
    Backend4, Backend6, Config, NODE_ADDRESS_HOST_ONLY, SCOPE_ADDRESS, SCOPE_NODE_PORT, SERVICE_DROP, SERVICE_REJECT,
    ServiceKey4, ServiceKey6, ServiceValue,
};
pub use socket::{FlowKey, SOCKET_CONNECTED, SOCKET_FLOWS, SocketState, UdpFlow};

/// Version of all layouts together; the name of the pin directory (`<bpffs>/weft/v<ABI_VERSION>/`).
pub const ABI_VERSION: u32 = 2;

/// IP protocol numbers the socket programs translate (IANA). Anything else passes untouched.
pub const PROTOCOL_TCP: u8 = 6;
/// See [`PROTOCOL_TCP`].
pub const PROTOCOL_UDP: u8 = 17;

#[cfg(feature = "user")]
mod pod {
    //! Leave for userspace to copy the layouts to and from maps as bytes.
    #![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

    use super::{
        AffinityKey, AffinityRecord, Backend4, Backend6, Config, FlowKey, Peer, ServiceKey4, ServiceKey6, ServiceValue,
        SocketState, UdpFlow,
    };

    macro_rules! pod {
        ($($layout:ty),+) => {
            $(
                // SAFETY: repr(C), Copy, integers and arrays of integers only, and no implicit padding (const-asserted
                // beside each definition): every bit pattern is a value and every byte is initialised.
                unsafe impl aya::Pod for $layout {}
            )+
        };
    }

    pod!(
        AffinityKey,
        AffinityRecord,
        Backend4,
        Backend6,
        Config,
        FlowKey,
        Peer,
        ServiceKey4,
        ServiceKey6,
        ServiceValue,
        SocketState,
        UdpFlow
    );
}
