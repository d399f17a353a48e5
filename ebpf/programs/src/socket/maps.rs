//! The maps, as `weft_ebpf_abi::MAPS` lists them. The loader puts the operator's sizes in and compares all with what is pinned.

use aya_ebpf::{
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap},
};
use weft_ebpf_abi::{
    AFFINITY_CAPACITY, AffinityKey, AffinityRecord, BACKENDS_CAPACITY, Backend4, Backend6, CONNECTIONS_CAPACITY,
    Config, FlowKey, NO_PREALLOC, NODE_ADDRESSES_CAPACITY, Peer, ROUND_ROBIN_CAPACITY, SERVICES_CAPACITY, ServiceKey4,
    ServiceKey6, ServiceValue, SocketState, UDP_FLOWS_CAPACITY, UdpFlow,
};

#[map]
pub(crate) static SERVICES4: HashMap<ServiceKey4, ServiceValue> =
    HashMap::with_max_entries(SERVICES_CAPACITY, NO_PREALLOC);
#[map]
pub(crate) static SERVICES6: HashMap<ServiceKey6, ServiceValue> =
    HashMap::with_max_entries(SERVICES_CAPACITY, NO_PREALLOC);
#[map]
pub(crate) static BACKENDS4: Array<Backend4> = Array::with_max_entries(BACKENDS_CAPACITY, 0);
#[map]
pub(crate) static BACKENDS6: Array<Backend6> = Array::with_max_entries(BACKENDS_CAPACITY, 0);
#[map]
pub(crate) static ROUND_ROBIN: Array<u64> = Array::with_max_entries(ROUND_ROBIN_CAPACITY, 0);
#[map]
pub(crate) static CONNECTIONS: Array<u64> = Array::with_max_entries(CONNECTIONS_CAPACITY, 0);
#[map]
pub(crate) static NODE_ADDRESSES4: HashMap<u32, u32> = HashMap::with_max_entries(NODE_ADDRESSES_CAPACITY, NO_PREALLOC);
#[map]
pub(crate) static NODE_ADDRESSES6: HashMap<[u32; 4], u32> =
    HashMap::with_max_entries(NODE_ADDRESSES_CAPACITY, NO_PREALLOC);
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[btf_map]
pub(crate) static SOCKET: SkStorage<SocketState> = SkStorage::new();
#[map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityRecord> =
    LruHashMap::with_max_entries(AFFINITY_CAPACITY, 0);
#[map]
pub(crate) static UDP_FLOWS: LruHashMap<FlowKey, UdpFlow> = LruHashMap::with_max_entries(UDP_FLOWS_CAPACITY, 0);
#[map]
pub(crate) static UDP_REPLIES: LruHashMap<FlowKey, Peer> = LruHashMap::with_max_entries(UDP_FLOWS_CAPACITY, 0);
