//! How full the maps are, for status and metrics.

use weft_ebpf::{Error, MapSizes, Maps};
use weft_ebpf_abi::name;

use super::table::Table;
use crate::dataplane::MapFill;

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
