//! Typed handles of the maps the agent reads and writes.

use std::{
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError},
};
use weft_ebpf_abi::{
    AffinityKey, AffinityRecord, Backend4, Backend6, Config, FlowKey, Peer, ServiceKey4, ServiceKey6, ServiceValue,
    UdpFlow, name,
};

use crate::{Error, Full, MapSizes, sys};

/// A hash map. One writer is assumed; the programs only read.
pub struct HashMap<K: Pod, V: Pod> {
    name: &'static str,
    capacity: u32,
    fd: OwnedFd,
    inner: aya::maps::HashMap<MapData, K, V>,
}

/// An array map: all elements exist, 0 at first.
pub struct Array<V: Pod> {
    name: &'static str,
    capacity: u32,
    fd: OwnedFd,
    inner: aya::maps::Array<MapData, V>,
}

/// A hash map the programs keep, and the kernel evicts from: only to be looked at.
pub struct LruHash<K: Pod, V: Pod> {
    name: &'static str,
    fd: OwnedFd,
    layout: PhantomData<(K, V)>,
}

/// The maps the agent works with. What each holds: [`weft_ebpf_abi::name`].
#[expect(missing_docs, reason = "each field is the map of its name, described in weft_ebpf_abi::name")]
pub struct Maps {
    pub services4: HashMap<ServiceKey4, ServiceValue>,
    pub services6: HashMap<ServiceKey6, ServiceValue>,
    pub backends4: Array<Backend4>,
    pub backends6: Array<Backend6>,
    pub round_robin: Array<u64>,
    pub connections: Array<u64>,
    pub node_addresses4: HashMap<u32, u32>,
    pub node_addresses6: HashMap<[u32; 4], u32>,
    pub config: Array<Config>,
    pub affinity: LruHash<AffinityKey, AffinityRecord>,
    pub udp_flows: LruHash<FlowKey, UdpFlow>,
    pub udp_replies: LruHash<FlowKey, Peer>,
}

impl Maps {
    pub(crate) fn take(object: &mut Ebpf, sizes: &MapSizes) -> Result<Self, Error> {
        Ok(Self {
            services4: HashMap::take(object, name::SERVICES4, sizes)?,
            services6: HashMap::take(object, name::SERVICES6, sizes)?,
            backends4: Array::take(object, name::BACKENDS4, sizes)?,
            backends6: Array::take(object, name::BACKENDS6, sizes)?,
            round_robin: Array::take(object, name::ROUND_ROBIN, sizes)?,
            connections: Array::take(object, name::CONNECTIONS, sizes)?,
            node_addresses4: HashMap::take(object, name::NODE_ADDRESSES4, sizes)?,
            node_addresses6: HashMap::take(object, name::NODE_ADDRESSES6, sizes)?,
            config: Array::take(object, name::CONFIG, sizes)?,
            affinity: LruHash::take(object, name::AFFINITY)?,
            udp_flows: LruHash::take(object, name::UDP_FLOWS)?,
            udp_replies: LruHash::take(object, name::UDP_REPLIES)?,
        })
    }
}

impl<K: Pod, V: Pod> HashMap<K, V> {
    fn take(object: &mut Ebpf, name: &'static str, sizes: &MapSizes) -> Result<Self, Error> {
        let (map, fd) = take(object, name)?;
        let capacity = sizes.of(name);
        let inner = map.try_into().map_err(|source| error("open", name, source))?;
        Ok(Self { name, capacity, fd, inner })
    }

    /// The value of `key`, if it is in the map.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        match self.inner.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(error("read", self.name, source)),
        }
    }

    /// All elements, in no order.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        self.inner.iter().collect::<Result<_, _>>().map_err(|source| error("read", self.name, source))
    }

    /// Inserts or replaces one element.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Map`].
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), Error> {
        self.insert_batch(std::slice::from_ref(key), std::slice::from_ref(value))
    }

    /// Inserts or replaces elements in the order given, each atomically. After a failure those before the offending one are written.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Map`].
    ///
    /// # Panics
    /// If there are not as many values as keys.
    pub fn insert_batch(&mut self, keys: &[K], values: &[V]) -> Result<(), Error> {
        write_batch(self.name, self.capacity, &self.fd, keys, values)
    }

    /// Removes an element; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn remove(&mut self, key: &K) -> Result<(), Error> {
        match self.inner.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
            // What aya makes of the kernel's "no such key" on removal.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(source) => Err(error("remove from", self.name, source)),
        }
    }
}

impl<V: Pod> Array<V> {
    fn take(object: &mut Ebpf, name: &'static str, sizes: &MapSizes) -> Result<Self, Error> {
        let (map, fd) = take(object, name)?;
        let capacity = sizes.of(name);
        let inner = map.try_into().map_err(|source| error("open", name, source))?;
        Ok(Self { name, capacity, fd, inner })
    }

    /// How many elements it has.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The element at `index`.
    ///
    /// # Errors
    /// [`Error::Map`], also if `index` is not below the capacity.
    pub fn get(&self, index: u32) -> Result<V, Error> {
        self.inner.get(&index, 0).map_err(|source| error("read", self.name, source))
    }

    /// Replaces one element.
    ///
    /// # Errors
    /// [`Error::Full`] if `index` is not below the capacity, or [`Error::Map`].
    pub fn set(&mut self, index: u32, value: &V) -> Result<(), Error> {
        self.set_batch(&[index], std::slice::from_ref(value))
    }

    /// Replaces elements: a third of the time of single calls when there are many.
    ///
    /// # Errors
    /// As [`Array::set`]; those before the offending one are written.
    ///
    /// # Panics
    /// If there are not as many values as indexes.
    pub fn set_batch(&mut self, indexes: &[u32], values: &[V]) -> Result<(), Error> {
        write_batch(self.name, self.capacity, &self.fd, indexes, values)
    }
}

impl<K: Pod, V: Pod> LruHash<K, V> {
    fn take(object: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let (_, fd) = take(object, name)?;
        Ok(Self { name, fd, layout: PhantomData })
    }

    /// How many elements it has, counted: a millisecond for every 10,000.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn count(&self) -> Result<u32, Error> {
        sys::count_elements::<K, V>(&self.fd).map_err(|source| error("count", self.name, source.into()))
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<(Map, OwnedFd), Error> {
    let map = object.take_map(name).expect("the object has every map of weft_ebpf_abi::MAPS");
    let (Map::HashMap(data) | Map::LruHashMap(data) | Map::Array(data)) = &map else {
        unreachable!("handles are made for hash and array maps only");
    };
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| error("open", name, source.into()))?;
    Ok((map, fd))
}

fn write_batch<K: Pod, V: Pod>(
    map: &'static str,
    capacity: u32,
    fd: &OwnedFd,
    keys: &[K],
    values: &[V],
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    sys::update_batch(fd, keys, values).map_err(|source| match source.raw_os_error() {
        Some(libc::E2BIG) => Full { map, capacity }.into(),
        _ => error("write", map, source.into()),
    })
}

fn error(doing: &'static str, map: &'static str, source: MapError) -> Error {
    Error::Map { doing, map, source: Box::new(source) }
}
