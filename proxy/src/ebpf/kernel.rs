//! The maps in the kernel, in the terms of the plan: this is where byte orders and layouts end.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use weft_ebpf::{Error, Maps};
use weft_ebpf_abi::{
    Backend4, Backend6, Config, NODE_ADDRESS_HOST_ONLY, SCOPE_NODE_PORT, ServiceKey4, ServiceKey6, ServiceValue,
    address_v4, address_v6, ipv4, ipv6,
};

use super::{
    blocks::Block,
    frontend::FrontendKey,
    writes::{Observed, PortRange, Slot, Target},
};
use crate::model::{IpFamily, Protocol};

impl Target for Maps {
    type Error = Error;

    fn observe(&self) -> Result<Observed, Error> {
        let mut services = BTreeMap::new();
        for (key, value) in self.services4.entries()? {
            if let Some(protocol) = protocol(key.protocol) {
                let node_port = key.scope == SCOPE_NODE_PORT;
                services.insert(FrontendKey { address: key.socket_address(), protocol, node_port }, value);
            }
        }
        for (key, value) in self.services6.entries()? {
            if let Some(protocol) = protocol(key.protocol) {
                let node_port = key.scope == SCOPE_NODE_PORT;
                services.insert(FrontendKey { address: key.socket_address(), protocol, node_port }, value);
            }
        }
        let mut node_addresses = BTreeMap::new();
        for (address, flags) in self.node_addresses4.entries()? {
            node_addresses.insert(IpAddr::V4(ipv4(address)), flags & NODE_ADDRESS_HOST_ONLY != 0);
        }
        for (address, flags) in self.node_addresses6.entries()? {
            node_addresses.insert(IpAddr::V6(ipv6(address)), flags & NODE_ADDRESS_HOST_ONLY != 0);
        }
        let Config { node_port_first: first, node_port_last: last, .. } = self.config.get(0)?;
        let blocks = read_blocks(self, &services)?;
        Ok(Observed { services, blocks, node_addresses, node_ports: PortRange { first, last } })
    }

    fn connections(&self, counter: u32) -> Result<u64, Error> {
        self.connections.get(counter)
    }

    fn reset_counters(&mut self, counters: &[u32]) -> Result<(), Error> {
        self.connections.set_batch(counters, &vec![0; counters.len()])
    }

    fn reset_turns(&mut self, sets: &[u32]) -> Result<(), Error> {
        self.round_robin.set_batch(sets, &vec![0; sets.len()])
    }

    fn write_slots(&mut self, family: IpFamily, slots: &[(u32, Slot)]) -> Result<(), Error> {
        let indexes: Vec<u32> = slots.iter().map(|&(index, _)| index).collect();
        match family {
            IpFamily::V4 => {
                let backend = |(_, slot): &(u32, Slot)| match slot.endpoint {
                    SocketAddr::V4(at) => Backend4::new(at, slot.counter),
                    SocketAddr::V6(_) => unreachable!("endpoints are of their plan's family"),
                };
                self.backends4.set_batch(&indexes, &slots.iter().map(backend).collect::<Vec<_>>())
            }
            IpFamily::V6 => {
                let backend = |(_, slot): &(u32, Slot)| match slot.endpoint {
                    SocketAddr::V6(at) => Backend6::new(at, slot.counter),
                    SocketAddr::V4(_) => unreachable!("endpoints are of their plan's family"),
                };
                self.backends6.set_batch(&indexes, &slots.iter().map(backend).collect::<Vec<_>>())
            }
        }
    }

    fn set_node_ports(&mut self, range: PortRange) -> Result<(), Error> {
        let config = self.config.get(0)?;
        self.config.set(0, &Config { node_port_first: range.first, node_port_last: range.last, ..config })
    }

    fn add_node_addresses(&mut self, addresses: &[(IpAddr, bool)]) -> Result<(), Error> {
        for &(address, host_only) in addresses {
            let flags = if host_only { NODE_ADDRESS_HOST_ONLY } else { 0 };
            match address {
                IpAddr::V4(v4) => self.node_addresses4.insert(&address_v4(v4), &flags)?,
                IpAddr::V6(v6) => self.node_addresses6.insert(&address_v6(v6), &flags)?,
            }
        }
        Ok(())
    }

    fn set_services(&mut self, services: &[(FrontendKey, ServiceValue)]) -> Result<(), Error> {
        let (mut keys4, mut values4, mut keys6, mut values6) = (vec![], vec![], vec![], vec![]);
        for (frontend, value) in services {
            match key(frontend) {
                Key::V4(key) => {
                    keys4.push(key);
                    values4.push(*value);
                }
                Key::V6(key) => {
                    keys6.push(key);
                    values6.push(*value);
                }
            }
        }
        self.services4.insert_batch(&keys4, &values4)?;
        self.services6.insert_batch(&keys6, &values6)
    }

    fn remove_services(&mut self, services: &[FrontendKey]) -> Result<(), Error> {
        services.iter().try_for_each(|frontend| match key(frontend) {
            Key::V4(key) => self.services4.remove(&key),
            Key::V6(key) => self.services6.remove(&key),
        })
    }

    fn remove_node_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), Error> {
        addresses.iter().try_for_each(|address| match *address {
            IpAddr::V4(v4) => self.node_addresses4.remove(&address_v4(v4)),
            IpAddr::V6(v6) => self.node_addresses6.remove(&address_v6(v6)),
        })
    }
}

enum Key {
    V4(ServiceKey4),
    V6(ServiceKey6),
}

fn key(frontend: &FrontendKey) -> Key {
    let protocol = frontend.protocol.number();
    match (frontend.address, frontend.node_port) {
        (SocketAddr::V4(at), false) => Key::V4(ServiceKey4::address(at, protocol)),
        (SocketAddr::V4(at), true) => Key::V4(ServiceKey4::node_port(at.port(), protocol)),
        (SocketAddr::V6(at), false) => Key::V6(ServiceKey6::address(at, protocol)),
        (SocketAddr::V6(at), true) => Key::V6(ServiceKey6::node_port(at.port(), protocol)),
    }
}

/// An element with another protocol was never ours and is never looked up.
fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)
}

/// The blocks the Services refer to, each once; those that reach beyond the array are left out.
fn read_blocks(
    maps: &Maps,
    services: &BTreeMap<FrontendKey, ServiceValue>,
) -> Result<BTreeMap<(IpFamily, Block), Vec<Slot>>, Error> {
    let mut blocks = BTreeMap::new();
    for (frontend, value) in services {
        let family = frontend.family();
        let capacity = match family {
            IpFamily::V4 => maps.backends4.capacity(),
            IpFamily::V6 => maps.backends6.capacity(),
        };
        let end = u64::from(value.base) + u64::from(value.count);
        let block = Block { base: value.base, count: value.count };
        if value.count == 0 || end > u64::from(capacity) || blocks.contains_key(&(family, block)) {
            continue;
        }
        let slots = (value.base..value.base + value.count).map(|index| match family {
            IpFamily::V4 => maps
                .backends4
                .get(index)
                .map(|backend| Slot { endpoint: backend.peer().into(), counter: backend.counter }),
            IpFamily::V6 => maps
                .backends6
                .get(index)
                .map(|backend| Slot { endpoint: backend.peer().into(), counter: backend.counter }),
        });
        blocks.insert((family, block), slots.collect::<Result<_, _>>()?);
    }
    Ok(blocks)
}
