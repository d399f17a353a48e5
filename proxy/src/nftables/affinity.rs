//! Session affinity (kube-proxy.md section 7): numbers of Service ports and endpoints, and what is done with them.
//!
//! The kernel keeps one record a client and Service port, in the map `affinity4|6`: (client . number of the Service port) ->
//! number of the endpoint. A record so serves all frontends of its port (7.1). The endpoint's number is looked up in the
//! target's own list, so that one which left the list, or is not in this target's, is not found and another is chosen (7.5,
//! 7.6). An endpoint keeps its number as long as the Service port has it. Records outlive the agent with the table (7.7).
//!
//! A number in hand is kept in `meta priority` for want of variables in nftables: the upper half says which Service port, the
//! lower which endpoint. It is the first packet of a connection only, and `ip_forward` sets the priority anew anyway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    pool::{Chain, MapKind, Pool},
    rules,
    target::ip,
};
use crate::{model::IpFamily, plan::PlanKey};

/// Bits of a number that say which endpoint. 0 is none.
const ENDPOINT_BITS: u32 = 16;
const ENDPOINT_MASK: u32 = (1 << ENDPOINT_BITS) - 1;

/// Clients remembered in each family, all Service ports together. Beyond, new ones are balanced as without affinity.
const RECORDS: u32 = 1 << 18;

/// Numbers given out. A Service port that finds none left goes without affinity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    ports: BTreeMap<PlanKey, Port>,
    used: BTreeSet<u16>,
    last: u16,
}

#[derive(Clone, Debug)]
struct Port {
    number: u16,
    endpoints: BTreeMap<SocketAddr, u16>,
}

impl Numbers {
    /// The number of a Service port, with no endpoint.
    pub(crate) fn of_port(&self, key: &PlanKey) -> Option<u32> {
        self.ports.get(key).map(|port| u32::from(port.number) << ENDPOINT_BITS)
    }

    /// The number of one of its endpoints.
    pub(crate) fn of_endpoint(&self, key: &PlanKey, endpoint: SocketAddr) -> Option<u32> {
        let number = *self.ports.get(key)?.endpoints.get(&endpoint)?;
        Some(self.of_port(key)? | u32::from(number))
    }

    /// Gives numbers to a Service port and exactly these endpoints; who has one keeps it. `false`: there are not enough.
    pub(crate) fn set(&mut self, key: &PlanKey, endpoints: &BTreeSet<SocketAddr>) -> bool {
        if endpoints.len() > ENDPOINT_MASK as usize {
            self.release(key);
            return false;
        }
        if !self.ports.contains_key(key) {
            let Some(number) = self.next() else { return false };
            self.adopt_port(key, number);
        }
        let Some(port) = self.ports.get_mut(key) else { return false };
        port.endpoints.retain(|endpoint, _| endpoints.contains(endpoint));
        let used: BTreeSet<u16> = port.endpoints.values().copied().collect();
        let mut free = (1..=u16::MAX).filter(|number| !used.contains(number));
        for endpoint in endpoints {
            if !port.endpoints.contains_key(endpoint) {
                port.endpoints.insert(*endpoint, free.next().expect("no more endpoints than numbers"));
            }
        }
        true
    }

    /// Takes the numbers back.
    pub(crate) fn release(&mut self, key: &PlanKey) {
        if let Some(port) = self.ports.remove(key) {
            self.used.remove(&port.number);
        }
    }

    /// Lets a Service port and endpoints of one of its targets have the numbers they had before a restart.
    pub(crate) fn adopt(&mut self, key: &PlanKey, port: u32, endpoints: impl Iterator<Item = (SocketAddr, u32)>) {
        let number = (port >> ENDPOINT_BITS) as u16;
        match self.ports.get(key) {
            // Another target of the same Service port came before.
            Some(adopted) if adopted.number == number => {}
            None if number != 0 && !self.used.contains(&number) => self.adopt_port(key, number),
            _ => return,
        }
        let adopted = &mut self.ports.get_mut(key).expect("just looked at").endpoints;
        for (endpoint, full) in endpoints.filter(|(_, full)| full & !ENDPOINT_MASK == port) {
            let number = (full & ENDPOINT_MASK) as u16;
            if number != 0 && adopted.values().all(|used| *used != number) {
                adopted.entry(endpoint).or_insert(number);
            }
        }
    }

    fn adopt_port(&mut self, key: &PlanKey, number: u16) {
        self.used.insert(number);
        self.last = number;
        self.ports.insert(key.clone(), Port { number, endpoints: BTreeMap::new() });
    }

    /// The next number after the last: one that was just given back may still be in the records of clients.
    fn next(&self) -> Option<u16> {
        let mut after = (self.last.wrapping_add(1)..=u16::MAX).chain(1..=self.last);
        after.find(|number| *number != 0 && !self.used.contains(number))
    }
}

/// Type of the records.
pub(crate) fn records_type(family: IpFamily) -> String {
    let client = client(family);
    format!("typeof {client} . meta priority : meta priority; size {RECORDS}; flags dynamic,timeout; timeout 3h;")
}

/// What tells clients apart. Of an IPv6 address the first 32 bits are left out: nft 1.0.6 fails an assertion when a rule
/// updates a map whose key is longer than 16 bytes. Clients that differ in these only share an endpoint.
const fn client(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip saddr",
        IpFamily::V6 => "@nh,96,96",
    }
}

/// The key of the record of a client and a Service port's number.
pub(crate) fn record_key(client: IpAddr, port: u32) -> Vec<u8> {
    let mut key = match client {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[4..].to_vec(),
    };
    key.extend(port.to_ne_bytes());
    key
}

/// The rules of a chain with affinity: a client's endpoint if it has one in this list, else the next, to be remembered.
///
/// The record is renewed by each new connection (7.2). One that turns out to name an endpoint out of the list is deleted
/// first, for "update" renews only the time of a record that is there. When there is no room for another record, the rule
/// that would make it ends, and the last still leads to the endpoint.
pub(crate) fn rules(chain: Chain, seconds: u32) -> Vec<String> {
    let Pool { class, family, protocol, count, .. } = chain.pool;
    let (ip, n) = (ip(family), super::target::digit(family));
    let target = rules::map_key(class, family, protocol);
    let client = client(family);
    let record = format!("@affinity{n} {{ {client} . meta priority and {:#x}", !ENDPOINT_MASK);
    let remember = format!("update {record} timeout {seconds}s : meta priority }}");
    let to = format!("dnat {ip} to {target} . meta priority map @{}", chain.map(MapKind::Numbered));
    let id = match class {
        super::target::Class::Vip => format!("{ip} daddr . meta l4proto . th dport map @affinity-services{n}"),
        super::target::Class::NodePort => format!("meta l4proto . th dport map @affinity-nodeports{n}"),
    };
    let choices = chain.map(MapKind::Choices);
    vec![
        format!("meta priority set {id}"),
        format!("meta priority set {client} . meta priority map @affinity{n}"),
        format!("meta priority and {ENDPOINT_MASK:#x} != 0 {remember} {to}"),
        format!("meta priority set {target} . numgen inc mod {count} map @{choices}"),
        format!("delete {record} : meta priority }}"),
        remember,
        to,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::testing::key;

    fn endpoints(list: &[u8]) -> BTreeSet<SocketAddr> {
        list.iter().map(|last| ([10, 0, 0, *last], 80).into()).collect()
    }

    #[test]
    fn endpoints_keep_their_numbers_while_they_are_there() {
        let mut numbers = Numbers::default();
        assert!(numbers.set(&key("a"), &endpoints(&[1, 2, 3])));
        let third = numbers.of_endpoint(&key("a"), ([10, 0, 0, 3], 80).into()).unwrap();
        assert_eq!(third, 1 << 16 | 3);
        assert!(numbers.set(&key("a"), &endpoints(&[3, 9])));
        assert_eq!(numbers.of_endpoint(&key("a"), ([10, 0, 0, 3], 80).into()), Some(third));
        assert_eq!(numbers.of_endpoint(&key("a"), ([10, 0, 0, 9], 80).into()), Some(1 << 16 | 1));
        assert_eq!(numbers.of_endpoint(&key("a"), ([10, 0, 0, 1], 80).into()), None);
    }

    #[test]
    fn a_number_given_back_is_used_again_last() {
        let mut numbers = Numbers::default();
        numbers.set(&key("a"), &endpoints(&[1]));
        numbers.release(&key("a"));
        numbers.set(&key("b"), &endpoints(&[1]));
        assert_eq!(numbers.of_port(&key("b")), Some(2 << 16));
        numbers.last = u16::MAX;
        numbers.set(&key("c"), &endpoints(&[1]));
        assert_eq!(numbers.of_port(&key("c")), Some(1 << 16));
    }

    #[test]
    fn without_numbers_left_there_is_no_affinity() {
        let mut numbers = Numbers { used: (1..=u16::MAX).collect(), ..Numbers::default() };
        assert!(!numbers.set(&key("a"), &endpoints(&[1])));
        assert_eq!(numbers.of_port(&key("a")), None);
        numbers.release(&key("a"));
    }

    #[test]
    fn numbers_are_adopted_unless_they_contradict() {
        let mut numbers = Numbers::default();
        let at = |last: u8| SocketAddr::from(([10, 0, 0, last], 80));
        numbers.adopt(&key("a"), 5 << 16, [(at(1), 5 << 16 | 7), (at(2), 6 << 16 | 8), (at(3), 5 << 16)].into_iter());
        assert_eq!(numbers.of_endpoint(&key("a"), at(1)), Some(5 << 16 | 7));
        assert_eq!(numbers.of_endpoint(&key("a"), at(2)), None);
        assert_eq!(numbers.of_endpoint(&key("a"), at(3)), None);
        numbers.adopt(&key("b"), 5 << 16, [].into_iter());
        assert_eq!(numbers.of_port(&key("b")), None);
    }
}
