//! What the fuzz targets do: random objects, and what has to be true of every plan. `tests/tests/fuzz.rs` compiles it too.

pub mod invariants;
pub mod objects;
pub mod targets;
