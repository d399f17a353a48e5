//! What the fuzz targets share: random objects, and what has to be true of every plan.

pub mod invariants;
pub mod objects;
