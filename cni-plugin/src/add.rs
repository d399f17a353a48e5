//! ADD: make the attachment, or nothing.

use ipnetwork::IpNetwork;
use weft_netlink::{Link, Netlink};

use crate::{
    args::Args,
    attachment::AttachmentId,
    config::{Config, IpamPlugin},
    env::Environment,
    error::{Code, Error},
    extras::{self, Attached, EXTRAS},
    ipam::{Assignment, Ipam, Lease, RangeSet},
    result::{AddResult, Interface, Ip, RouteConfig},
    sandbox::Sandbox,
    subnet_env::SubnetEnv,
    teardown::Teardown,
    veth::{self, Attachment, Wiring},
};

/// What the node gives to a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeNetwork {
    /// Sets of ranges to take addresses from; none when another plugin gives them.
    pub(crate) sets: Vec<RangeSet>,
    /// MTU in bytes; `None`: the kernel's default.
    pub(crate) mtu: Option<u32>,
}

/// Attaches the container to the pod network.
pub(crate) fn add(environment: &Environment, config: &Config) -> Result<AddResult, Error> {
    let args = Args::parse(&environment.args)?;
    let (requested, mac) = (config.requested_ips(&args)?, config.mac(&args)?);
    config.check()?;
    let sandbox = Sandbox::open(environment)?;
    // Before anything is taken, so that the first attachment is unharmed (A1).
    if sandbox.netlink.link_by_name(&environment.ifname)?.is_some() {
        return Err(Error::new(
            Code::Network,
            format!("container veth name {:?} already exists in {}", environment.ifname, environment.netns),
        ));
    }
    let NodeNetwork { sets, mtu } = network_of_node(config)?;
    let host = Netlink::open()?;

    let id = AttachmentId { network: &config.name, owner: environment.owner() };
    let ipam = Ipam::of(environment, config);
    let assignment = ipam.add(id.owner, sets, &requested)?;
    let routes = routes(&assignment);
    let wiring = Wiring { id, pod: args.pod.as_deref(), mtu, mac, leases: &assignment.leases, routes: &routes };
    connect(environment, config, &host, &sandbox, &wiring, &assignment).inspect_err(|_| {
        let mut undo = Teardown::default();
        undo.step(ipam.give_back(id.owner, &assignment.leases));
        undo.finish_quietly();
    })
}

/// Makes the interface and what else the attachment is to have. After an error nothing of it is left (A2).
fn connect(
    environment: &Environment,
    config: &Config,
    host: &Netlink,
    sandbox: &Sandbox,
    wiring: &Wiring<'_>,
    assignment: &Assignment,
) -> Result<AddResult, Error> {
    let attachment = veth::attach(host, sandbox, wiring)?;
    let mut result = result(environment, config, &attachment, wiring, assignment);
    let (host_end, leases) = (&attachment.host, wiring.leases);
    let attached = Attached { id: wiring.id, config, host, host_end, sandbox, leases };
    extras::add(EXTRAS, &attached, &mut result).inspect_err(|_| {
        let mut undo = Teardown::default();
        undo.step(host.delete_link(attachment.host.index));
        undo.finish_quietly();
    })?;
    Ok(result)
}

/// Where addresses come from, and the MTU: from the configuration, else from what the overlay gave the node.
pub(crate) fn network_of_node(config: &Config) -> Result<NodeNetwork, Error> {
    let mtu = (config.mtu != 0).then_some(config.mtu);
    if matches!(config.ipam, IpamPlugin::Other(_)) {
        return Ok(NodeNetwork { sets: Vec::new(), mtu });
    }
    if !config.ranges.is_empty() {
        return Ok(NodeNetwork { sets: RangeSet::check(&config.ranges)?, mtu });
    }
    let node = SubnetEnv::read(&config.subnet_file)?;
    Ok(NodeNetwork { sets: RangeSet::of_subnets(&node.subnets)?, mtu: mtu.or(node.mtu) })
}

/// The IPAM's routes, with the gateway of their family where they name none; without any, default routes.
fn routes(assignment: &Assignment) -> Vec<RouteConfig> {
    let leases = &assignment.leases;
    if assignment.routes.is_empty() {
        return first_of_families(leases).map(|lease| RouteConfig::via(any(lease.address), lease.gateway)).collect();
    }
    let gateway_for = |route: &RouteConfig| {
        let lease = leases.iter().find(|lease| lease.address.is_ipv4() == route.dst.is_ipv4());
        route.gw.or(lease.map(|lease| lease.gateway))
    };
    assignment.routes.iter().map(|route| RouteConfig { gw: gateway_for(route), ..route.clone() }).collect()
}

/// With several addresses of a family, one default route is enough.
fn first_of_families(leases: &[Lease]) -> impl Iterator<Item = &Lease> {
    let first = |v4: bool| leases.iter().find(move |lease| lease.address.is_ipv4() == v4);
    [first(true), first(false)].into_iter().flatten()
}

/// The default destination in the family of `like`.
fn any(like: IpNetwork) -> IpNetwork {
    let text = if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("it is a well-formed network")
}

fn result(
    environment: &Environment,
    config: &Config,
    attachment: &Attachment,
    wiring: &Wiring<'_>,
    assignment: &Assignment,
) -> AddResult {
    let interface = |link: &Link, sandbox: Option<String>| Interface {
        name: link.name.clone(),
        mac: link.mac,
        mtu: link.mtu,
        sandbox,
    };
    // The interface itself has the address as /32 or /128, so that everything goes by the gateway. The result names
    // the subnet's length, as ptp and flannel's bridge do: what reads the mask (chained plugins that spare the pod's
    // own subnet from masquerading, Multus' status) wants to know the subnet, and runtimes read the address only.
    let ip = |lease: &Lease| Ip { address: lease.address, gateway: lease.gateway, interface: 1 };
    AddResult {
        interfaces: vec![
            interface(&attachment.host, None),
            interface(&attachment.container, Some(environment.netns.clone())),
        ],
        ips: assignment.leases.iter().map(ip).collect(),
        routes: wiring.routes.to_vec(),
        dns: config.dns.clone().unwrap_or_else(|| assignment.dns.clone()),
    }
}
