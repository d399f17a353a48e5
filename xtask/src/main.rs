//! `cargo xtask`: set up, demonstrate, test, check and measure Weft.
fn main() {}
