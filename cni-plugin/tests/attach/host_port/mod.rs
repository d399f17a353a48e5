//! hostPort (section 8): packets from a client outside, from the node and from the pods themselves.

mod iptables;
mod killed;
mod loopback;
mod packets;
mod restore;
mod site;

pub(crate) use site::{assert_no_records, mapping, rules};
