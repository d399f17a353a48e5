//! The pinned maps of the attached programs, to look into from outside: nothing is made, loaded or written.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use nix::time::{ClockId, clock_gettime};
use weft_ebpf_abi::{
    ABI_VERSION, AffinityKey, AffinityRecord, Backend4, Backend6, Config, ServiceKey4, ServiceKey6, ServiceValue, name,
};

use crate::{
    Error,
    pins::{directory, exists, link},
    plane::HOOKS,
    sys,
};

/// Maps as the programs that are attached see them. A read costs one system call.
pub struct PinnedMaps {
    directory: PathBuf,
    services4: HashMap<MapData, ServiceKey4, ServiceValue>,
    services6: HashMap<MapData, ServiceKey6, ServiceValue>,
    backends4: Array<MapData, Backend4>,
    backends6: Array<MapData, Backend6>,
    round_robin: Array<MapData, u64>,
    node_addresses4: HashMap<MapData, u32, u32>,
    node_addresses6: HashMap<MapData, [u32; 4], u32>,
    config: Array<MapData, Config>,
    affinity: HashMap<MapData, AffinityKey, AffinityRecord>,
}

impl PinnedMaps {
    /// Opens the maps of this ABI version; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::File`] or [`Error::MissingPrivilege`].
    pub fn open(bpffs: &Path) -> Result<Option<Self>, Error> {
        let directory = directory(bpffs, ABI_VERSION);
        if !exists(&directory.join(name::SERVICES4))? {
            return Ok(None);
        }
        Ok(Some(Self {
            services4: hash(&directory, name::SERVICES4)?,
            services6: hash(&directory, name::SERVICES6)?,
            backends4: array(&directory, name::BACKENDS4)?,
            backends6: array(&directory, name::BACKENDS6)?,
            round_robin: array(&directory, name::ROUND_ROBIN)?,
            node_addresses4: hash(&directory, name::NODE_ADDRESSES4)?,
            node_addresses6: hash(&directory, name::NODE_ADDRESSES6)?,
            config: array(&directory, name::CONFIG)?,
            affinity: hash(&directory, name::AFFINITY)?,
            directory,
        }))
    }

    /// Programs that are not attached to the cgroup: their link is gone, or its cgroup, or it is another cgroup.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::MissingPrivilege`].
    pub fn detached(&self, cgroup: &Path) -> Result<Vec<&'static str>, Error> {
        let cgroup_id = File::open(cgroup)
            .and_then(|file| file.metadata())
            .map_err(|source| Error::file("look at", cgroup, source))?
            .ino();
        let mut detached = Vec::new();
        for hook in &HOOKS {
            let pin = link(&self.directory, hook.program);
            let attached_to = match sys::open_pin(&pin) {
                Ok(link) => sys::link_cgroup(&link).map_err(|source| Error::file("look at", &pin, source))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(source) => return Err(Error::file("open", &pin, source)),
            };
            if attached_to != cgroup_id {
                detached.push(hook.program);
            }
        }
        Ok(detached)
    }

    /// The element of `SERVICES4`.
    ///
    /// # Errors
    /// [`Error::Map`], as of all the following.
    pub fn service4(&self, key: &ServiceKey4) -> Result<Option<ServiceValue>, Error> {
        get(&self.services4, key, name::SERVICES4)
    }

    /// The element of `SERVICES6`.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn service6(&self, key: &ServiceKey6) -> Result<Option<ServiceValue>, Error> {
        get(&self.services6, key, name::SERVICES6)
    }

    /// The element of `BACKENDS4`; `None` beyond its end.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn backend4(&self, index: u32) -> Result<Option<Backend4>, Error> {
        element(&self.backends4, index, name::BACKENDS4)
    }

    /// The element of `BACKENDS6`; `None` beyond its end.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn backend6(&self, index: u32) -> Result<Option<Backend6>, Error> {
        element(&self.backends6, index, name::BACKENDS6)
    }

    /// Turns a backend set has taken; `None`: there is no such set.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn turns(&self, set: u32) -> Result<Option<u64>, Error> {
        element(&self.round_robin, set, name::ROUND_ROBIN)
    }

    /// Flags of an IPv4 address NodePorts are accepted at; the key is in network order.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn node_address4(&self, address_be: u32) -> Result<Option<u32>, Error> {
        get(&self.node_addresses4, &address_be, name::NODE_ADDRESSES4)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn node_address6(&self, address_be: [u32; 4]) -> Result<Option<u32>, Error> {
        get(&self.node_addresses6, &address_be, name::NODE_ADDRESSES6)
    }

    /// The programs' configuration.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn config(&self) -> Result<Config, Error> {
        Ok(element(&self.config, 0, name::CONFIG)?.unwrap_or_default())
    }

    /// Which endpoint a client has. Looking makes the record a recently used one, which delays its eviction and nothing else.
    ///
    /// # Errors
    /// See [`PinnedMaps::service4`].
    pub fn affinity(&self, key: &AffinityKey) -> Result<Option<AffinityRecord>, Error> {
        get(&self.affinity, key, name::AFFINITY)
    }
}

/// The time as [`AffinityRecord::last_used_ns`] has it; `None` if the kernel does not tell.
pub fn now() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_MONOTONIC).ok().map(Duration::from)
}

/// Number of the calling thread's network namespace, as [`AffinityKey::client`] has it.
///
/// # Errors
/// The kernel is older than 5.14.
pub fn netns_cookie() -> io::Result<u64> {
    sys::netns_cookie()
}

fn open(directory: &Path, map: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(directory.join(map)).map_err(|source| error("open pinned", map, source))
}

fn hash<K: Pod, V: Pod>(directory: &Path, map: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
    let data = open(directory, map)?;
    let data = if map == name::AFFINITY { Map::LruHashMap(data) } else { Map::HashMap(data) };
    data.try_into().map_err(|source| error("open pinned", map, source))
}

fn array<V: Pod>(directory: &Path, map: &'static str) -> Result<Array<MapData, V>, Error> {
    Map::Array(open(directory, map)?).try_into().map_err(|source| error("open pinned", map, source))
}

fn get<K: Pod, V: Pod>(from: &HashMap<MapData, K, V>, key: &K, map: &'static str) -> Result<Option<V>, Error> {
    match from.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(error("read", map, source)),
    }
}

fn element<V: Pod>(from: &Array<MapData, V>, index: u32, map: &'static str) -> Result<Option<V>, Error> {
    match from.get(&index, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::OutOfBounds { .. } | MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(error("read", map, source)),
    }
}

fn error(doing: &'static str, map: &'static str, source: MapError) -> Error {
    Error::Map { doing, map, source: Box::new(source) }
}
