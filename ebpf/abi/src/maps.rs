//! Names, kinds and sizes of the maps. The sizes here are those of a node whose operator asked for no others.

use crate::{
    AffinityKey, AffinityRecord, Backend4, Backend6, Config, FlowKey, Peer, ServiceKey4, ServiceKey6, ServiceValue,
    SocketState, UdpFlow,
};

/// Elements of `SERVICES4` and of `SERVICES6`: one per frontend. 30,000 Services with a ClusterIP and a NodePort fit twice.
pub const SERVICES_CAPACITY: u32 = 1 << 17;
/// Elements of `BACKENDS4` and of `BACKENDS6`, in blocks of a power of two: 100,000 endpoints in sets of 10 take 160,000. 4 MB and 6 MB.
pub const BACKENDS_CAPACITY: u32 = 1 << 18;
/// Elements of `ROUND_ROBIN`: backend sets, at most two per Service port and family, and one more with session affinity.
pub const ROUND_ROBIN_CAPACITY: u32 = 1 << 17;
/// Elements of `CONNECTIONS`: one per endpoint of each Service port and family.
pub const CONNECTIONS_CAPACITY: u32 = 1 << 18;
/// Elements of `NODE_ADDRESSES4` and of `NODE_ADDRESSES6`.
pub const NODE_ADDRESSES_CAPACITY: u32 = 1 << 10;
/// Elements of `AFFINITY`: pairs of a client on this node and a Service with session affinity it uses. The kernel evicts the least
/// recently used, whose client then takes a turn. Allocated at once, 4 MB.
pub const AFFINITY_CAPACITY: u32 = 1 << 15;
/// Elements of `UDP_FLOWS` and of `UDP_REPLIES`: sockets in use at once that send to Services without connect. The kernel evicts the
/// least recently used, which then takes its turn anew. Allocated at once, 4 MB each.
pub const UDP_FLOWS_CAPACITY: u32 = 1 << 15;

/// Most elements any map may be given. The programs look for an endpoint in a set by halves, and this is how often they can.
pub const CAPACITY_LIMIT: u32 = 1 << 24;

/// `BPF_F_NO_PREALLOC` of linux/bpf.h: elements are allocated as they are inserted, so an empty map costs its buckets only.
pub const NO_PREALLOC: u32 = 1;

/// Names of the maps: symbol in the object, and file name of the pin. At most 15 bytes (`BPF_OBJ_NAME_LEN`).
pub mod name {
    /// [`ServiceKey4`](crate::ServiceKey4) to [`ServiceValue`](crate::ServiceValue).
    pub const SERVICES4: &str = "SERVICES4";
    /// [`ServiceKey6`](crate::ServiceKey6) to [`ServiceValue`](crate::ServiceValue).
    pub const SERVICES6: &str = "SERVICES6";
    /// Blocks of [`Backend4`](crate::Backend4).
    pub const BACKENDS4: &str = "BACKENDS4";
    /// Blocks of [`Backend6`](crate::Backend6).
    pub const BACKENDS6: &str = "BACKENDS6";
    /// Next turn of each backend set, u64. Apart from `SERVICES`, whose elements are replaced as a whole.
    pub const ROUND_ROBIN: &str = "ROUND_ROBIN";
    /// New connections of each endpoint, u64.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// IPv4 addresses (u32, network order) NodePorts are accepted at, to u32 flags.
    pub const NODE_ADDRESSES4: &str = "NODE_ADDRESSES4";
    /// IPv6 addresses (four u32, network order) NodePorts are accepted at, to u32 flags.
    pub const NODE_ADDRESSES6: &str = "NODE_ADDRESSES6";
    /// One [`Config`](crate::Config).
    pub const CONFIG: &str = "CONFIG";
    /// [`SocketState`](crate::SocketState) of each socket that used a Service.
    pub const SOCKET: &str = "SOCKET";
    /// [`AffinityKey`](crate::AffinityKey) to [`AffinityRecord`](crate::AffinityRecord).
    pub const AFFINITY: &str = "AFFINITY";
    /// [`FlowKey`](crate::FlowKey) to [`UdpFlow`](crate::UdpFlow).
    pub const UDP_FLOWS: &str = "UDP_FLOWS";
    /// [`FlowKey`](crate::FlowKey) to [`Peer`](crate::Peer).
    pub const UDP_REPLIES: &str = "UDP_REPLIES";
}

/// The kinds of map in use, numbered as `enum bpf_map_type` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_SK_STORAGE`.
    SocketStorage = 24,
}

/// What a pinned map must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// One of [`name`].
    pub name: &'static str,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most elements, unless the operator asks for another number; 0 for socket storage, which has no limit of its own.
    pub max_entries: u32,
    /// Creation flags: 0 or [`NO_PREALLOC`].
    pub flags: u32,
}

const fn spec<K, V>(name: &'static str, kind: MapKind, max_entries: u32, flags: u32) -> MapSpec {
    MapSpec { name, kind, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, max_entries, flags }
}

/// Every map of this ABI version.
pub const MAPS: [MapSpec; 13] = [
    spec::<ServiceKey4, ServiceValue>(name::SERVICES4, MapKind::Hash, SERVICES_CAPACITY, NO_PREALLOC),
    spec::<ServiceKey6, ServiceValue>(name::SERVICES6, MapKind::Hash, SERVICES_CAPACITY, NO_PREALLOC),
    spec::<u32, Backend4>(name::BACKENDS4, MapKind::Array, BACKENDS_CAPACITY, 0),
    spec::<u32, Backend6>(name::BACKENDS6, MapKind::Array, BACKENDS_CAPACITY, 0),
    spec::<u32, u64>(name::ROUND_ROBIN, MapKind::Array, ROUND_ROBIN_CAPACITY, 0),
    spec::<u32, u64>(name::CONNECTIONS, MapKind::Array, CONNECTIONS_CAPACITY, 0),
    spec::<u32, u32>(name::NODE_ADDRESSES4, MapKind::Hash, NODE_ADDRESSES_CAPACITY, NO_PREALLOC),
    spec::<[u32; 4], u32>(name::NODE_ADDRESSES6, MapKind::Hash, NODE_ADDRESSES_CAPACITY, NO_PREALLOC),
    spec::<u32, Config>(name::CONFIG, MapKind::Array, 1, 0),
    spec::<i32, SocketState>(name::SOCKET, MapKind::SocketStorage, 0, NO_PREALLOC),
    spec::<AffinityKey, AffinityRecord>(name::AFFINITY, MapKind::LruHash, AFFINITY_CAPACITY, 0),
    spec::<FlowKey, UdpFlow>(name::UDP_FLOWS, MapKind::LruHash, UDP_FLOWS_CAPACITY, 0),
    spec::<FlowKey, Peer>(name::UDP_REPLIES, MapKind::LruHash, UDP_FLOWS_CAPACITY, 0),
];
