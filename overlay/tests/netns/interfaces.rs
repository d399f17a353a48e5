//! Which interface and addresses a node takes, by flannel's flags (flannel.md section 6), with packets over it.

use std::time::Duration;

use weft_overlay::InterfaceChoice;

use crate::{
    REPAIR,
    cluster::{Cluster, DUAL_STACK, until},
    exchange::exchange,
    vtep, vtep_v6,
};

#[test]
fn every_flag_chooses_its_interface() {
    let cluster = Cluster::new();
    let second = cluster.node(2, DUAL_STACK);
    let mut first = cluster.machine(1);
    for command in [
        "ip link add link eth0 name storage7 type macvlan mode bridge",
        "ip link set storage7 up",
        "ip address add 172.30.0.61/24 dev storage7",
        "ip address add fd99::61/64 dev storage7 nodad",
        "ip route add 198.51.100.0/24 via 172.30.0.254 dev storage7",
        "ip route add 2001:db8:7::/64 via fd99::fe dev storage7",
    ] {
        first.run(command);
    }
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let default = InterfaceChoice::default;
    let choices = [
        ("the default route", default(), "eth0", "172.30.0.1"),
        (
            "--iface NAME",
            InterfaceChoice { interfaces: names(&["eth9", "storage7"]), ..default() },
            "storage7",
            "172.30.0.61",
        ),
        (
            "--iface ADDRESS",
            InterfaceChoice { interfaces: names(&["172.30.0.61"]), ..default() },
            "storage7",
            "172.30.0.61",
        ),
        (
            "--iface-regex on addresses",
            InterfaceChoice { patterns: vec![r"(172\.30\.0|fd99:)[.:]61".parse().unwrap()], ..default() },
            "storage7",
            "172.30.0.61",
        ),
        (
            "--iface-regex on names",
            InterfaceChoice { patterns: vec!["^none$".parse().unwrap(), "^stor".parse().unwrap()], ..default() },
            "storage7",
            "172.30.0.61",
        ),
        (
            "--iface-can-reach",
            InterfaceChoice { can_reach: Some("198.51.100.9".parse().unwrap()), ..default() },
            "storage7",
            "172.30.0.61",
        ),
        (
            "--public-ip",
            InterfaceChoice {
                public_ip: Some([172, 30, 0, 61].into()),
                public_ipv6: Some("fd99::61".parse().unwrap()),
                ..default()
            },
            "storage7",
            "172.30.0.61",
        ),
    ];
    for (flag, choice, interface, address) in choices {
        let mut config = first.config(DUAL_STACK);
        config.interface = choice;
        first.try_start(config).unwrap();
        first.until_ready();
        let status = first.status();
        assert_eq!(status.ipv4.interface.as_deref(), Some(interface), "{flag}");
        assert_eq!(status.ipv4.public_ip.as_deref(), Some(address), "{flag}");
        assert_eq!(status.ipv6.unwrap().interface.as_deref(), Some(interface), "{flag}");
        until(Duration::from_secs(4), || exchange(&second.netns, &first.netns, vtep(first.subnet())));
        until(Duration::from_secs(4), || exchange(&second.netns, &first.netns, vtep_v6(first.subnet().into())));
        first.stop();
    }
}

#[test]
fn parameters_are_set_checked_and_reported() {
    let cluster = Cluster::new();
    let mut node = cluster.machine(1);
    node.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.all.rp_filter=1");
    node.start(DUAL_STACK);
    node.until_ready();
    let wanted = [
        ("net/ipv4/ip_forward", "1", REPAIR),
        ("net/ipv6/conf/all/forwarding", "1", REPAIR),
        ("net/ipv4/conf/flannel.1/rp_filter", "2", REPAIR),
        // The kernel tells nobody of these: they are looked at every five seconds.
        ("net/ipv6/conf/flannel.1/accept_ra", "0", REPAIR * 4),
        ("net/ipv6/conf/flannel-v6.1/accept_ra", "0", REPAIR * 4),
    ];
    for (parameter, value, soon) in wanted {
        assert_eq!(node.status().sysctls.get(parameter).map(String::as_str), Some(value), "{parameter}");
        let other = if value == "0" { "1" } else { "0" };
        node.run(&format!(
            "sysctl -qw {}={other}",
            parameter.replace('/', "\u{1}").replace('.', "/").replace('\u{1}', ".")
        ));
        until(soon, || match node.run(&format!("cat /proc/sys/{parameter}")) {
            now if now.trim() == value => Ok(()),
            now => Err(format!("{parameter}: {now}")),
        });
    }
    until(REPAIR, || match node.status().repairs_by_kind.get(&weft_overlay::ObjectKind::Sysctl) {
        Some(repairs) if *repairs >= 5 => Ok(()),
        repairs => Err(format!("{repairs:?}")),
    });
}
