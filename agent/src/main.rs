//! `weft`: the node agent and the operator's command.
fn main() {}
