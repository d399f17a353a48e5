//! The rules of round-robin chains, the types of their maps, and how local traffic is told.

use super::{
    affinity,
    pool::{Chain, EndpointMap, List, MapKind, Masquerade, Pool},
    target::{Class, ip},
};
use crate::{
    model::{IpFamily, Protocol},
    plan::{LocalTraffic, PacketSettings},
};

/// Type of an endpoint map. `typeof`, because `type` has no word for the slot; the elements that lead to endpoints count the
/// connections they got.
///
/// One protocol a map: with `th dport` for all of them, nft 1.0.6 loads the map but refuses every later rule that looks
/// into it ("conflicting protocols specified: ip vs. th"), and any other word for a port ties the rule to its protocol.
pub(crate) fn map_type(map: EndpointMap) -> String {
    let Pool { class, family, protocol, count, .. } = map.pool;
    let key = map_key(class, family, protocol);
    let endpoint = format!("{} daddr . {} dport", ip(family), protocol.lowercase());
    match map.kind {
        MapKind::Endpoints => format!("typeof {key} . {} : {endpoint}; counter;", slot(count)),
        MapKind::Choices => format!("typeof {key} . {} : meta priority;", slot(count)),
        MapKind::Numbered => format!("typeof {key} . meta priority : {endpoint}; counter;"),
    }
}

/// The rules of a round-robin chain.
pub(crate) fn chain_rules(settings: &PacketSettings, chain: Chain) -> Vec<String> {
    let pool = chain.pool;
    let mut rules = match (pool.masquerade, is_local(settings, pool.family, "!= ")) {
        (Masquerade::Never, _) | (Masquerade::UnlessLocal, None) => Vec::new(),
        (Masquerade::Always, _) => vec![mark(settings)],
        (Masquerade::UnlessLocal, Some(others)) => vec![format!("{others} {}", mark(settings))],
    };
    match pool.affinity {
        Some(seconds) => rules.extend(affinity::rules(chain, seconds)),
        None => {
            let key = map_key(pool.class, pool.family, pool.protocol);
            let map = chain.map(MapKind::Endpoints);
            rules.push(format!("dnat {} to {key} . {} map @{map}", ip(pool.family), slot(pool.count)));
        }
    }
    rules
}

/// Asks for masquerading; other bits of the mark are kept (8.10).
pub(crate) fn mark(settings: &PacketSettings) -> String {
    format!("meta mark set meta mark | {:#x}", settings.masquerade_mark())
}

/// What matches local traffic (8.8), or with `"!= "` all other; `None`: there is no detector for this family.
///
/// Packets of this node's processes have no input interface, so they are other.
pub(crate) fn is_local(settings: &PacketSettings, family: IpFamily, negation: &str) -> Option<String> {
    match &settings.local_traffic {
        LocalTraffic::Unknown => None,
        LocalTraffic::Cidrs { v4, v6 } => match family {
            IpFamily::V4 => v4.map(|cidr| format!("ip saddr {negation}{}/{}", cidr.network(), cidr.prefix())),
            IpFamily::V6 => v6.map(|cidr| format!("ip6 saddr {negation}{}/{}", cidr.network(), cidr.prefix())),
        },
        LocalTraffic::Interface(name) => Some(format!("iifname {negation}\"{name}\"")),
        LocalTraffic::InterfacePrefix(prefix) => Some(format!("iifname {negation}\"{prefix}*\"")),
    }
}

/// The part of a packet that tells targets of one class and protocol apart.
pub(crate) fn map_key(class: Class, family: IpFamily, protocol: Protocol) -> String {
    let port = format!("{} dport", protocol.lowercase());
    match class {
        Class::Vip => format!("{} daddr . {port}", ip(family)),
        Class::NodePort => port,
    }
}

fn slot(count: u32) -> String {
    format!("numgen inc mod {count}")
}

/// One chain of each shape with its maps, as text: what the layout's mark must cover.
pub(crate) fn shapes(settings: &PacketSettings) -> String {
    let mut text = String::new();
    for class in Class::BOTH {
        for masquerade in [Masquerade::Never, Masquerade::Always, Masquerade::UnlessLocal] {
            for affinity in [None, Some(1)] {
                let (family, protocol) = (IpFamily::V4, Protocol::Tcp);
                let pool = Pool { list: List::Main, class, family, protocol, count: 1, masquerade, affinity };
                let chain = Chain { pool, bucket: 0 };
                text.extend(chain.maps().map(map_type));
                text.extend(chain_rules(settings, chain));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(local_traffic: LocalTraffic) -> PacketSettings {
        PacketSettings { local_traffic, masquerade_bit: 20, ..PacketSettings::default() }
    }

    fn rules(local_traffic: LocalTraffic, masquerade: Masquerade) -> Vec<String> {
        let (family, protocol) = (IpFamily::V4, Protocol::Tcp);
        let pool = Pool { list: List::Main, class: Class::Vip, family, protocol, count: 3, masquerade, affinity: None };
        chain_rules(&settings(local_traffic), Chain { pool, bucket: 0 })
    }

    #[test]
    fn rules_8_1_to_8_5_and_8_8_mark_what_is_to_be_masqueraded() {
        let [dnat, dnat_masq, dnat_others] = ["", "-masq", "-masq_others"].map(|masquerade| {
            format!("dnat ip to ip daddr . tcp dport . numgen inc mod 3 map @endpoints-rr4-tcp-3-0{masquerade}")
        });
        let mark = "meta mark set meta mark | 0x100000";
        let pods = LocalTraffic::Cidrs { v4: Some("10.244.1.2/16".parse().unwrap()), v6: None };
        assert_eq!(rules(pods.clone(), Masquerade::Never), [dnat.as_str()]);
        assert_eq!(rules(pods.clone(), Masquerade::Always), [mark, &dnat_masq]);
        assert_eq!(rules(LocalTraffic::Unknown, Masquerade::UnlessLocal), [dnat_others.as_str()], "8.3");
        let others = [
            (pods.clone(), "ip saddr != 10.244.0.0/16"),
            (LocalTraffic::Interface("cni0".into()), "iifname != \"cni0\""),
            (LocalTraffic::InterfacePrefix("veth".into()), "iifname != \"veth*\""),
        ];
        for (local_traffic, others) in others {
            assert_eq!(
                rules(local_traffic, Masquerade::UnlessLocal),
                [format!("{others} {mark}"), dnat_others.clone()]
            );
        }
        assert_eq!(is_local(&settings(pods), IpFamily::V6, ""), None, "a family without CIDR has no detector");
    }
}
