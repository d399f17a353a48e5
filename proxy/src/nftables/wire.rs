//! Elements as the kernel has them: each part of a key padded to 4 bytes, addresses and ports in network byte order, numbers
//! as the CPU has them.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use weft_netlink::{NftData, NftElement};

use super::{
    collection::Collection,
    element::{Element, FixedChain, Value},
    pool::{Chain, MapKind, Pool},
    target::{Class, Target},
};
use crate::model::{IpFamily, Protocol};

/// What to write for an element; `connections` is what its counter starts at.
pub(crate) fn encode(element: Element, value: Value, connections: u64) -> NftElement {
    let data = match value {
        Value::Present => None,
        Value::Endpoint(to) => Some(NftData::Value(Key::new().address(to.ip()).port(to.port()).0)),
        Value::Number(number) => Some(NftData::Value(number.to_ne_bytes().to_vec())),
        Value::Chain(chain) => Some(NftData::Jump(chain.to_string())),
        Value::Fixed(chain) if chain.returns() => Some(NftData::Jump(chain.to_string())),
        Value::Fixed(chain) => Some(NftData::Goto(chain.to_string())),
        Value::Drop => Some(NftData::Drop),
    };
    NftElement { data, packets: connections, ..identify(element) }
}

/// An element's key alone.
pub(crate) fn identify(element: Element) -> NftElement {
    let mut key_end = None;
    let key = match element {
        Element::NodePortAddress(address) | Element::ClusterIp(address) => Key::new().address(address),
        Element::Hairpin(address) => Key::new().address(address).address(address),
        Element::Allowed { target, from } => {
            key_end = Some(Key::new().target(target).address(last(from)).0);
            Key::new().target(target).address(from.network())
        }
        Element::AffinityPort(target) | Element::Dispatch { target, .. } | Element::Refusal(target) => {
            Key::new().target(target)
        }
        Element::Endpoint { target, slot, .. } => {
            let key = match target {
                Target::Vip { address, .. } => Key::new().address(address),
                Target::NodePort { .. } => Key::new(),
            };
            key.port(target.port()).number(slot)
        }
    };
    NftElement { key: key.0, key_end, ..NftElement::default() }
}

/// The key by which the sources admitted at a target are searched for `from`.
pub(crate) fn allowed_key(target: Target, from: IpAddr) -> Vec<u8> {
    Key::new().target(target).address(from).0
}

/// The number an element maps to.
pub(crate) fn number(element: &NftElement) -> Option<u32> {
    match &element.data {
        Some(NftData::Value(bytes)) => Parts(bytes).number(),
        _ => None,
    }
}

/// Reads back an element of `collection`; `None` if it cannot be one of ours.
pub(crate) fn decode(collection: Collection, element: &NftElement) -> Option<(Element, Value)> {
    let mut key = Parts(&element.key);
    let read = match collection {
        Collection::NodePortAddresses(family) => Element::NodePortAddress(key.address(family)?),
        Collection::ClusterIps(family) => Element::ClusterIp(key.address(family)?),
        Collection::Hairpin(family) => {
            let (from, to) = (key.address(family)?, key.address(family)?);
            (from == to).then_some(Element::Hairpin(from))?
        }
        Collection::Allowed(family) => {
            let (target, first) = (key.target(Class::Vip, family)?, key.address(family)?);
            let mut end = Parts(element.key_end.as_deref()?);
            let same = end.target(Class::Vip, family)? == target;
            Element::Allowed { target, from: network(first, end.address(family)?).filter(|_| same)? }
        }
        Collection::AffinityPorts(class, family) => Element::AffinityPort(key.target(class, family)?),
        // The kernel's own.
        Collection::Affinity(_) => return None,
        Collection::Endpoints(map) => {
            let Pool { class, family, protocol, .. } = map.pool;
            let target = match class {
                Class::Vip => Target::Vip { address: key.address(family)?, protocol, port: key.port()? },
                Class::NodePort => Target::NodePort { family, protocol, port: key.port()? },
            };
            Element::Endpoint { map, target, slot: key.number()? }
        }
        Collection::Dispatch(stage, class, family) => Element::Dispatch { stage, target: key.target(class, family)? },
        Collection::Refused(class, family) => Element::Refusal(key.target(class, family)?),
    };
    Some((read, value(collection, element.data.as_ref())?)).filter(|_| key.0.is_empty())
}

fn value(collection: Collection, data: Option<&NftData>) -> Option<Value> {
    Some(match data {
        None => Value::Present,
        Some(NftData::Drop) => Value::Drop,
        Some(NftData::Jump(name)) => match fixed(name, true) {
            Some(fixed) => fixed,
            None => Value::Chain(Chain::parse(name)?),
        },
        Some(NftData::Goto(name)) => fixed(name, false)?,
        Some(NftData::Value(bytes)) => {
            let mut parts = Parts(bytes);
            match collection {
                Collection::Endpoints(map) if map.kind != MapKind::Choices => {
                    Value::Endpoint(SocketAddr::new(parts.address(map.pool.family)?, parts.port()?))
                }
                _ => Value::Number(parts.number()?),
            }
        }
    })
}

fn fixed(name: &str, returns: bool) -> Option<Value> {
    let chain = FixedChain::ALL.into_iter().find(|chain| chain.returns() == returns && chain.to_string() == name);
    chain.map(Value::Fixed)
}

fn last(network: IpNetwork) -> IpAddr {
    match network {
        IpNetwork::V4(network) => network.broadcast().into(),
        IpNetwork::V6(network) => network.broadcast().into(),
    }
}

/// The network from its first and last address.
fn network(first: IpAddr, last_address: IpAddr) -> Option<IpNetwork> {
    let prefix = match (first, last_address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return None,
    };
    let network = IpNetwork::new(first, u8::try_from(prefix).ok()?).ok()?;
    (network.network() == first && last(network) == last_address).then_some(network)
}

/// A key being put together.
struct Key(Vec<u8>);

impl Key {
    fn new() -> Self {
        // The longest: a VIP and a source of IPv6.
        Self(Vec::with_capacity(40))
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.part(&address.octets()),
            IpAddr::V6(address) => self.part(&address.octets()),
        }
    }

    fn port(self, port: u16) -> Self {
        self.part(&port.to_be_bytes())
    }

    fn number(self, number: u32) -> Self {
        self.part(&number.to_ne_bytes())
    }

    fn target(self, target: Target) -> Self {
        let key = match target {
            Target::Vip { address, .. } => self.address(address),
            Target::NodePort { .. } => self,
        };
        key.part(&[target.protocol().number()]).port(target.port())
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// What is left of a key being read.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn part<const N: usize>(&mut self) -> Option<[u8; N]> {
        let part = *self.0.first_chunk::<N>()?;
        self.0 = self.0.get(N.next_multiple_of(4)..)?;
        Some(part)
    }

    fn address(&mut self, family: IpFamily) -> Option<IpAddr> {
        match family {
            IpFamily::V4 => self.part::<4>().map(IpAddr::from),
            IpFamily::V6 => self.part::<16>().map(IpAddr::from),
        }
    }

    fn port(&mut self) -> Option<u16> {
        self.part().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Option<u32> {
        self.part().map(u32::from_ne_bytes)
    }

    fn target(&mut self, class: Class, family: IpFamily) -> Option<Target> {
        let address = match class {
            Class::Vip => Some(self.address(family)?),
            Class::NodePort => None,
        };
        let [number] = self.part()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == number)?;
        let port = self.port()?;
        Some(match address {
            Some(address) => Target::Vip { address, protocol, port },
            None => Target::NodePort { family, protocol, port },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::{
        collection::Stage,
        pool::{List, Masquerade},
    };

    fn targets() -> [Target; 3] {
        let vip = |address: &str, protocol| Target::Vip { address: address.parse().unwrap(), protocol, port: 80 };
        let node_port = Target::NodePort { family: IpFamily::V6, protocol: Protocol::Sctp, port: 30080 };
        [vip("192.0.2.1", Protocol::Tcp), vip("2001:db8::1", Protocol::Udp), node_port]
    }

    fn samples(target: Target) -> Vec<(Element, Value)> {
        let address: IpAddr =
            if target.family() == IpFamily::V4 { [10, 244, 0, 2].into() } else { [0xfd44_u16; 8].into() };
        let (class, family, protocol) = (target.class(), target.family(), target.protocol());
        let (list, masquerade, affinity) = (List::Node, Masquerade::UnlessLocal, Some(5));
        let pool = Pool { list, class, family, protocol, count: 12, masquerade, affinity };
        let chain = Chain { pool, bucket: 1 };
        let endpoint = |kind| Element::Endpoint { map: chain.map(kind), target, slot: 7 };
        let mut samples = vec![
            (Element::NodePortAddress(address), Value::Present),
            (Element::ClusterIp(address), Value::Present),
            (Element::Hairpin(address), Value::Present),
            (Element::AffinityPort(target), Value::Number(3 << 16)),
            (endpoint(MapKind::Endpoints), Value::Endpoint((address, 8080).into())),
            (endpoint(MapKind::Numbered), Value::Endpoint((address, 8080).into())),
            (endpoint(MapKind::Choices), Value::Number(9)),
            (Element::Dispatch { stage: Stage::Outside, target }, Value::Chain(chain)),
            (Element::Refusal(target), Value::Drop),
        ];
        let fixed = FixedChain::ALL.into_iter().map(Value::Fixed);
        samples.extend(fixed.map(|chain| (Element::Dispatch { stage: Stage::First, target }, chain)));
        if target.class() == Class::Vip {
            let networks = [0, 1, 31, 32].map(|prefix| IpNetwork::new(address, prefix).unwrap());
            let networks = networks.map(|n| IpNetwork::new(n.network(), n.prefix()).unwrap());
            samples.extend(networks.map(|from| (Element::Allowed { target, from }, Value::Present)));
        }
        samples
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (element, value) in targets().into_iter().flat_map(samples) {
            let written = encode(element, value, 5);
            assert_eq!(written.packets, 5);
            assert_eq!(decode(element.collection(), &written), Some((element, value)), "{element:?}");
            assert_eq!(identify(element).key, written.key);
        }
    }

    #[test]
    fn foreign_elements_are_not_ours() {
        for (element, value) in targets().into_iter().flat_map(samples) {
            let written = encode(element, value, 0);
            for length in 0..written.key.len() {
                let cut = NftElement { key: written.key[..length].to_vec(), ..written.clone() };
                assert_eq!(decode(element.collection(), &cut), None, "{element:?} {length}");
            }
        }
        let hairpin = NftElement { key: vec![10, 0, 0, 1, 10, 0, 0, 2], ..NftElement::default() };
        assert_eq!(decode(Collection::Hairpin(IpFamily::V4), &hairpin), None);
        let icmp = NftElement { key: vec![10, 0, 0, 1, 1, 0, 0, 0, 0, 80, 0, 0], ..NftElement::default() };
        assert_eq!(decode(Collection::Refused(Class::Vip, IpFamily::V4), &icmp), None);
        assert_eq!(network([10, 0, 0, 1].into(), [10, 0, 0, 2].into()), None);
    }
}
