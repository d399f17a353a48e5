//! The scenarios, by section of kube-proxy.md.
//!
//! A group says which objects there are, in words and as objects; its rows say where the client is, what it sends to, and
//! what must happen. Servers a1 and a2 are pods of node n1, b1 and b2 pods of node n2, n1 is a process of node n1.

mod addresses;
mod affinity;
mod endpoints;
mod masquerade;
mod no_endpoints;
mod node_ports;
mod objects;
mod policies;
mod topology;

use crate::scenario::Group;

/// Sections in order, with their headings.
pub(crate) fn sections() -> Vec<(&'static str, Vec<Group>)> {
    vec![
        ("1. Which objects are looked at", objects::groups()),
        ("2. Addresses of Services", addresses::groups()),
        ("3. Traffic policies", policies::groups()),
        ("4. Conditions of endpoints", endpoints::groups()),
        ("5. Topology hints", topology::groups()),
        ("6. Addresses of NodePorts", node_ports::groups()),
        ("7. Session affinity", affinity::groups()),
        ("8. Masquerading", masquerade::groups()),
        ("9. No endpoints, source ranges, unknown addresses", no_endpoints::groups()),
    ]
}

/// All groups; a group's number is its place here, from 1.
pub(crate) fn all() -> Vec<Group> {
    sections().into_iter().flat_map(|(_, groups)| groups).collect()
}
