//! The way from this node to an address: route, interface, neighbour, peer VTEP; as the kernel has it, compared with what the
//! pod network should have made.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use weft_netlink::{FdbEntry, IfIndex, Link, LinkKind, Neighbour, Netlink, Result, Route, RouteKind};
use weft_overlay::{FamilyStatus, OverlayStatus};

use super::answer::Way;

/// The pod network, as the agent made it.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    families: Vec<Family>,
    peers: Vec<Peer>,
    /// `--ip-masq`.
    pub(super) ip_masq: bool,
}

#[derive(Clone, Debug)]
struct Family {
    network: IpNetwork,
    subnet: Option<IpNetwork>,
    device: Option<String>,
}

#[derive(Clone, Debug)]
struct Peer {
    subnet: IpNetwork,
    public_ip: Option<IpAddr>,
    vtep_mac: Option<String>,
}

impl Networks {
    pub(super) fn of(overlay: Option<&OverlayStatus>, ip_masq: bool) -> Self {
        let Some(overlay) = overlay else { return Self::default() };
        let family = |status: &FamilyStatus| {
            let parse = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
            Some(Family {
                network: parse(&status.network)?,
                subnet: parse(&status.subnet),
                device: status.device.clone(),
            })
        };
        let families = [Some(&overlay.ipv4), overlay.ipv6.as_ref()].into_iter().flatten().filter_map(family).collect();
        let mut peers = Vec::new();
        for peer in &overlay.peers {
            let public_ip: Option<IpAddr> = peer.public_ip.as_ref().and_then(|ip| ip.parse().ok());
            for subnet in [Some(&peer.subnet), peer.subnet_v6.as_ref()].into_iter().flatten() {
                let Ok(subnet) = subnet.parse::<IpNetwork>() else { continue };
                // The status has one address and one MAC a peer, of the first family.
                let is_first = subnet.to_string() == peer.subnet;
                let vtep_mac = peer.vtep_mac.clone().filter(|_| is_first);
                peers.push(Peer { subnet, public_ip: public_ip.filter(|_| is_first), vtep_mac });
            }
        }
        Self { families, peers, ip_masq }
    }

    fn family(&self, address: IpAddr) -> Option<&Family> {
        self.families.iter().find(|family| family.network.contains(address))
    }

    pub(super) fn is_own_pod(&self, address: IpAddr) -> bool {
        self.families.iter().any(|family| family.subnet.is_some_and(|subnet| subnet.contains(address)))
    }

    /// Whether the pod network's own rules give the packet an address of this node (`--ip-masq`).
    pub(super) fn masquerades(&self, source: IpAddr, destination: IpAddr) -> bool {
        let (from, to) = (self.family(source).is_some(), self.family(destination).is_some());
        let has_family = self.families.iter().any(|family| family.network.is_ipv4() == destination.is_ipv4());
        let to_outside = from && !to && !destination.is_multicast();
        let to_remote_pod = !from && to && !self.is_own_pod(destination);
        self.ip_masq && has_family && (to_outside || to_remote_pod)
    }
}

/// Reads ways, each once; what is in the kernel is read when it is first asked for.
pub(super) struct Ways<'a> {
    netlink: Netlink,
    networks: &'a Networks,
    links: HashMap<IfIndex, Link>,
    neighbours: HashMap<IfIndex, Vec<Neighbour>>,
    fdb: HashMap<IfIndex, Vec<FdbEntry>>,
    known: BTreeMap<IpAddr, Found>,
}

/// A way and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) way: Way,
    /// Source address of the node's own packets on it.
    pub(super) source: Option<IpAddr>,
    pub(super) is_local: bool,
    pub(super) findings: Vec<String>,
}

impl<'a> Ways<'a> {
    pub(super) fn open(networks: &'a Networks) -> Result<Self> {
        let netlink = Netlink::open()?;
        let links = netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let (neighbours, fdb, known) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Ok(Self { netlink, networks, links, neighbours, fdb, known })
    }

    /// The way to an address. `is_pod`: somebody says that it is a pod of this node.
    pub(super) fn to(&mut self, address: IpAddr, is_pod: bool) -> Result<Found> {
        if let Some(found) = self.known.get(&address) {
            return Ok(found.clone());
        }
        let found = match self.netlink.route_to(address) {
            Ok(route) => self.along(address, &route, is_pod)?,
            Err(error) if error.is_unreachable() => {
                let way = Way { kind: "none".to_owned(), ..Way::default() };
                let findings = match is_pod || self.networks.family(address).is_some() {
                    true => vec![format!("there is no route to {address}")],
                    false => Vec::new(),
                };
                Found { way, findings, ..Found::default() }
            }
            Err(error) => return Err(error),
        };
        self.known.insert(address, found.clone());
        Ok(found)
    }

    fn along(&mut self, address: IpAddr, route: &Route, is_pod: bool) -> Result<Found> {
        let link = route.link.and_then(|index| self.links.get(&index)).cloned();
        let device = link.as_ref().map(|link| link.name.clone());
        let way = Way { kind: "link".to_owned(), device, gateway: route.gateway, ..Way::default() };
        let mut found = Found { way, source: route.prefsrc, ..Found::default() };
        if route.kind == RouteKind::Local {
            found.way = Way { kind: "local".to_owned(), ..Way::default() };
            found.is_local = true;
            return Ok(found);
        }
        if route.kind != RouteKind::Unicast {
            found.way.kind = "none".to_owned();
            found.findings.push(format!("the route to {address} is {:?}", route.kind));
            return Ok(found);
        }
        let Some(link) = link else { return Ok(found) };
        if !link.up {
            found.findings.push(format!("the route to {address} leaves by {}, which is down", link.name));
        }
        if self.networks.is_own_pod(address) || is_pod {
            self.to_pod(address, &link, is_pod, &mut found);
        } else if matches!(link.kind, LinkKind::Vxlan(_)) {
            self.over_vxlan(address, route, &link, &mut found)?;
        } else {
            self.past_vxlan(address, route, &mut found);
        }
        Ok(found)
    }

    /// A pod of this node is behind an interface of its own, or on the bridge that flannel's pods are on.
    fn to_pod(&self, address: IpAddr, link: &Link, is_pod: bool, found: &mut Found) {
        let is_pods = matches!(link.kind, LinkKind::Veth { .. } | LinkKind::Bridge) && found.way.gateway.is_none();
        if is_pods {
            found.way.kind = "pod".to_owned();
        } else if is_pod {
            let device = &link.name;
            found.findings.push(format!("{address} is a pod of this node, but the route to it leaves by {device}"));
        }
    }

    fn over_vxlan(&mut self, address: IpAddr, route: &Route, link: &Link, found: &mut Found) -> Result<()> {
        found.way.kind = "vxlan".to_owned();
        let next_hop = route.gateway.unwrap_or(address);
        if !self.neighbours.contains_key(&link.index) {
            self.neighbours.insert(link.index, self.netlink.neighbours(link.index)?);
            self.fdb.insert(link.index, self.netlink.fdb(link.index)?);
        }
        let device = &link.name;
        let mac = self.neighbours[&link.index].iter().find(|one| one.address == next_hop).and_then(|one| one.mac);
        let Some(mac) = mac else {
            found.findings.push(format!("{device} has no neighbour entry for {next_hop}"));
            return Ok(());
        };
        found.way.mac = Some(mac.to_string());
        found.way.peer = self.fdb[&link.index].iter().find(|entry| entry.mac == mac).map(|entry| entry.dst);
        if found.way.peer.is_none() {
            found.findings.push(format!("{device} has no forwarding (FDB) entry for {mac}"));
        }
        let Some(peer) = self.peer(address) else {
            found.findings.push(format!("{device} leads to {address}, which is in no node's subnet"));
            return Ok(());
        };
        if peer.vtep_mac.as_ref().is_some_and(|wanted| *wanted != mac.to_string()) {
            let wanted = peer.vtep_mac.as_deref().unwrap_or_default();
            found.findings.push(format!("{device}: {next_hop} has the Ethernet address {mac} instead of {wanted}"));
        }
        if let (Some(wanted), Some(dst)) = (peer.public_ip, found.way.peer)
            && wanted != dst
        {
            found.findings.push(format!("{device}: {mac} is sent to {dst} instead of {wanted}"));
        }
        Ok(())
    }

    /// A peer's pods may be reached by its address (DirectRouting, host-gw); anything else is a mistake.
    fn past_vxlan(&self, address: IpAddr, route: &Route, found: &mut Found) {
        if route.gateway.is_some() {
            found.way.kind = "gateway".to_owned();
        }
        let Some(peer) = self.peer(address) else { return };
        let device = found.way.device.as_deref().unwrap_or("?");
        if peer.public_ip.is_some() && route.gateway != peer.public_ip {
            let by = self.networks.family(address).and_then(|family| family.device.as_deref()).unwrap_or("its address");
            let subnet = peer.subnet;
            found.findings.push(format!(
                "{address} is in the subnet {subnet} of another node, but the route to it leaves by {device} instead of {by}"
            ));
        }
    }

    fn peer(&self, address: IpAddr) -> Option<&'a Peer> {
        self.networks.peers.iter().find(|peer| peer.subnet.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Networks {
        let family = Family {
            network: "10.244.0.0/16".parse().unwrap(),
            subnet: Some("10.244.1.0/24".parse().unwrap()),
            device: Some("flannel.1".to_owned()),
        };
        Networks { families: vec![family], peers: Vec::new(), ip_masq: true }
    }

    #[test]
    fn the_pod_network_masquerades_what_leaves_it_and_what_enters_it_for_others() {
        let table = [
            ("10.244.1.2", "192.0.2.9", true),
            ("10.244.1.2", "10.244.2.3", false),
            ("10.244.1.2", "224.0.0.1", false),
            ("192.0.2.9", "10.244.1.2", false),
            ("192.0.2.9", "10.244.2.3", true),
            ("192.0.2.9", "192.0.2.10", false),
            ("fd00::1", "fd00::2", false),
        ];
        for (source, destination, masquerades) in table {
            let said = networks().masquerades(source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(said, masquerades, "{source} to {destination}");
        }
        let off = Networks { ip_masq: false, ..networks() };
        assert!(!off.masquerades("10.244.1.2".parse().unwrap(), "192.0.2.9".parse().unwrap()));
    }
}
