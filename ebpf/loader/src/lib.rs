//! Loads, pins, attaches and replaces the eBPF programs, and gives typed handles of their maps.
//!
//! Knows nothing of Services: what is in the maps is `weft_proxy::ebpf`'s business. The layouts are [`weft_ebpf_abi`]'s.

mod error;
mod maps;
mod pinned;
mod pins;
mod plane;
mod privileges;
mod sizes;
mod sys;

pub use error::Error;
pub use maps::{Array, HashMap, LruHash, Maps};
pub use pinned::{PinnedMaps, netns_cookie, now};
pub use pins::remove_pins;
pub use plane::{SocketPlane, SocketPlaneConfig};
pub use sizes::{Full, MapSizes};
