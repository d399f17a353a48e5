//! Which paths there are to probe, from a node's status.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{
    family::Family,
    netconf::{VXLAN, vxlan_overhead},
    status::{OverlayStatus, PeerStatus},
};

/// What a path leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// Between the nodes' own addresses: what carries the tunnel, or plain routes.
    Underlay,
    /// Between the VTEPs' addresses: the way of pods' packets.
    Overlay,
}

/// A path to a peer, and the packets it has to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// What it leads through.
    pub kind: PathKind,
    /// Who answers on the peer.
    pub target: IpAddr,
    /// Size of the largest packet that pods' packets make on it, with IP header, in bytes.
    pub packet: u32,
}

/// The paths of `peer` that can be probed, as the node with `status` sees it; none before the network is up.
///
/// With `host-gw` pods' packets are the underlay's, and no address of the overlay answers.
pub fn paths(status: &OverlayStatus, peer: &PeerStatus) -> Vec<Path> {
    let Some(mtu) = status.mtu else { return Vec::new() };
    let mut paths = Vec::new();
    let public = peer.public_ip.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
    if let Some(target) = public {
        let overhead = if status.backend == VXLAN { vxlan_overhead(Family::of(target)) } else { 0 };
        paths.push(Path { kind: PathKind::Underlay, target, packet: mtu + overhead });
    }
    if status.backend == VXLAN {
        let subnets = [Some(peer.subnet.as_str()), peer.subnet_v6.as_deref()].into_iter().flatten();
        let vteps = subnets.filter_map(|subnet| subnet.parse::<IpNetwork>().ok()).map(|subnet| subnet.network());
        let mut vteps: Vec<IpAddr> = vteps.collect();
        // A peer with IPv6 alone has its subnet in both places.
        vteps.dedup();
        paths.extend(vteps.into_iter().map(|target| Path { kind: PathKind::Overlay, target, packet: mtu }));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::PeerState;

    fn peer(subnet: &str, subnet_v6: Option<&str>, public_ip: &str) -> PeerStatus {
        PeerStatus {
            subnet: subnet.into(),
            subnet_v6: subnet_v6.map(str::to_owned),
            public_ip: Some(public_ip.into()),
            vtep_mac: None,
            state: PeerState::Up,
            error: None,
        }
    }

    #[test]
    fn the_underlay_carries_the_tunnels_header_too() {
        let status = |backend: &str, mtu| OverlayStatus { backend: backend.into(), mtu, ..OverlayStatus::default() };
        let shown = |status: &OverlayStatus, peer: &PeerStatus| -> Vec<String> {
            paths(status, peer).iter().map(|path| format!("{:?} {} {}", path.kind, path.target, path.packet)).collect()
        };
        let dual = peer("10.244.2.0/24", Some("fd44:0:0:2::/64"), "172.30.0.2");
        assert_eq!(
            shown(&status("vxlan", Some(1430)), &dual),
            ["Underlay 172.30.0.2 1480", "Overlay 10.244.2.0 1430", "Overlay fd44:0:0:2:: 1430"]
        );
        let v6 = peer("fd44:0:0:2::/64", Some("fd44:0:0:2::/64"), "fd99::2");
        assert_eq!(shown(&status("vxlan", Some(1430)), &v6), ["Underlay fd99::2 1500", "Overlay fd44:0:0:2:: 1430"]);
        assert_eq!(shown(&status("host-gw", Some(1500)), &dual), ["Underlay 172.30.0.2 1500"]);
        assert!(shown(&status("vxlan", None), &dual).is_empty());
    }
}
