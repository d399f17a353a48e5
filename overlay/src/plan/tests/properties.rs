//! Whatever the two states are: the plan leads from one to the other, in an order that hurts nobody.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_desired()(
        peers in prop::collection::btree_map(2u8..12, (2u8..12, any::<bool>()), 0..8),
        routes_directly in any::<bool>(),
        undecided in prop::collection::btree_set(2u8..12, 0..3),
        own_mac in 100u8..102,
        mtu in prop::sample::select(vec![1400u32, 1450]),
        vni in 1u32..3,
    ) -> Desired {
        let mut desired = desired(&[]);
        let family = desired.families.get_mut(&Family::V4).unwrap();
        // One MAC belongs to one public address: `desired()` refuses the rest.
        family.peers = peers
            .iter()
            .map(|(third, (last, direct))| (subnet(*third), if *direct && routes_directly { directly(*last) } else { peer(*last) }))
            .collect();
        family.routes_directly = routes_directly;
        family.undecided = undecided.iter().map(|third| subnet(*third)).filter(|s| !family.peers.contains_key(s)).collect();
        let device = family.device.as_mut().unwrap();
        device.mac = mac(own_mac);
        device.mtu = mtu;
        device.identity.vni = vni;
        desired
    }
}

prop_compose! {
    fn any_observed()(
        device in prop::option::of((prop::option::of(1u32..3), prop::option::of(100u8..103), 1u32..3, any::<bool>())),
        addresses in prop::collection::btree_set(0u8..4, 0..3),
        routes in prop::collection::btree_set(2u8..12, 0..8),
        neighbours in prop::collection::btree_map(2u8..12, 2u8..12, 0..8),
        fdb in prop::collection::btree_set((2u8..12, 2u8..12), 0..12),
        unreachable in prop::collection::btree_set(1u8..4, 0..3),
        direct in prop::collection::btree_map(2u8..12, 2u8..12, 0..4),
        old_device in any::<bool>(),
    ) -> Observed {
        let device = device.map(|(vni, last, mtu, up)| ObservedDevice {
            identity: vni.map(|vni| VxlanIdentity { vni, ..self::device().identity }),
            mac: last.map(mac),
            mtu: 1400 + mtu * 25,
            up,
        });
        let on_device = device.is_some();
        let family = ObservedFamily {
            device,
            addresses: addresses.iter().filter(|_| on_device).map(|third| net(&format!("10.244.{third}.0/32"))).collect(),
            // A destination has one route.
            routes: routes.iter().filter(|third| on_device && !direct.contains_key(*third)).map(|third| subnet(*third)).collect(),
            neighbours: neighbours.iter().filter(|_| on_device).map(|(third, last)| (subnet(*third).network(), mac(*last))).collect(),
            fdb: fdb.iter().filter(|_| on_device).map(|(m, last)| (mac(*m), [172, 30, 0, *last].into())).collect(),
            direct: direct.iter().map(|(third, last)| (subnet(*third), hop(*last))).collect(),
            old_devices: old_device.then(|| "flannel.9".to_owned()).into_iter().collect(),
            unreachable: unreachable.iter().map(|third| subnet(*third)).collect(),
        };
        Observed { families: [(Family::V4, family)].into() }
    }
}

proptest! {
    #[test]
    fn applying_the_plan_reaches_the_desired_state(desired in any_desired(), observed in any_observed()) {
        let after = applied(&desired, &observed);
        let (want, have) = (&desired.families[&Family::V4], &after.families[&Family::V4]);
        let (device, wanted) = (have.device.as_ref().unwrap(), want.device.as_ref().unwrap());
        prop_assert_eq!(device.identity.as_ref(), Some(&wanted.identity));
        prop_assert_eq!((device.mac, device.mtu, device.up), (Some(wanted.mac), wanted.mtu, true));
        prop_assert!(have.old_devices.is_empty());
        prop_assert_eq!(&have.addresses, &[net("10.244.1.0/32")].into());
        prop_assert_eq!(&have.unreachable, &[subnet(1)].into());
        for (subnet, peer) in &want.peers {
            match *peer {
                Peer::Tunnel { mac, public_address } => {
                    prop_assert!(have.routes.contains(subnet) && !have.direct.contains_key(subnet));
                    prop_assert_eq!(have.neighbours.get(&subnet.network()), Some(&mac));
                    prop_assert!(have.fdb.contains(&(mac, public_address)));
                }
                Peer::Direct(hop) => {
                    prop_assert_eq!(have.direct.get(subnet), Some(&hop));
                    prop_assert!(!have.routes.contains(subnet));
                }
            }
        }
        // What is left besides belongs to leases nobody can read, and was there before.
        let before = observed.families.get(&Family::V4).unwrap();
        for route in have.routes.iter().filter(|route| !want.peers.contains_key(route)) {
            prop_assert!(want.undecided.contains(route) && before.routes.contains(route));
        }
        let peers: BTreeSet<_> = want.peers.values().filter_map(Peer::tunnel).collect();
        for entry in have.fdb.difference(&peers) {
            prop_assert!(before.fdb.contains(entry));
            let undecided = |(address, mac): (&std::net::IpAddr, &Mac)| {
                *mac == entry.0 && want.undecided.iter().any(|subnet| subnet.network() == *address)
            };
            prop_assert!(before.neighbours.iter().any(undecided));
        }
    }

    #[test]
    fn a_second_plan_is_empty(desired in any_desired(), observed in any_observed()) {
        let after = applied(&desired, &observed);
        prop_assert_eq!(plan(&desired, &after), Vec::new());
    }

    #[test]
    fn the_same_states_give_the_same_plan(desired in any_desired(), observed in any_observed()) {
        prop_assert_eq!(plan(&desired, &observed), plan(&desired.clone(), &observed.clone()));
    }

    #[test]
    fn nothing_is_removed_before_all_is_added(desired in any_desired(), observed in any_observed()) {
        let steps = plan(&desired, &observed);
        let first_stale = steps.iter().position(|step| step.subject == Subject::Stale).unwrap_or(steps.len());
        prop_assert!(steps[first_stale..].iter().all(|step| step.subject == Subject::Stale));
    }
}
