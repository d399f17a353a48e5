//! How many elements the maps have, and what it means when there are no more.

use weft_ebpf_abi::{
    AFFINITY_CAPACITY, BACKENDS_CAPACITY, CAPACITY_LIMIT, CONNECTIONS_CAPACITY, NODE_ADDRESSES_CAPACITY,
    ROUND_ROBIN_CAPACITY, SERVICES_CAPACITY, UDP_FLOWS_CAPACITY, name,
};

use crate::Error;

/// The sizes an operator can choose, each from [`MapSizes::MIN`] to [`MapSizes::MAX`], by the flag [`MapSizes::flag`] names.
///
/// The default serves 30,000 Services with 100,000 endpoints in each family and takes 30 MB of the kernel. After a change the maps
/// concerned are made anew: turns, counts and session affinity begin from the start, and no connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Addresses and NodePorts of Services in each family.
    pub frontends: u32,
    /// Room for backend sets in each family, each taking the next power of two. Rounded up to a power of two itself.
    pub backends: u32,
    /// Backend sets of both families: one or two of each Service port, and one more of each with session affinity.
    pub sets: u32,
    /// Endpoints of both families that are counted, each once for every Service port it is of.
    pub endpoints: u32,
    /// Clients with session affinity: pods times the Services of that kind each uses. The oldest is forgotten for a new one.
    pub affinity: u32,
    /// Sockets that send datagrams to Services without connect. The oldest is forgotten for a new one.
    pub udp_flows: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            frontends: SERVICES_CAPACITY,
            backends: BACKENDS_CAPACITY,
            sets: ROUND_ROBIN_CAPACITY,
            endpoints: CONNECTIONS_CAPACITY,
            affinity: AFFINITY_CAPACITY,
            udp_flows: UDP_FLOWS_CAPACITY,
        }
    }
}

impl MapSizes {
    /// Smallest size: what a single-node cluster needs for itself.
    pub const MIN: u32 = 64;
    /// Largest size.
    pub const MAX: u32 = CAPACITY_LIMIT;

    /// Elements of one map of [`weft_ebpf_abi::MAPS`]; 0 for socket storage, which has no limit.
    pub fn of(&self, map: &str) -> u32 {
        match map {
            name::SERVICES4 | name::SERVICES6 => self.frontends,
            name::BACKENDS4 | name::BACKENDS6 => self.backends.next_power_of_two(),
            name::ROUND_ROBIN => self.sets,
            name::CONNECTIONS => self.endpoints,
            name::AFFINITY => self.affinity,
            name::UDP_FLOWS | name::UDP_REPLIES => self.udp_flows,
            name::NODE_ADDRESSES4 | name::NODE_ADDRESSES6 => NODE_ADDRESSES_CAPACITY,
            name::CONFIG => 1,
            _ => 0,
        }
    }

    /// The flag that sets the size of one map, if there is one.
    pub fn flag(map: &str) -> Option<&'static str> {
        Some(match map {
            name::SERVICES4 | name::SERVICES6 => "--ebpf-max-frontends",
            name::BACKENDS4 | name::BACKENDS6 => "--ebpf-max-backends",
            name::ROUND_ROBIN => "--ebpf-max-sets",
            name::CONNECTIONS => "--ebpf-max-endpoints",
            name::AFFINITY => "--ebpf-max-affinity",
            name::UDP_FLOWS | name::UDP_REPLIES => "--ebpf-max-udp-flows",
            _ => return None,
        })
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let maps = [
            (name::SERVICES4, self.frontends),
            (name::BACKENDS4, self.backends),
            (name::ROUND_ROBIN, self.sets),
            (name::CONNECTIONS, self.endpoints),
            (name::AFFINITY, self.affinity),
            (name::UDP_FLOWS, self.udp_flows),
        ];
        match maps.into_iter().find(|(_, size)| !(Self::MIN..=Self::MAX).contains(size)) {
            Some((map, size)) => Err(Error::Size { flag: Self::flag(map).unwrap_or_default(), size }),
            None => Ok(()),
        }
    }
}

/// A map is full. What was to be in it is not served, and what was there before still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map} is full: {capacity} elements; {}", remedy(map))]
pub struct Full {
    /// Its name.
    pub map: &'static str,
    /// How many elements it holds.
    pub capacity: u32,
}

fn remedy(map: &str) -> String {
    match MapSizes::flag(map) {
        Some(flag) => format!("raise {flag}"),
        // The addresses of the node itself, the only other thing there can be too many of.
        None => "name fewer with --nodeport-addresses".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use weft_ebpf_abi::{MAPS, MapKind};

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_object() {
        let sizes = MapSizes::default();
        for spec in &MAPS {
            assert_eq!(sizes.of(spec.name), spec.max_entries, "{}", spec.name);
            assert_eq!(sizes.of(spec.name) == 0, spec.kind == MapKind::SocketStorage);
        }
        assert!(sizes.check().is_ok());
    }

    #[test]
    fn mistakes_and_full_maps_name_the_flag() {
        let sizes = MapSizes { backends: 63, ..MapSizes::default() };
        assert_eq!(sizes.check().unwrap_err().to_string(), "--ebpf-max-backends is 63 and must be from 64 to 16777216");
        assert_eq!(MapSizes { backends: 65, ..sizes }.of(name::BACKENDS6), 128);
        let full = Full { map: name::SERVICES6, capacity: 64 };
        assert_eq!(full.to_string(), "map SERVICES6 is full: 64 elements; raise --ebpf-max-frontends");
        let full = Full { map: name::NODE_ADDRESSES4, capacity: 1024 };
        assert_eq!(
            full.to_string(),
            "map NODE_ADDRESSES4 is full: 1024 elements; name fewer with --nodeport-addresses"
        );
    }
}
