//! What the socket programs would do with a connection, read from the maps they look into.
//!
//! Goes the way of `ebpf/programs/src/socket/service.rs`: the address, then the NodePort at an address of the node, then the
//! client's endpoint or the turn.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use weft_ebpf::{Error, PinnedMaps, now};
use weft_ebpf_abi::{
    AffinityKey, NODE_ADDRESS_HOST_ONLY, Peer, SERVICE_REJECT, ServiceKey4, ServiceKey6, ServiceValue, address_v4,
    address_v6,
};

use super::failed;
use crate::{
    dataplane::DataPlaneError,
    live::{Live, Next, NextReason, Probe, Verdict},
    model::{IpFamily, Protocol},
};

/// Reads the maps pinned below `bpffs` for each probe. `cgroup`: where the programs should be attached.
///
/// # Errors
/// The maps or links cannot be opened or read.
pub fn live(bpffs: &Path, cgroup: &Path, probes: &[Probe]) -> Result<Vec<Live>, DataPlaneError> {
    let read = || -> Result<Vec<Live>, Error> {
        let Some(maps) = PinnedMaps::open(bpffs)? else {
            let mut nothing = Live::new();
            nothing.problem(format!("no maps are pinned below {}", bpffs.display()));
            return Ok(vec![nothing; probes.len()]);
        };
        let detached = maps.detached(cgroup)?;
        let now = now();
        probes.iter().map(|probe| Reader { maps: &maps, probe, live: Live::new() }.read(&detached, now)).collect()
    };
    read().map_err(|error| failed("read the pinned maps", error))
}

struct Reader<'a> {
    maps: &'a PinnedMaps,
    probe: &'a Probe,
    live: Live,
}

impl Reader<'_> {
    fn read(mut self, detached: &[&str], now: Option<Duration>) -> Result<Live, Error> {
        if !matches!(self.probe.protocol, Protocol::Tcp | Protocol::Udp) {
            self.live.step(format!("{} never calls the socket programs", self.probe.protocol));
            return Ok(self.live);
        }
        for program in self.programs().into_iter().filter(|program| detached.contains(program)) {
            self.live.problem(format!("program {program} is not attached to the cgroup"));
        }
        let Some(service) = self.find()? else { return Ok(self.live) };
        if service.count == 0 {
            let (verdict, word) = match service.flags & SERVICE_REJECT {
                0 => (Verdict::Drop, "DROP"),
                _ => (Verdict::Reject, "REJECT"),
            };
            self.live.step(format!("its element says {word}"));
            self.live.verdict = verdict;
            return Ok(self.live);
        }
        self.choose(&service, now)?;
        Ok(self.live)
    }

    /// Those a new connection of this kind calls.
    fn programs(&self) -> Vec<&'static str> {
        let v4 = self.probe.family() == IpFamily::V4;
        match (v4, self.probe.protocol) {
            (true, Protocol::Udp) => vec!["connect4", "sendmsg4", "recvmsg4"],
            (true, _) => vec!["connect4"],
            (false, Protocol::Udp) => vec!["connect6", "sendmsg6", "recvmsg6"],
            (false, _) => vec!["connect6"],
        }
    }

    fn find(&mut self) -> Result<Option<ServiceValue>, Error> {
        let (at, protocol) = (self.probe.destination, self.probe.protocol);
        let (number, map) = (protocol.number(), format!("SERVICES{}", if at.is_ipv4() { 4 } else { 6 }));
        let service = match at {
            SocketAddr::V4(at) => self.maps.service4(&ServiceKey4::address(at, number))?,
            SocketAddr::V6(at) => self.maps.service6(&ServiceKey6::address(at, number))?,
        };
        if let Some(service) = service {
            self.live.step(format!("{map} {at}/{protocol}: {}", describe(&service)));
            return Ok(Some(service));
        }
        self.live.step(format!("{map} {at}/{protocol}: nothing"));
        let config = self.maps.config()?;
        if !config.may_be_node_port(at.port()) {
            return Ok(None);
        }
        let flags = match at.ip() {
            IpAddr::V4(ip) => self.maps.node_address4(address_v4(ip))?,
            IpAddr::V6(ip) => self.maps.node_address6(address_v6(ip))?,
        };
        let of_host = self.probe.client.interface.is_none();
        match flags {
            None => self.live.step(format!("NODE_ADDRESSES {}: nothing", at.ip())),
            Some(flags) if flags & NODE_ADDRESS_HOST_ONLY != 0 && !of_host => {
                self.live.step(format!("NODE_ADDRESSES {}: for the node's own processes only", at.ip()));
            }
            Some(_) => {
                self.live.step(format!("NODE_ADDRESSES {}: NodePorts are accepted", at.ip()));
                let service = match at {
                    SocketAddr::V4(_) => self.maps.service4(&ServiceKey4::node_port(at.port(), number))?,
                    SocketAddr::V6(_) => self.maps.service6(&ServiceKey6::node_port(at.port(), number))?,
                };
                let found = service.as_ref().map_or_else(|| "nothing".to_owned(), describe);
                self.live.step(format!("{map} NodePort {}/{protocol}: {found}", at.port()));
                return Ok(service);
            }
        }
        Ok(None)
    }

    fn choose(&mut self, service: &ServiceValue, now: Option<Duration>) -> Result<(), Error> {
        let mut endpoints = Vec::new();
        for slot in 0..service.count {
            match self.endpoint(service, slot)? {
                Some(endpoint) => endpoints.push(endpoint),
                None => self.live.problem(format!("slot {slot} of set {} lies beyond the backends", service.set_id)),
            }
        }
        self.live.next = match self.kept(service, &endpoints, now)? {
            Some(next) => Some(next),
            // Who may have an endpoint of its own, and nobody knows: better no answer than a wrong one.
            None if service.affinity_seconds != 0 && self.client(service)?.is_none() => None,
            None => self.turn(service, &endpoints)?,
        };
        self.live.lead_to(endpoints);
        Ok(())
    }

    fn client(&self, service: &ServiceValue) -> Result<Option<AffinityKey>, Error> {
        let client = match self.probe.client.interface {
            None => Some(self.maps.config()?.host_netns_cookie),
            Some(_) => self.probe.client.netns_cookie,
        };
        Ok(client.map(|client| AffinityKey { client, affinity_id: service.affinity_id, padding: 0 }))
    }

    /// The endpoint the client had, as the programs would find it.
    fn kept(
        &mut self,
        service: &ServiceValue,
        endpoints: &[SocketAddr],
        now: Option<Duration>,
    ) -> Result<Option<Next>, Error> {
        if service.affinity_seconds == 0 {
            return Ok(None);
        }
        let Some(key) = self.client(service)? else {
            self.live.step("AFFINITY: the client's network namespace is not known");
            return Ok(None);
        };
        let Some(record) = self.maps.affinity(&key)? else {
            self.live.step("AFFINITY: no record of this client");
            return Ok(None);
        };
        let (endpoint, timeout) =
            (SocketAddr::from(record.endpoint), Duration::from_secs(service.affinity_seconds.into()));
        let age = now.map(|now| now.saturating_sub(Duration::from_nanos(record.last_used_ns)));
        let left = age.map(|age| timeout.checked_sub(age));
        self.live.step(format!("AFFINITY: this client had {endpoint}"));
        let usable = left != Some(None) && endpoints.contains(&endpoint);
        Ok(usable.then_some(Next { endpoint, reason: NextReason::Affinity { left: left.flatten() } }))
    }

    fn turn(&mut self, service: &ServiceValue, endpoints: &[SocketAddr]) -> Result<Option<Next>, Error> {
        let Some(turns) = self.maps.turns(service.set_id)? else {
            self.live.problem(format!("set {} has no turn", service.set_id));
            return Ok(None);
        };
        let slot = u32::try_from(turns % u64::from(service.count)).expect("less than the count");
        self.live.step(format!("ROUND_ROBIN set {}: {turns} turns taken", service.set_id));
        let reason = NextReason::Turn { slot, of: service.count };
        Ok(endpoints.get(slot as usize).map(|endpoint| Next { endpoint: *endpoint, reason }))
    }

    fn endpoint(&self, service: &ServiceValue, slot: u32) -> Result<Option<SocketAddr>, Error> {
        let index = service.base.wrapping_add(slot);
        let peer: Option<Peer> = match self.probe.family() {
            IpFamily::V4 => self.maps.backend4(index)?.map(|backend| backend.peer()),
            IpFamily::V6 => self.maps.backend6(index)?.map(|backend| backend.peer()),
        };
        Ok(peer.map(SocketAddr::from))
    }
}

fn describe(service: &ServiceValue) -> String {
    let affinity = match service.affinity_seconds {
        0 => String::new(),
        seconds => format!(", affinity {seconds} s"),
    };
    format!("set {}, {} backends{affinity}", service.set_id, service.count)
}
