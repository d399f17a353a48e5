//! How full the maps are, for status and metrics.

use weft_ebpf::{Error, MapSizes, Maps};
use weft_ebpf_abi::name;

use super::table::Table;

/// How full one map is.
///
/// A map the agent writes refuses what is too much, and [`apply`](crate::dataplane::DataPlane::apply) fails with the map's name. One
/// the programs write (`AFFINITY`, `UDP_FLOWS`, `UDP_REPLIES`) forgets the oldest instead: full, it is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name, one of [`weft_ebpf_abi::name`].
    pub name: &'static str,
    /// Elements that are taken, including those that rounding to blocks wastes and those to be freed within a second.
    pub used: u32,
    /// Elements there are.
    pub capacity: u32,
    /// The flag that makes it larger, if one does.
    pub flag: Option<&'static str>,
}

pub(super) fn fill(table: &Table, maps: &Maps, sizes: &MapSizes) -> Result<Vec<MapFill>, Error> {
    let counted = [
        (name::AFFINITY, maps.affinity.count()?),
        (name::UDP_FLOWS, maps.udp_flows.count()?),
        (name::UDP_REPLIES, maps.udp_replies.count()?),
    ];
    let used = table.used().into_iter().chain(counted);
    let fill = |(name, used)| MapFill { name, used, capacity: sizes.of(name), flag: MapSizes::flag(name) };
    Ok(used.map(fill).collect())
}
