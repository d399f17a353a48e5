//! The underlay: a bridge that all hosts hang on, and their addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use crate::{Binaries, Place, Run, ip, run::create_netns};

/// Address of the outside host on the underlay (TEST-NET-1, RFC 5737).
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
/// Its IPv6 address (RFC 3849).
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200);
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x254);
/// Name of the cgroup of a host's own processes, inside the host's; no pod is called that.
const HOST_CGROUP: &str = "host.processes";

/// The bridge that all hosts hang on; it also answers as their default gateway.
pub(crate) fn wire(run: &Run) -> Result<()> {
    create_netns(&run.netns("wire"))?;
    ip::batch(
        Some(&run.netns("wire")),
        &format!(
            // With an address of its own: else it takes that of a port, and another one as hosts come and go.
            "link add wire address 02:00:00:00:fe:00 type bridge stp_state 0 mcast_snooping 0\n\
             link set wire up\n\
             address add {ROUTER_V4}/24 dev wire\n\
             address add {ROUTER_V6}/64 dev wire nodad\n"
        ),
    )
}

/// A host with `eth0` on the bridge and a default route.
pub(crate) fn host(run: &Run, binaries: &Binaries, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Place> {
    let netns = create_netns(&run.netns(name))?;
    // Not the host's own cgroup: one with processes in it cannot hand controllers to cgroups below it (cgroups(7), no
    // internal processes), and a container runtime wants that for its pods.
    let cgroup = run.cgroup(&format!("{name}/{HOST_CGROUP}"))?;
    let place = Place::new(name.to_owned(), netns, cgroup, binaries.testkit.clone());
    // Without duplicate address detection, or IPv6 would take a second to come up.
    place.run("sysctl", &["-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"])?;
    ip::batch(
        Some(&run.netns("wire")),
        &format!(
            "link add {name} type veth peer name eth0 netns {}\n\
             link set {name} master wire up\n",
            run.netns(name)
        ),
    )?;
    ip::batch(
        Some(&run.netns(name)),
        &format!(
            "link set eth0 up\n\
             address add {v4}/24 dev eth0\n\
             address add {v6}/64 dev eth0 nodad\n\
             route add default via {ROUTER_V4}\n\
             route add ::/0 via {ROUTER_V6}\n"
        ),
    )?;
    Ok(place)
}

/// From 201 on, after the outside host.
pub(crate) fn host_addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x200 + u16::from(number));
    (Ipv4Addr::new(192, 0, 2, 200 + number), v6)
}

/// From 1 on; at most 99.
pub(crate) fn node_addresses(number: usize) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let last = u8::try_from(number).ok().filter(|&n| (1..100).contains(&n));
    let Some(last) = last else {
        bail!("{number} nodes: at most 99");
    };
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last));
    Ok((Ipv4Addr::new(192, 0, 2, last), v6))
}
