//! Large maps without air in them.

use std::{collections::BTreeMap, mem};

/// Moves the entries into full nodes. A map that was filled in the order of its keys has nodes little more than half full,
/// for each is divided when the next key comes; with ten thousand Service ports those are megabytes.
pub(crate) fn pack<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = mem::take(map).into_iter().collect();
}
