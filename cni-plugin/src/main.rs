//! CNI plugin of Weft: one exec, synchronous, netlink only.
fn main() {}
