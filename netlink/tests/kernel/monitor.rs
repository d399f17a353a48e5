use std::{sync::mpsc, thread, time::Duration};

use weft_netlink::{
    AddressOptions, Event, FdbEntry, Group, Mac, Monitor, Neighbour, NeighbourState, Netlink, Route, VxlanSpec, sysctl,
};

use crate::{ethernet, in_new_netns, index};

/// Stops a monitor when a test takes too long, so that the test fails instead of hanging.
struct TimeLimit {
    _done: mpsc::Sender<()>,
}

impl TimeLimit {
    fn of(monitor: &Monitor) -> Self {
        let stopper = monitor.stopper();
        let (done, over) = mpsc::channel();
        thread::spawn(move || {
            if over.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
                stopper.stop();
            }
        });
        Self { _done: done }
    }
}

fn read(monitor: &Monitor, awaited: &str) -> Vec<Event> {
    let events = monitor.wait().unwrap();
    assert!(!events.is_empty(), "time is over: no {awaited}");
    events
}

fn wait_for(monitor: &Monitor, awaited: &str, wanted: impl Fn(&Event) -> bool) {
    while !read(monitor, awaited).iter().any(&wanted) {}
}

#[test]
fn every_kind_of_change_is_told() {
    in_new_netns(|netlink| {
        let monitor = Monitor::open(&Group::ALL).unwrap();
        let _limit = TimeLimit::of(&monitor);
        let underlay = ethernet(netlink, "eth0", "172.30.0.1/24");
        wait_for(
            &monitor,
            "link up",
            |event| matches!(event, Event::LinkChanged(link) if link.index == underlay && link.up),
        );
        let address = "10.1.0.1/24".parse().unwrap();
        netlink.replace_address(underlay, address, AddressOptions::default()).unwrap();
        wait_for(
            &monitor,
            "address",
            |event| matches!(event, Event::AddressChanged(found) if found.address == address),
        );
        netlink.delete_address(underlay, address).unwrap();
        wait_for(
            &monitor,
            "no address",
            |event| matches!(event, Event::AddressRemoved(found) if found.address == address),
        );

        for (destination, gateway) in [("10.244.2.0/24", "172.30.0.2"), ("fd00:244:2::/64", "fe80::2")] {
            let gateway = Some(gateway.parse().unwrap());
            let route = Route { gateway, link: Some(underlay), ..Route::new(destination.parse().unwrap()) };
            netlink.replace_route(&route).unwrap();
            wait_for(&monitor, "route", |event| *event == Event::RouteChanged(route.clone()));
            netlink.delete_route(&route).unwrap();
            wait_for(&monitor, "no route", |event| *event == Event::RouteRemoved(route.clone()));
        }
        netlink.delete_link(underlay).unwrap();
        wait_for(&monitor, "no link", |event| matches!(event, Event::LinkRemoved(link) if link.index == underlay));
    });
}

#[test]
fn neighbours_and_fdb_entries_are_told_apart() {
    in_new_netns(|netlink| {
        let link = vxlan(netlink);
        let monitor = Monitor::open(&[Group::Neighbour]).unwrap();
        let _limit = TimeLimit::of(&monitor);
        let mac = Mac([0x7e, 1, 2, 3, 4, 5]);
        let neighbour = Neighbour::permanent(link, "10.244.2.0".parse().unwrap(), mac);
        netlink.replace_neighbour(&neighbour).unwrap();
        wait_for(&monitor, "neighbour", |event| *event == Event::NeighbourChanged(neighbour));
        netlink.delete_neighbour(&neighbour).unwrap();
        // The kernel first marks it failed, then collects it; either tells a reconciler that it is not permanent.
        wait_for(&monitor, "no neighbour", |event| match event {
            Event::NeighbourRemoved(found) => found.address == neighbour.address,
            Event::NeighbourChanged(found) => {
                found.address == neighbour.address && found.state != NeighbourState::Permanent
            }
            _ => false,
        });
        let entry = FdbEntry { link, mac, dst: "172.30.0.2".parse().unwrap() };
        netlink.replace_fdb(&entry).unwrap();
        wait_for(&monitor, "FDB entry", |event| *event == Event::FdbChanged(entry));
        netlink.delete_fdb(&entry).unwrap();
        wait_for(&monitor, "no FDB entry", |event| *event == Event::FdbRemoved(entry));
    });
}

fn vxlan(netlink: &Netlink) -> weft_netlink::IfIndex {
    ethernet(netlink, "eth0", "172.30.0.1/24");
    let spec = VxlanSpec {
        name: "flannel.1".into(),
        vni: 1,
        local: Some("172.30.0.1".parse().unwrap()),
        underlay: Some(index(netlink, "eth0")),
        port: 8472,
        mtu: None,
        mac: None,
        learning: false,
        gbp: false,
    };
    let link = netlink.create_vxlan(&spec).unwrap().index;
    netlink.set_up(link).unwrap();
    link
}

#[test]
fn an_overrun_is_told_and_the_subscription_goes_on() {
    in_new_netns(|netlink| {
        let link = ethernet(netlink, "d0", "192.0.2.1/24");
        let monitor = Monitor::open(&[Group::Ipv4Route]).unwrap();
        let _limit = TimeLimit::of(&monitor);
        let route = |mtu| Route { link: Some(link), mtu: Some(mtu), ..Route::new("10.244.2.0/24".parse().unwrap()) };
        // Unread, 16 MiB of them: a notice takes 512 bytes and its bookkeeping.
        for n in 0..60_000 {
            netlink.replace_route(&route(1000 + n % 2)).unwrap();
        }
        while !read(&monitor, "overrun").contains(&Event::Overrun) {}
        netlink.replace_route(&route(1234)).unwrap();
        while !read(&monitor, "route after the overrun").contains(&Event::RouteChanged(route(1234))) {}
    });
}

#[test]
fn a_waiting_thread_can_be_stopped() {
    in_new_netns(|_| {
        let monitor = Monitor::open(&Group::ALL).unwrap();
        let stopper = monitor.stopper();
        let waiting = thread::spawn(move || {
            let first = monitor.wait().unwrap();
            (first, monitor.wait().unwrap())
        });
        stopper.stop();
        assert_eq!(waiting.join().unwrap(), (Vec::new(), Vec::new()));
    });
}

#[test]
fn parameters_that_somebody_changes_are_told() {
    in_new_netns(|_| {
        let monitor = Monitor::open(&[Group::Ipv4Parameters, Group::Ipv6Parameters]).unwrap();
        let _limit = TimeLimit::of(&monitor);
        for parameter in ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/all/forwarding"] {
            let other = if sysctl::get(parameter).unwrap() == "1" { "0" } else { "1" };
            sysctl::set(parameter, other).unwrap();
            let events = read(&monitor, parameter);
            assert!(events.iter().all(|event| *event == Event::ParameterChanged), "{parameter}: {events:?}");
        }
    });
}
