//! The ways to the other nodes, tried with packets: do full-size ones arrive, and with right checksums.

use std::{collections::BTreeMap, net::IpAddr, thread};

use weft_netlink::Netlink;
use weft_overlay::{
    OverlayStatus, PeerStatus,
    diagnose::{ChecksumVerdict, MtuVerdict, Path, PathKind, ProbeError, paths, probe_checksums, probe_mtu},
};

use super::{
    Context,
    finding::{Area, Finding},
};

const AREA: Area = Area::Paths;

/// Peers that are tried at the same time: one that does not answer takes some seconds.
const AT_ONCE: usize = 32;

/// What became of one path.
type Tried = (Path, Result<MtuVerdict, ProbeError>);

/// All of them. Before there is a network: those between the nodes, to the addresses of `others` in the API.
pub(super) fn check(context: &Context, others: &[(String, IpAddr)]) -> Vec<Finding> {
    match context.overlay() {
        Some(overlay) => {
            let mut findings = duplicates(overlay);
            findings.extend(each(&overlay.peers, |peer| probe(overlay, peer)));
            findings
        }
        None => each(others, |(name, address)| between_nodes(name, *address)),
    }
}

/// Tries many at once, in new threads: those are in the network namespace of this one.
fn each<T: Sync>(peers: &[T], try_one: impl Fn(&T) -> Vec<Finding> + Sync) -> Vec<Finding> {
    let mut findings = Vec::new();
    for peers in peers.chunks(AT_ONCE) {
        let tried: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = peers.iter().map(|peer| scope.spawn(|| try_one(peer))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        findings.extend(tried);
    }
    findings
}

/// Packets as large as the interface to that node takes.
fn between_nodes(name: &str, target: IpAddr) -> Vec<Finding> {
    let link = Netlink::open().and_then(|netlink| {
        let route = netlink.route_to(target)?;
        route.link.map_or(Ok(None), |link| netlink.link_by_index(link))
    });
    match link {
        // Its loopback: an address of this very node.
        Ok(Some(link)) if link.loopback => Vec::new(),
        Ok(Some(link)) => {
            let path = Path { kind: PathKind::Underlay, target, packet: link.mtu };
            vec![mtu(&format!("Node {name} ({target})"), &[(path, probe_mtu(target, link.mtu))])]
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            let seen = format!("Node {name} ({target}): no way there: {error}");
            vec![Finding::problem(AREA, "path", seen, "look at this node's routes: ip route get")]
        }
    }
}

fn probe(overlay: &OverlayStatus, peer: &PeerStatus) -> Vec<Finding> {
    let tried: Vec<Tried> =
        paths(overlay, peer).into_iter().map(|path| (path, probe_mtu(path.target, path.packet))).collect();
    let name = format!("{} ({})", peer.subnet, peer.public_ip.as_deref().unwrap_or("no address"));
    let mut findings = vec![mtu(&name, &tried)];
    let answers =
        tried.iter().filter(|(_, result)| matches!(result, Ok(MtuVerdict::Passes | MtuVerdict::Smaller { .. })));
    for (path, _) in answers.filter(|(path, _)| path.kind == PathKind::Overlay) {
        findings.extend(checksums(path.target, probe_checksums(path.target)));
    }
    findings
}

/// One verdict for a peer: that of the underlay explains that of the tunnel through it.
fn mtu(name: &str, tried: &[Tried]) -> Finding {
    let narrow = tried.iter().find_map(|(path, result)| match result {
        Ok(MtuVerdict::Smaller { largest }) => Some((path, *largest)),
        _ => None,
    });
    if let Some((path, largest)) = narrow {
        let seen = format!(
            "{name}: packets of {} bytes do not arrive through the {}, only those up to {largest}: TCP stalls",
            path.packet,
            what(path.kind)
        );
        let less = path.packet - largest;
        let advice =
            format!("raise the MTU on the way, or lower it by {less}: Backend.MTU in net-conf.json, then new pods");
        return Finding::problem(AREA, "mtu", seen, advice);
    }
    if let Some((path, error)) = tried.iter().find_map(|(path, result)| Some((path, result.as_ref().err()?))) {
        let seen = format!("{name}: the {} cannot be tried: {error}", what(path.kind));
        return Finding::problem(AREA, "path", seen, "it needs CAP_NET_RAW and a route: run it as root on the node");
    }
    let silent =
        |kind| tried.iter().any(|(path, result)| path.kind == kind && matches!(result, Ok(MtuVerdict::NoAnswer)));
    match (silent(PathKind::Underlay), silent(PathKind::Overlay)) {
        (false, true) => Finding::problem(
            AREA,
            "path",
            format!("{name}: the node answers, but not through the tunnel"),
            "let UDP of the VXLAN port (8472) pass in every firewall between the nodes; look at that node's agent or flanneld",
        ),
        (true, true) => Finding::problem(
            AREA,
            "path",
            format!("{name}: nothing answers"),
            "is that node up? If it is gone for good delete its Node or lease",
        ),
        (true, false) if tried.iter().any(|(path, _)| path.kind == PathKind::Overlay) => {
            Finding::note(AREA, "path", format!("{name}: the tunnel works; the node itself does not answer ICMP"))
        }
        (true, false) => Finding::warning(
            AREA,
            "path",
            format!("{name}: no answer"),
            "is that node up, and may ICMP pass? If it is gone for good delete its Node or lease",
        ),
        _ => Finding::ok(AREA, "mtu", format!("{name}: packets of full size arrive")),
    }
}

fn what(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Underlay => "network between the nodes",
        PathKind::Overlay => "tunnel",
    }
}

fn checksums(target: IpAddr, verdict: Result<ChecksumVerdict, ProbeError>) -> Option<Finding> {
    match verdict {
        Ok(ChecksumVerdict::Right) => None,
        Ok(ChecksumVerdict::Broken) => Some(Finding::problem(
            AREA,
            "checksum-offload",
            format!("{target}: checksums left to the hardware are spoilt on the way: ping works, TCP does not"),
            "give the agents --vtep-checksum-offload=off",
        )),
        Ok(ChecksumVerdict::NoAnswer) => {
            Some(Finding::note(AREA, "checksum-offload", format!("{target}: cannot be told, UDP is not answered")))
        }
        Err(error) => Some(Finding::note(AREA, "checksum-offload", error.to_string())),
    }
}

/// Subnets, addresses and VTEPs that two nodes have.
fn duplicates(overlay: &OverlayStatus) -> Vec<Finding> {
    let own = &overlay.ipv4;
    let own = [("subnet", &own.subnet), ("address", &own.public_ip), ("VTEP's MAC", &own.vtep_mac)];
    let own = own.map(|(what, value)| (what, value.clone(), "this node".to_owned()));
    let of_peers = overlay.peers.iter().flat_map(|peer| {
        let values = [
            ("subnet", Some(&peer.subnet)),
            ("address", peer.public_ip.as_ref()),
            ("VTEP's MAC", peer.vtep_mac.as_ref()),
        ];
        values
            .map(|(what, value)| (what, value.cloned(), peer.public_ip.clone().unwrap_or_else(|| peer.subnet.clone())))
    });
    let mut holders: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (what, value, holder) in own.into_iter().chain(of_peers) {
        if let Some(value) = value {
            holders.entry((what, value)).or_default().push(holder);
        }
    }
    let twice = holders.into_iter().filter(|(_, holders)| holders.len() > 1);
    twice
        .map(|((what, value), holders)| {
            let seen = format!("{what} {value} is used by {}", holders.join(" and "));
            let advice = "one of them must get another: delete and re-join that Node, or its lease (a cloned machine?)";
            Finding::problem(AREA, "duplicate", seen, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use weft_overlay::PeerState;

    use super::{super::finding::Verdict, *};

    fn peer(subnet: &str, address: &str, mac: &str) -> PeerStatus {
        PeerStatus {
            subnet: subnet.to_owned(),
            subnet_v6: None,
            public_ip: Some(address.to_owned()),
            vtep_mac: Some(mac.to_owned()),
            state: PeerState::Up,
            error: None,
        }
    }

    #[test]
    fn one_verdict_for_all_paths_of_a_peer() {
        use MtuVerdict::{NoAnswer, Passes, Smaller};
        let verdict = |underlay, overlay: Option<MtuVerdict>| {
            let path = |kind| Path { kind, target: [172, 30, 0, 2].into(), packet: 1500 };
            let mut tried: Vec<Tried> = vec![(path(PathKind::Underlay), Ok(underlay))];
            tried.extend(overlay.map(|overlay| (path(PathKind::Overlay), Ok(overlay))));
            let finding = mtu("10.244.2.0/24", &tried);
            (finding.check, finding.verdict)
        };
        let smaller = Smaller { largest: 1400 };
        assert_eq!(verdict(Passes, Some(Passes)), ("mtu", Verdict::Ok));
        assert_eq!(verdict(smaller, Some(smaller)), ("mtu", Verdict::Problem));
        assert_eq!(verdict(Passes, Some(smaller)), ("mtu", Verdict::Problem));
        assert_eq!(verdict(Passes, Some(NoAnswer)), ("path", Verdict::Problem));
        assert_eq!(verdict(NoAnswer, Some(NoAnswer)), ("path", Verdict::Problem));
        assert_eq!(verdict(NoAnswer, Some(Passes)), ("path", Verdict::Note));
        assert_eq!(verdict(NoAnswer, None), ("path", Verdict::Warning));
    }

    #[test]
    fn what_two_nodes_have_is_found() {
        let mut overlay = OverlayStatus::default();
        overlay.ipv4.subnet = Some("10.244.1.0/24".to_owned());
        overlay.peers = vec![
            peer("10.244.2.0/24", "172.30.0.2", "02:00:00:00:00:02"),
            peer("10.244.3.0/24", "172.30.0.3", "02:00:00:00:00:03"),
        ];
        assert_eq!(duplicates(&overlay), []);
        overlay.peers[1].vtep_mac = overlay.peers[0].vtep_mac.clone();
        overlay.peers[1].subnet = "10.244.1.0/24".to_owned();
        let found = duplicates(&overlay);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|finding| finding.seen.contains("used by this node and 172.30.0.3")), "{found:?}");
    }

    #[test]
    fn spoilt_checksums_are_a_problem() {
        let target = [10, 244, 2, 0].into();
        assert_eq!(checksums(target, Ok(ChecksumVerdict::Right)), None);
        assert_eq!(checksums(target, Ok(ChecksumVerdict::Broken)).unwrap().verdict, Verdict::Problem);
        assert_eq!(checksums(target, Ok(ChecksumVerdict::NoAnswer)).unwrap().verdict, Verdict::Note);
    }
}
