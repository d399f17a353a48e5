use weft_netlink::IfIndex;

use super::*;
use crate::{
    lease::{LeaseAttributes, RejectedLease},
    netconf::SubnetSource,
};

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd44::/48"}"#;

fn lease(key: &str, host: u8) -> Lease {
    let subnets: Subnets = key.parse().unwrap();
    let vtep = |family| subnets.of(family).map(|_| VtepData { vni: 1, mac: Mac([2, 0, 0, 0, 0, host]) });
    Lease {
        subnets,
        attributes: LeaseAttributes {
            public_ip: Some([172, 30, 0, host].into()),
            public_ipv6: Some([0xfd99, 0, 0, 0, 0, 0, 0, u16::from(host)].into()),
            backend_type: "vxlan".into(),
            backend_data: vtep(Family::V4),
            backend_v6_data: vtep(Family::V6),
        },
    }
}

fn with(mut lease: Lease, change: impl FnOnce(&mut LeaseAttributes)) -> Lease {
    change(&mut lease.attributes);
    lease
}

/// The desired state of node 1, `10.244.1.0/24` and `fd44:0:0:1::/64`.
fn derive(leases: Vec<Lease>, rejected: Vec<RejectedLease>) -> (Desired, Vec<PeerProblem>) {
    derive_with(DUAL, &Reach::new(), leases, rejected)
}

fn derive_with(
    net_conf: &str,
    reach: &Reach,
    leases: Vec<Lease>,
    rejected: Vec<RejectedLease>,
) -> (Desired, Vec<PeerProblem>) {
    let net_conf = NetConf::parse(net_conf, SubnetSource::Allocated).unwrap();
    let own = lease("10.244.1.0-24&fd44:0:0:1::-64", 1);
    let underlay = Family::ALL
        .into_iter()
        .map(|family| {
            let address = own.attributes.public_address(family).unwrap();
            let link = IfIndex::new(2).unwrap();
            (family, Underlay { link, name: "eth0".into(), mtu: 1500, address, public_address: address })
        })
        .collect();
    let mut all = leases;
    all.push(own.clone());
    let snapshot = LeaseSnapshot { leases: all, rejected, incomplete: None };
    desired(Local { net_conf: &net_conf, lease: &own, underlay: &underlay, reach, former: &BTreeMap::new() }, &snapshot)
}

fn peers(desired: &Desired, family: Family) -> Vec<String> {
    desired.families[&family].peers.keys().map(ToString::to_string).collect()
}

#[test]
fn the_own_part_comes_from_lease_configuration_and_underlay() {
    let (desired, problems) = derive(vec![], vec![]);
    let v6 = &desired.families[&Family::V6];
    let device = v6.device.as_ref().unwrap();
    assert_eq!((device.name.as_str(), device.mtu, device.identity.port), ("flannel-v6.1", 1430, 8472));
    assert_eq!(v6.vtep_address().unwrap().to_string(), "fd44:0:0:1::/128");
    assert_eq!(desired.families[&Family::V4].pod_mtu, 1450);
    assert!(v6.peers.is_empty() && problems.is_empty(), "the own lease is no peer");
}

#[test]
fn a_peer_is_served_in_the_families_it_has() {
    let (desired, problems) = derive(
        vec![lease("10.244.2.0-24", 2), lease("10.244.3.0-24&fd44:0:0:3::-64", 3), lease("fd44:0:0:4::-64", 4)],
        vec![],
    );
    assert_eq!(peers(&desired, Family::V4), ["10.244.2.0/24", "10.244.3.0/24"]);
    assert_eq!(peers(&desired, Family::V6), ["fd44:0:0:3::/64", "fd44:0:0:4::/64"]);
    assert_eq!(problems, []);
}

#[test]
fn what_would_break_somebody_is_refused_with_a_reason() {
    let cases = [
        (
            with(lease("10.244.2.0-24", 2), |a| a.backend_type = "udp".into()),
            "uses backend \"udp\", this node \"vxlan\"",
        ),
        (with(lease("10.244.2.0-24", 2), |a| a.public_ip = None), "publishes no IPv4 VTEP"),
        (with(lease("10.244.2.0-24", 2), |a| a.backend_data = None), "publishes no IPv4 VTEP"),
        (with(lease("10.244.2.0-24", 2), |a| a.backend_data.as_mut().unwrap().vni = 5), "uses VNI 5, this node 1"),
        (
            with(lease("10.244.2.0-24", 2), |a| a.backend_data.as_mut().unwrap().mac = Mac([1, 0, 0, 0, 0, 2])),
            "publishes 01:00:00:00:00:02, which is no unicast MAC",
        ),
        (lease("10.5.2.0-24", 2), "10.5.2.0/24 is outside the pod network 10.244.0.0/16"),
        (lease("10.244.0.0-20", 2), "10.244.0.0/20 overlaps this node's 10.244.1.0/24"),
        (
            with(lease("10.244.2.0-24", 2), |a| a.public_ip = Some([172, 30, 0, 1].into())),
            "publishes this node's address 172.30.0.1",
        ),
        (
            with(lease("10.244.2.0-24", 2), |a| a.backend_data.as_mut().unwrap().mac = Mac([2, 0, 0, 0, 0, 1])),
            "publishes this node's VTEP MAC 02:00:00:00:00:01",
        ),
        (
            with(lease("10.244.9.0-24", 9), |a| a.backend_data.as_mut().unwrap().mac = Mac([2, 0, 0, 0, 0, 3])),
            "publishes the same VTEP MAC 02:00:00:00:00:03 as 10.244.3.0/24",
        ),
    ];
    for (odd, reason) in cases {
        let subnets = odd.subnets;
        let (desired, problems) = derive(vec![odd, lease("10.244.3.0-24", 3)], vec![]);
        assert_eq!(peers(&desired, Family::V4), ["10.244.3.0/24"], "{reason}");
        assert_eq!(problems, [PeerProblem { subnets, reason: reason.into() }]);
    }
}

#[test]
fn directly_connected_peers_get_routes_and_others_the_tunnel() {
    let reach = Reach::from([([172, 30, 0, 2].into(), Some(2)), ([172, 30, 0, 3].into(), None)]);
    let leases = || vec![lease("10.244.2.0-24", 2), lease("10.244.3.0-24", 3)];
    let conf = |backend: &str| format!(r#"{{"Network":"10.244.0.0/16","Backend":{backend}}}"#);
    let direct = Peer::Direct(NextHop { gateway: [172, 30, 0, 2].into(), link: 2 });

    let (desired, problems) = derive_with(&conf(r#"{"Type":"vxlan","DirectRouting":true}"#), &reach, leases(), vec![]);
    let v4 = &desired.families[&Family::V4];
    let tunnel = Peer::Tunnel { mac: Mac([2, 0, 0, 0, 0, 3]), public_address: [172, 30, 0, 3].into() };
    assert_eq!(v4.peers.values().copied().collect::<Vec<_>>(), [direct, tunnel]);
    assert_eq!((v4.pod_mtu, problems), (1450, vec![]));

    let host_gw = |mut lease: Lease| {
        lease.attributes.backend_type = "host-gw".into();
        (lease.attributes.backend_data, lease.attributes.backend_v6_data) = (None, None);
        lease
    };
    let leases = leases().into_iter().map(host_gw).chain([lease("10.244.4.0-24", 4)]).collect();
    let (desired, problems) = derive_with(&conf(r#"{"Type":"host-gw"}"#), &reach, leases, vec![]);
    let v4 = &desired.families[&Family::V4];
    assert_eq!(v4.peers.values().copied().collect::<Vec<_>>(), [direct]);
    assert_eq!((v4.pod_mtu, &v4.device), (1500, &None));
    let reasons: Vec<_> = problems.iter().map(|problem| problem.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "172.30.0.3 is not on a directly connected network, which backend host-gw needs",
            r#"uses backend "vxlan", this node "host-gw""#
        ]
    );
}

#[test]
fn a_stale_lease_beside_a_newer_dual_stack_one_changes_nothing() {
    let (desired, problems) =
        derive(vec![lease("10.244.2.0-24", 2), lease("10.244.2.0-24&fd44:0:0:2::-64", 2)], vec![]);
    assert_eq!(peers(&desired, Family::V4), ["10.244.2.0/24"]);
    assert_eq!(problems, []);
    // Of another node: the fuller lease wins, and it is said.
    let (desired, problems) =
        derive(vec![lease("10.244.2.0-24", 7), lease("10.244.2.0-24&fd44:0:0:2::-64", 2)], vec![]);
    let holder = desired.families[&Family::V4].peers.values().next().unwrap().public_address();
    assert_eq!(holder.to_string(), "172.30.0.2");
    assert_eq!(problems[0].reason, "10.244.2.0/24 is also leased by 172.30.0.2");
}

#[test]
fn subnets_of_unreadable_leases_are_undecided() {
    let rejected = RejectedLease {
        object: "10.244.9.0-24".into(),
        reason: "empty".into(),
        subnets: Some("10.244.9.0-24".parse().unwrap()),
    };
    let (desired, _) = derive(vec![], vec![rejected]);
    let undecided = &desired.families[&Family::V4].undecided;
    assert_eq!(undecided.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.9.0/24"]);
}
