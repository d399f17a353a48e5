//! Socket-level load balancing: the plan carried into BPF maps.
//!
//! Serves clients on this node, in pods and in the host's namespace, at every TCP and UDP frontend, when they connect or send a
//! datagram. What comes from outside is the packet path's. In particular (numbers are kube-proxy.md's):
//!
//! * The ClusterIP follows the internal outcome. NodePorts, externalIPs and load balancer addresses follow the external outcome for
//!   clients of this node: an external traffic policy Local does not bind them, be they pods or processes of the host (3.5, 3.6).
//! * REJECT is ECONNREFUSED from connect and from sendto, at once: for UDP too, where packets would answer only a later call. DROP leaves
//!   the destination as it is and the packet path drops, so that a client waits as long as any other.
//! * IPv4-mapped addresses are IPv4 in every respect: Services, NodePorts, affinity, and what getpeername and recvfrom show.
//! * Load balancer addresses with source ranges are left to the packets, for a socket often has no source address yet when it connects.
//!   So is every protocol but TCP and UDP: SCTP never calls these hooks. The subflows of MPTCP are TCP.
//! * Session affinity (section 7) is of the client's network namespace, which stands for its source IP: see
//!   [`weft_ebpf_abi::AffinityKey`]. A Service port has one number for all its frontends; a record counts only for endpoints of the set
//!   the connection is for. Records live in the kernel, across agents, until the map that has the operator's size forgets the oldest.
//!   A UDP socket that does not connect is one connection, however long it sends.
//! * No miss is silent: a map that is full refuses the Service port by name, with the flag that sets the map's size; [`DataPlane::fill`] tells
//!   how near that is.
//!
//! `table` has the shadow of the maps and computes what to write, purely; `takeover` adopts what a former agent left; `writes` fixes
//! the order; `kernel` does it.

mod blocks;
mod claims;
mod fill;
mod frontend;
mod ids;
mod kernel;
mod live;
mod port;
mod storage;
mod table;
mod takeover;
#[cfg(test)]
mod tests;
mod writes;

use std::{path::Path, time::Instant};

pub use live::live;
pub use weft_ebpf::{MapSizes, SocketPlaneConfig};
use weft_ebpf::{SocketPlane, remove_pins};

use self::{
    table::{Refused, Table},
    writes::Target,
};
use crate::{
    dataplane::{Changed, DataPlane, DataPlaneError, Desired, EndpointConnections, MapFill},
    plan::PlanKey,
};

const NAME: &str = "ebpf";

/// The socket programs of this node and what is in their maps.
///
/// Dropping it leaves everything in the kernel as it is.
pub struct Ebpf {
    config: SocketPlaneConfig,
    plane: SocketPlane,
    table: Table,
    /// Whether the shadow is what the maps hold.
    in_step: bool,
}

impl Ebpf {
    /// Opens the maps, or makes them, and loads the programs. Clients notice nothing before the first [`DataPlane::apply`].
    ///
    /// Must be called in the node's network namespace: sockets of that one may use NodePorts at loopback addresses.
    ///
    /// # Errors
    /// What the kernel lacks or refuses; [`weft_ebpf::Error::is_permission_denied`] tells missing privileges from the rest.
    pub fn open(config: SocketPlaneConfig) -> Result<Self, weft_ebpf::Error> {
        let plane = SocketPlane::open(&config)?;
        let table = Table::new(config.sizes);
        Ok(Self { config, plane, table, in_step: false })
    }

    /// NodePorts are not at the host's loopback addresses: `nodePortAddresses` leaves them out, or `localhostNodePorts` is off (6.6).
    pub fn without_localhost_node_ports(mut self) -> Self {
        self.table.serve_node_ports_at_localhost(false);
        self
    }

    fn try_apply(&mut self, desired: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        let everything = !self.in_step || *changed == Changed::Everything;
        let now = Instant::now();
        let planned = if everything {
            let observed = self.plane.maps().observe().map_err(|error| failed("read the maps", error))?;
            self.table.take_over(&observed, desired, now)
        } else {
            self.table.plan(desired, changed, now)
        };
        planned.writes.write(self.plane.maps_mut()).map_err(|error| failed("write the maps", error))?;
        if everything {
            // Last, so that programs of another ABI version work on until the maps of this one are filled.
            self.plane.attach().map_err(|error| failed("attach the socket programs", error))?;
        }
        refusal(&planned.refused)
    }
}

impl DataPlane for Ebpf {
    fn name(&self) -> &'static str {
        NAME
    }

    fn apply(&mut self, desired: &Desired, changed: &Changed) -> Result<(), DataPlaneError> {
        let result = self.try_apply(desired, changed);
        self.in_step = result.is_ok();
        result
    }

    fn is_intact(&mut self) -> Result<bool, DataPlaneError> {
        self.plane.is_attached().map_err(|error| failed("look for the pins", error))
    }

    fn connections(&self, key: &PlanKey) -> Result<Vec<EndpointConnections>, DataPlaneError> {
        let Some(port) = self.table.port(key) else { return Ok(Vec::new()) };
        let mut connections = Vec::new();
        for (endpoint, counter) in port.counters() {
            let count = Target::connections(self.plane.maps(), counter)
                .map_err(|error| failed(&format!("count the connections of {key}"), error))?;
            connections.push(EndpointConnections { endpoint, connections: count });
        }
        Ok(connections)
    }

    fn fill(&self) -> Result<Vec<MapFill>, DataPlaneError> {
        fill::fill(&self.table, self.plane.maps(), &self.config.sizes).map_err(|error| failed("count elements", error))
    }

    fn cleanup(&mut self) -> Result<(), DataPlaneError> {
        self.in_step = false;
        cleanup(&self.config.bpffs)
    }
}

/// Removes every pin below `bpffs`, of any ABI version, and so detaches the programs. Works without loading anything first; nothing there
/// is no error.
///
/// # Errors
/// The first pin that could not be removed; the others are gone.
pub fn cleanup(bpffs: &Path) -> Result<(), DataPlaneError> {
    remove_pins(bpffs).map_err(|error| failed("remove the pins", error))
}

fn failed(doing: &str, source: weft_ebpf::Error) -> DataPlaneError {
    DataPlaneError { plane: NAME, doing: doing.to_owned(), source: Box::new(source) }
}

fn refusal(refused: &[Refused]) -> Result<(), DataPlaneError> {
    let Some(first) = refused.first() else { return Ok(()) };
    let doing = match refused.len() {
        1 => format!("program {}", first.key),
        many => format!("program {} and {} more Service ports", first.key, many - 1),
    };
    Err(DataPlaneError { plane: NAME, doing, source: Box::new(first.reason) })
}
