//! Tables for the order and the special cases, properties for the rest.

mod properties;

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn peer(last: u8) -> Peer {
    Peer::Tunnel { mac: mac(last), public_address: [172, 30, 0, last].into() }
}

fn hop(last: u8) -> NextHop {
    NextHop { gateway: [172, 30, 0, last].into(), link: 2 }
}

fn directly(last: u8) -> Peer {
    Peer::Direct(hop(last))
}

fn subnet(third: u8) -> IpNetwork {
    net(&format!("10.244.{third}.0/24"))
}

fn device() -> Device {
    Device {
        name: "flannel.1".into(),
        identity: VxlanIdentity {
            vni: 1,
            port: 8472,
            local: Some([172, 30, 0, 1].into()),
            underlay: Some(2),
            learning: false,
            gbp: false,
        },
        mac: mac(1),
        mtu: 1450,
    }
}

fn desired(peers: &[(u8, u8)]) -> Desired {
    let family = DesiredFamily {
        device: Some(device()),
        pod_mtu: 1450,
        routes_directly: false,
        network: net("10.244.0.0/16"),
        subnet: subnet(1),
        peers: peers.iter().map(|(third, last)| (subnet(*third), peer(*last))).collect(),
        undecided: BTreeSet::new(),
    };
    Desired { families: [(Family::V4, family)].into(), retired: BTreeMap::new() }
}

/// Carries a plan out on a model of the kernel.
fn applied(desired: &Desired, observed: &Observed) -> Observed {
    let mut observed = observed.clone();
    for step in plan(desired, &observed.clone()) {
        observed.record(&step);
    }
    observed
}

fn text(desired: &Desired, observed: &Observed) -> Vec<String> {
    plan(desired, observed).iter().map(|step| step.action.to_string()).collect()
}

fn up() -> (Desired, Observed) {
    let desired = desired(&[(2, 2), (3, 3)]);
    let observed = applied(&desired, &Observed::default());
    (desired, observed)
}

fn family_of(observed: &mut Observed) -> &mut ObservedFamily {
    observed.families.get_mut(&Family::V4).unwrap()
}

#[test]
fn an_empty_node_gets_everything_in_flannels_order() {
    assert_eq!(
        text(&desired(&[(2, 2)]), &Observed::default()),
        [
            "create device flannel.1",
            "set up",
            "add address 10.244.1.0/32",
            "add unreachable route 10.244.1.0/24",
            "replace neighbour 10.244.2.0 at 02:00:00:00:00:02",
            "replace FDB entry 02:00:00:00:00:02 via 172.30.0.2",
            "replace route 10.244.2.0/24",
        ]
    );
}

#[test]
fn a_new_peer_costs_three_steps_and_nothing_else() {
    let (_, observed) = up();
    let steps = plan(&desired(&[(2, 2), (3, 3), (4, 4)]), &observed);
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|step| step.subject == Subject::Peer(subnet(4))));
}

#[test]
fn a_peer_that_left_is_removed_route_first() {
    let (_, observed) = up();
    assert_eq!(
        text(&desired(&[(2, 2)]), &observed),
        [
            "remove route 10.244.3.0/24",
            "remove FDB entry 02:00:00:00:00:03 via 172.30.0.3",
            "remove neighbour 10.244.3.0",
        ]
    );
}

#[test]
fn a_changed_mac_is_added_before_the_old_one_goes() {
    let (mut desired, observed) = up();
    let peers = &mut desired.families.get_mut(&Family::V4).unwrap().peers;
    peers.insert(subnet(3), Peer::Tunnel { mac: mac(9), public_address: [172, 30, 0, 3].into() });
    assert_eq!(
        text(&desired, &observed),
        [
            "replace neighbour 10.244.3.0 at 02:00:00:00:00:09",
            "replace FDB entry 02:00:00:00:00:09 via 172.30.0.3",
            "remove FDB entry 02:00:00:00:00:03 via 172.30.0.3",
        ]
    );
}

#[test]
fn device_differences_are_set_or_recreated() {
    let (desired, observed) = up();
    type Spoil = fn(&mut ObservedDevice);
    let cases: &[(Spoil, &[&str])] = &[
        (|device| device.mtu = 1400, &["set MTU 1450"]),
        (|device| device.up = false, &["set up"]),
        // All neighbours go with the old address, so they are set again.
        (
            |device| device.mac = Some(mac(7)),
            &[
                "set MAC 02:00:00:00:00:01",
                "replace neighbour 10.244.2.0 at 02:00:00:00:00:02",
                "replace neighbour 10.244.3.0 at 02:00:00:00:00:03",
            ],
        ),
    ];
    for (spoil, want) in cases {
        let mut observed = observed.clone();
        spoil(family_of(&mut observed).device.as_mut().unwrap());
        assert_eq!(text(&desired, &observed), *want);
    }
    for spoil in [
        (|device| device.identity = None) as Spoil,
        |device| device.identity.as_mut().unwrap().port = 4789,
        |device| device.identity.as_mut().unwrap().learning = true,
    ] {
        let mut observed = observed.clone();
        spoil(family_of(&mut observed).device.as_mut().unwrap());
        let steps = text(&desired, &observed);
        assert_eq!(steps[..3], ["delete device", "create device flannel.1", "set up"]);
        assert_eq!(steps.len(), 3 + 1 + 2 * 3, "address and both peers again: {steps:?}");
    }
}

#[test]
fn a_peer_moves_between_tunnel_and_direct_route_in_one_step() {
    let (mut wanted, observed) = up();
    let family = wanted.families.get_mut(&Family::V4).unwrap();
    family.routes_directly = true;
    family.peers.insert(subnet(3), directly(3));
    assert_eq!(
        text(&wanted, &observed),
        [
            "replace route 10.244.3.0/24 via 172.30.0.3",
            "remove FDB entry 02:00:00:00:00:03 via 172.30.0.3",
            "remove neighbour 10.244.3.0",
        ]
    );
    let direct = applied(&wanted, &observed);
    assert_eq!(
        text(&desired(&[(2, 2), (3, 3)]), &direct),
        [
            "replace neighbour 10.244.3.0 at 02:00:00:00:00:03",
            "replace FDB entry 02:00:00:00:00:03 via 172.30.0.3",
            "replace route 10.244.3.0/24",
        ]
    );
}

#[test]
fn host_gw_needs_no_device_and_removes_the_old_one_last() {
    let (mut wanted, mut observed) = up();
    let family = wanted.families.get_mut(&Family::V4).unwrap();
    (family.device, family.routes_directly) = (None, true);
    family.peers = [(subnet(2), directly(2))].into();
    // What an observation of the same kernel sees for this configuration.
    *family_of(&mut observed) = ObservedFamily {
        direct: [(subnet(7), hop(7))].into(),
        old_devices: ["flannel.1".to_owned()].into(),
        unreachable: [subnet(1)].into(),
        ..ObservedFamily::default()
    };
    assert_eq!(
        text(&wanted, &observed),
        [
            "replace route 10.244.2.0/24 via 172.30.0.2",
            "remove route 10.244.7.0/24 via 172.30.0.7",
            "delete device flannel.1 of an older configuration",
        ]
    );
}

#[test]
fn entries_of_unreadable_leases_stay() {
    let (mut desired, observed) = up();
    let family = desired.families.get_mut(&Family::V4).unwrap();
    family.peers.remove(&subnet(3));
    family.undecided.insert(subnet(3));
    assert_eq!(text(&desired, &observed), Vec::<String>::new());
}

#[test]
fn while_leases_are_missing_entries_of_all_peers_stay_and_known_ones_are_served() {
    let (mut desired, mut observed) = up();
    let family = desired.families.get_mut(&Family::V4).unwrap();
    family.peers = [(subnet(4), peer(4))].into();
    family.undecided = [family.network].into();
    family_of(&mut observed).direct.insert(subnet(5), hop(5));
    family.routes_directly = true;
    let steps = text(&desired, &observed);
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert!(steps.iter().all(|step| step.starts_with("replace")), "{steps:?}");
}

#[test]
fn a_second_destination_of_a_mac_is_removed() {
    let (desired, mut observed) = up();
    family_of(&mut observed).fdb.insert((mac(2), [9, 9, 9, 9].into()));
    assert_eq!(text(&desired, &observed), ["remove FDB entry 02:00:00:00:00:02 via 9.9.9.9"]);
}

#[test]
fn a_family_that_is_switched_off_is_removed_and_stays_away() {
    let (mut desired, _) = up();
    desired.retired.insert(Family::V6, Retired { device: Some("flannel-v6.1".into()), network: None });
    let mut left = ObservedFamily::default();
    left.old_devices.insert("flannel-v6.1".into());
    left.unreachable.insert(net("fd44:0:0:1::/64"));
    let observed = Observed { families: [(Family::V6, left)].into() };
    let steps = plan(&desired, &observed);
    let retired: Vec<_> =
        steps.iter().filter(|step| step.family == Family::V6).map(|step| step.action.to_string()).collect();
    assert_eq!(
        retired,
        ["remove unreachable route fd44:0:0:1::/64", "delete device flannel-v6.1 of an older configuration"]
    );
    assert_eq!(text(&desired, &applied(&desired, &observed)), Vec::<String>::new());
}
